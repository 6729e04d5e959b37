"""The raw values of a mask: their channels, and their counts, which a contract is checked with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segtrain.errors import DataError

NAN = -(1 << 31)
"""The raw value that stands for NaN in a mask of floats: a pixel without a class."""


class MaskFacts(NamedTuple):
    """The shape of a mask and its counts, enough to check it against any contract.

    Attributes:
        shape: Height and width, and the number of channels where there are several.
        counts: Raw value to pixel count, for each channel where channels are classes.
        colours: Whether raw values are colours, ``0xRRGGBB``.
        invalid: Number of pixels that do not count; `counts` is without them.
    """

    shape: tuple[int, ...]
    counts: tuple[dict[int, int], ...]
    colours: bool = False
    invalid: int = 0

    @classmethod
    def of_mask(
        cls,
        raw: NDArray[Any] | Sequence[NDArray[Any]],
        *,
        multi_label: bool,
        valid: NDArray[np.bool_] | None = None,
    ) -> MaskFacts:
        """Count the raw values of a mask.

        Args:
            raw: ``(H, W)``, integers, or colours ``(H, W, 3)``, uint8. For multi-label data
                ``(H, W, num_classes)``, or a list of ``(H, W)``.
            multi_label: Whether channels are classes rather than the parts of a colour.
            valid: The pixels that count, ``(H, W)``; None: all pixels.
        """
        is_array = isinstance(raw, np.ndarray)
        shape = raw.shape if isinstance(raw, np.ndarray) else (*raw[0].shape, len(raw))
        colours = is_array and len(shape) == 3 and shape[2] == 3 and not multi_label
        if isinstance(raw, np.ndarray) and colours:
            channels = [pack_colours(raw)]
        elif isinstance(raw, np.ndarray):
            channels = [raw] if raw.ndim == 2 else [raw[..., index] for index in range(shape[2])]
        else:
            channels = [*raw]
        chosen = channels if valid is None else [channel[valid] for channel in channels]
        invalid = 0 if valid is None else int(valid.size - np.count_nonzero(valid))
        return cls(shape, tuple(histogram(channel) for channel in chosen), colours, invalid)

    def to_json(self) -> list[Any]:
        """Return plain lists."""
        plain = [list(self.shape), [sorted(c.items()) for c in self.counts], self.colours]
        return [*plain, self.invalid] if self.invalid else plain

    @classmethod
    def from_json(cls, plain: Sequence[Any]) -> MaskFacts:
        """Return the facts that :meth:`to_json` turned into lists."""
        shape, counts, colours, *invalid = plain
        found = tuple({int(value): int(n) for value, n in channel} for channel in counts)
        return cls(tuple(shape), found, bool(colours), int(sum(invalid)))

    def totals(self) -> dict[int, int]:
        """Every raw value that occurs, except :data:`NAN`, with its pixels in all channels."""
        return total_counts([self])


def total_counts(masks: Iterable[MaskFacts]) -> dict[int, int]:
    """Count the raw values of several masks together, except :data:`NAN`."""
    found: dict[int, int] = {}
    for mask in masks:
        for channel in mask.counts:
            for value, number in channel.items():
                if number and value != NAN:
                    found[value] = found.get(value, 0) + number
    return found


def pack(colour: Sequence[int]) -> int:
    """Return a colour as one number.

    Example:
        >>> f"0x{pack((64, 0, 255)):06X}"
        '0x4000FF'
    """
    red, green, blue = (int(channel) for channel in colour[:3])
    return red << 16 | green << 8 | blue


def histogram(raw: NDArray[Any]) -> dict[int, int]:
    """Count the pixels of each value in an array of integers.

    Example:
        >>> histogram(np.array([[0, 7], [7, 7]], dtype=np.uint8))
        {0: 1, 7: 3}
    """
    if raw.dtype in (np.uint8, np.uint16):
        counts = np.bincount(raw.ravel())
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    values, numbers = np.unique(raw, return_counts=True)
    return {int(value): int(count) for value, count in zip(values, numbers, strict=True)}


def pack_colours(pixels: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return every pixel of ``(H, W, 3)`` as one number, as :func:`pack` does, ``(H, W)``."""
    wide = pixels.astype(np.int32)
    packed: NDArray[np.int32] = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    return packed


def stack_channels(
    raw: NDArray[Any] | Sequence[NDArray[Any]], file: str, num_classes: int | None
) -> NDArray[Any]:
    """Return the raw values of a mask as one array.

    Args:
        raw: ``(H, W)``, or ``(H, W, C)``, or a list with a mask ``(H, W)`` per class.
        file: The name of the mask, for error messages.
        num_classes: Of multi-label data, whose masks have a channel per class; None: of other data,
            whose masks have one channel, or three channels of a colour.

    Raises:
        DataError: When the number of channels or the sizes are wrong.
    """
    if not isinstance(raw, np.ndarray):
        sizes = {mask.shape for mask in raw}
        if len(sizes) > 1:
            raise DataError(f"{file}: the masks of the classes differ in size: {sorted(sizes)}")
        raw = np.stack([*raw], axis=2)
    if num_classes is None:
        if raw.ndim == 3 and raw.shape[2] != 3:
            raise DataError(
                f"{file}: the mask has {raw.shape[2]} channels; allowed are one channel, three"
                " channels of a colour, or, with dataset.multi_label=true, a channel per class"
            )
        return raw
    values = raw[..., None] if raw.ndim == 2 else raw
    if values.shape[2] != num_classes:
        raise DataError(
            f"{file}: a multi-label mask needs a channel per class, {num_classes}, but has"
            f" {values.shape[2]}; give a file per class, or set"
            f" dataset.num_classes={values.shape[2]}"
        )
    return values
