"""The values of a mask from the channels of its file."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segtrain.data.io.missing import is_value
from segtrain.data.labels.advice import describe_levels
from segtrain.data.labels.levels import find_levels
from segtrain.data.labels.mask_facts import NAN, histogram
from segtrain.data.labels.wording import in_words
from segtrain.errors import DataError

ALPHA = "alpha"
_MAX_TINT = 16  # between the channels of a grey pixel after lossy compression
_MAX_LISTED = 6


def chosen_channel(
    values: NDArray[Any], channel: int | str, name: str, *, has_alpha: bool
) -> NDArray[Any]:
    """Return one channel of a mask, ``(H, W)``.

    Args:
        values: ``(H, W)`` or ``(H, W, C)``.
        channel: Its number, or :data:`ALPHA`.
        name: The name of the file, for error messages.
        has_alpha: Whether the last channel is transparency.

    Raises:
        DataError: When there is no such channel.
    """
    number = 1 if values.ndim == 2 else values.shape[2]
    if channel == ALPHA:
        if not has_alpha:
            raise DataError(
                f"{name}: the mask has no alpha channel, but dataset.mask_channel={ALPHA}; set it"
                " to null"
            )
        return np.ascontiguousarray(values[..., -1])
    if int(channel) >= number:
        raise DataError(
            f"{name}: the mask has {number} channel{'s' if number > 1 else ''}, but"
            f" dataset.mask_channel={channel}; numbers start at 0"
        )
    return values if values.ndim == 2 else np.ascontiguousarray(values[..., int(channel)])


def one_channel(values: NDArray[Any], name: str, *, has_alpha: bool, grey: bool) -> NDArray[Any]:
    """Return a mask as one channel ``(H, W)`` or as colours ``(H, W, 3)``, without transparency.

    Args:
        values: ``(H, W)`` or ``(H, W, C)``.
        name: The name of the file, for error messages.
        has_alpha: Whether the last channel is transparency.
        grey: Whether three equal channels are one grey channel.

    Raises:
        DataError: When the number of channels is wrong, or only the transparency varies.
    """
    if values.ndim == 2:
        return values
    if has_alpha:
        _check_alpha(values, name)
    number = values.shape[2] - has_alpha
    if number == 1:
        return np.ascontiguousarray(values[..., 0])
    if number not in (3, 4) or values.dtype != np.uint8:
        raise DataError(
            f"{name}: the mask has {values.shape[2]} channels of {values.dtype}, but a mask has one"
            " channel of whole numbers, the class ids, or colours of 8 bits; if each channel stands"
            " for a class, set dataset.multi_label=true"
        )
    colours = np.ascontiguousarray(values[..., :3])
    if grey and int(np.ptp(colours, axis=2).max(initial=0)) <= _MAX_TINT:
        return np.ascontiguousarray(colours[..., 1])  # green, which JPEG keeps best
    return colours


def _check_alpha(values: NDArray[Any], name: str) -> None:
    """Refuse a mask whose objects are drawn in its transparency only."""
    rows, alpha = values[..., :-1].reshape(-1, values.shape[2] - 1), values[..., -1]
    if alpha.size and alpha.min() != alpha.max() and (rows == rows[0]).all():
        found = np.unique(alpha)
        shown = in_words(found[:_MAX_LISTED]) + (", ..." if len(found) > _MAX_LISTED else "")
        raise DataError(
            f"{name}: the mask has one colour, and only its alpha channel varies ({shown}), so its"
            f" objects are drawn as transparency; set dataset.mask_channel={ALPHA}"
        )


def explain_lossy(values: NDArray[Any], lossy: str, name: str) -> str:
    """Return the message about a mask in a lossy file, with the label map that would read it.

    Args:
        values: ``(H, W)`` or ``(H, W, 3)``.
        lossy: The name of the format.
        name: The name of the file.
    """
    problem = f"{name}: the mask is a {lossy} file, whose compression changes class ids"
    fix = "write the masks as PNG from their source"
    grey = values
    if values.ndim == 3:
        if values.shape[2] != 3 or int(np.ptp(values, axis=2).max(initial=0)) > _MAX_TINT:
            return f"{problem}; {fix}"
        grey = values[..., 1]
    if grey.dtype != np.uint8:
        return f"{problem}; {fix}"
    counts = histogram(grey)
    levels = find_levels(counts, 2)
    if levels is None:
        return f"{problem}; {fix}"
    held = describe_levels(levels, len(counts))
    return f"{problem}; {fix}, or read ranges of values: it holds {held}"


def whole_numbers(values: NDArray[Any], name: str, nodata: float | None = None) -> NDArray[Any]:
    """Return a mask as integers; no data becomes :data:`~segtrain.data.labels.mask_facts.NAN`.

    Args:
        values: The values.
        name: The name of the file, for error messages.
        nodata: The value without data, besides NaN; None: only NaN.

    Raises:
        DataError: When it holds numbers that are not whole.
    """
    if values.dtype == np.bool_:
        return values.astype(np.uint8)
    is_float = values.dtype.kind == "f"
    if not is_float and nodata is None:
        return values
    missing = np.isnan(values) if is_float else np.zeros(values.shape, np.bool_)
    if nodata is not None:
        missing |= is_value(values, nodata)
    found = np.where(missing, 0, values)
    wrong = (found != np.round(found)) | (np.abs(found) >= -NAN)
    if wrong.any():
        value = found[wrong][0]
        fix = "write the ids, not probabilities or scaled values"
        if np.abs(value) >= -NAN:
            fix = f"if it marks pixels without a class, set dataset.nodata={float(value)!r}"
        raise DataError(
            f"{name}: the mask holds {value:g} at {int(wrong.sum())} pixels, but class ids are"
            f" whole numbers; {fix}"
        )
    whole = found.astype(np.int64)
    whole[missing] = NAN
    return whole
