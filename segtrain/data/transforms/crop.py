"""Random crops that are chosen in the source image, so that only their part of it is resized.

Resizing the whole image and cropping the result gives the same picture at several times the cost:
at scale 2, a crop of 512 x 1024 needs an eighth of a megapixel of the source, while resizing a
1024 x 2048 image computes eight megapixels.
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_CHANNELS = 64  # that OpenCV resizes, flips and splits in one call; some builds allow 128
_MAX_ROTATED = 4  # channels that it rotates in one call


class Span(NamedTuple):
    """One axis of a crop.

    Attributes:
        start: First row or column in the source.
        length: Number of rows or columns in the source.
        place: First row or column in the result.
        size: Number of rows or columns in the result.
    """

    start: int
    length: int
    place: int
    size: int


class Crop(NamedTuple):
    """The geometric part of an augmentation.

    Attributes:
        rows: The vertical axis.
        columns: The horizontal axis.
        size: Height and width of the result.
        angle: Angle of a rotation about the middle of the crop, in degrees.
        mirrored: Whether left and right change places.
        upside_down: Whether top and bottom change places.
    """

    rows: Span
    columns: Span
    size: tuple[int, int]
    angle: float = 0.0
    mirrored: bool = False
    upside_down: bool = False


def draw_span(rng: np.random.Generator, source: int, wanted: int, scale: float) -> Span:
    """Draw one axis of a crop, all positions with equal probability.

    The distribution is that of scaling the whole axis by `scale`, then cropping it to `wanted`, or
    padding it to `wanted` with a random split of the padding between both sides.

    Args:
        rng: The source of randomness.
        source: Length of the axis in the image.
        wanted: Length of the axis in the result.
        scale: Factor from source to result.

    Example:
        >>> draw_span(np.random.default_rng(0), source=100, wanted=40, scale=2.0)
        Span(start=68, length=20, place=0, size=40)
        >>> draw_span(np.random.default_rng(0), source=100, wanted=80, scale=0.5)
        Span(start=0, length=100, place=26, size=50)
    """
    length = max(round(wanted / scale), 1)
    if length <= source:
        return Span(int(rng.integers(source - length + 1)), length, 0, wanted)
    size = min(max(round(source * scale), 1), wanted)
    return Span(0, source, int(rng.integers(wanted - size + 1)), size)


def cut(
    pixels: NDArray[Any], crop: Crop, fill: NDArray[Any] | float, *, nearest: bool = False
) -> NDArray[Any]:
    """Crop an image or a mask.

    Args:
        pixels: ``(H, W)`` or ``(H, W, C)``; uint8, uint16 or float32.
        crop: The crop.
        fill: The value of pixels without a source: one number, or one per channel.
        nearest: Whether to take the nearest pixel, as class ids need, instead of interpolating.

    Shape:
        - output: ``(h, w)`` or ``(h, w, C)`` with ``(h, w) = crop.size``, contiguous.
    """
    most = _MAX_ROTATED if crop.angle else MAX_CHANNELS
    if pixels.ndim == 3 and pixels.shape[2] > most:
        fills = np.broadcast_to(fill, pixels.shape[2:])
        parts = [slice(first, first + most) for first in range(0, pixels.shape[2], most)]
        return np.concatenate(
            [cut(pixels[..., part], crop, fills[part], nearest=nearest) for part in parts], axis=2
        )
    work = _rotated if crop.angle else _upright
    result = work(pixels, crop, fill, nearest=nearest)
    if crop.mirrored or crop.upside_down:
        result = _flipped(result, crop)
    return np.ascontiguousarray(result)


def _flipped(pixels: NDArray[Any], crop: Crop) -> NDArray[Any]:
    cv2 = importlib.import_module("cv2")
    axis = -1 if crop.mirrored and crop.upside_down else int(crop.mirrored)
    found: NDArray[Any] = cv2.flip(pixels, axis)  # forty times as fast as negative steps in NumPy
    return found.reshape(pixels.shape)


def _upright(
    pixels: NDArray[Any], crop: Crop, fill: NDArray[Any] | float, *, nearest: bool
) -> NDArray[Any]:
    rows, columns = crop.rows, crop.columns
    window = pixels[
        rows.start : rows.start + rows.length, columns.start : columns.start + columns.length
    ]
    if (rows.length, columns.length) != (rows.size, columns.size):
        window = _resized(window, rows.size, columns.size, nearest=nearest)
    if (rows.size, columns.size) == crop.size:
        return window
    result = np.empty((*crop.size, *pixels.shape[2:]), dtype=pixels.dtype)
    result[...] = fill
    result[rows.place : rows.place + rows.size, columns.place : columns.place + columns.size] = (
        window
    )
    return result


def _resized(window: NDArray[Any], height: int, width: int, *, nearest: bool) -> NDArray[Any]:
    cv2 = importlib.import_module("cv2")
    # Plain INTER_NEAREST rounds down, which is half a pixel off from bilinear interpolation.
    kind = cv2.INTER_NEAREST_EXACT if nearest else cv2.INTER_LINEAR
    found: NDArray[Any] = cv2.resize(window, (width, height), interpolation=kind)
    return found.reshape(height, width, *window.shape[2:])  # OpenCV drops a single channel


def _rotated(
    pixels: NDArray[Any], crop: Crop, fill: NDArray[Any] | float, *, nearest: bool
) -> NDArray[Any]:
    cv2 = importlib.import_module("cv2")
    kind = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    matrix = _affine_map(crop)
    top, bottom, left, right = _bounds(matrix, crop.size, pixels.shape)
    matrix[:, 2] -= left, top
    border = np.broadcast_to(fill, pixels.shape[2:]).astype(np.float64)
    rotated: NDArray[Any] = cv2.warpAffine(
        np.ascontiguousarray(pixels[top:bottom, left:right]),
        matrix,
        crop.size[::-1],
        flags=kind | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=border.reshape(-1).tolist(),
    )
    return rotated.reshape(*crop.size, *pixels.shape[2:])


def _bounds(
    matrix: NDArray[np.float64], size: tuple[int, int], shape: tuple[int, ...]
) -> tuple[int, int, int, int]:
    """Return the part of the source that the result needs; OpenCV warps no side above 32,767."""
    height, width = size
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]])
    found = corners @ matrix.T
    left, top = np.floor(found.min(0)).astype(int) - 1
    right, bottom = np.ceil(found.max(0)).astype(int) + 2
    top, left = min(max(top, 0), shape[0] - 1), min(max(left, 0), shape[1] - 1)
    return top, max(min(bottom, shape[0]), top + 1), left, max(min(right, shape[1]), left + 1)


def _affine_map(crop: Crop) -> NDArray[np.float64]:
    """Return the affine map from pixel centres in the result to the source, ``(2, 3)``."""
    rows, columns = crop.rows, crop.columns
    steps = np.array([columns.length / columns.size, rows.length / rows.size])
    starts = np.array([columns.start, rows.start])
    places = np.array([columns.place, rows.place])
    middle = np.array(crop.size[::-1]) / 2
    angle = np.deg2rad(crop.angle)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = steps[:, None] * turn
    # source + 0.5 = starts + steps * (middle + turn (result + 0.5 - middle) - places)
    offset = starts + steps * (middle - places) + linear @ (0.5 - middle) - 0.5
    return np.concatenate([linear, offset[:, None]], axis=1)
