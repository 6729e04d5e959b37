"""Pixels without data: which ones they are in a file, and what takes their place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_CLASS_ID = 65535
"""The largest value that may be a class id; "no data" in a mask is a larger or a negative one."""


def missing_pixels(
    pixels: NDArray[Any], nodata: float | None, value_range: tuple[float, float] | None
) -> NDArray[np.bool_] | None:
    """Return the pixels of an image that have no data; None: all have.

    A value that may also be one of real pixels, such as 0, means "no data" where all channels have
    it. A value that cannot, such as -9999, or NaN means it in any channel.

    Args:
        pixels: ``(H, W, C)``, as the file holds them.
        nodata: The value without data; None: only NaN.
        value_range: The two values that become 0 and 1.

    Shape:
        - output: ``(H, W)``.
    """
    found: NDArray[np.bool_] | None = None
    if pixels.dtype.kind == "f":
        nan = np.isnan(pixels).any(2)
        found = nan if nan.any() else None
    if nodata is None or np.isnan(nodata):
        return found
    equal = is_value(pixels, nodata)
    is_integer = pixels.dtype.kind in "ui"
    low, high = value_range or (0, np.iinfo(pixels.dtype).max if is_integer else 1)
    here: NDArray[np.bool_] = np.asarray(equal.all(2) if low <= nodata <= high else equal.any(2))
    if found is not None:
        here = np.logical_or(here, found)
    return here if here.any() else None


def is_value(pixels: NDArray[Any], value: float) -> NDArray[np.bool_]:
    """Return where `pixels` hold a value, which is first rounded to their type."""
    found: NDArray[np.bool_]
    if pixels.dtype.kind not in "ui":
        found = np.equal(pixels, np.array(value).astype(pixels.dtype))
        return found
    span = np.iinfo(pixels.dtype)
    if value != round(value) or not span.min <= value <= span.max:
        return np.zeros(pixels.shape, np.bool_)
    found = np.equal(pixels, int(value))
    return found


def fill_missing(image: NDArray[Any], mean: Sequence[float]) -> NDArray[Any]:
    """Return an image with the `mean` of its channel in place of NaN.

    After normalisation such a pixel is 0, if no augmentation changes colours.

    Shape:
        - image: ``(H, W, C)``, uint8, which has no NaN, or float32.

    Example:
        >>> image = np.array([[[np.nan], [1.0]]], np.float32)
        >>> fill_missing(image, [0.25]).ravel().tolist()
        [0.25, 1.0]
    """
    if image.dtype.kind != "f":
        return image
    missing = np.isnan(image)
    if not missing.any():
        return image
    return np.where(missing, np.array(mean, image.dtype), image)
