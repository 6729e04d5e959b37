"""Annotated objects, and the mask that they make together."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segtrain.errors import DataError

OnTop = Literal["smaller", "later"]
"""Which of two overlapping objects of different classes covers the other."""


@dataclass(frozen=True)
class AnnotatedObject:
    """One object of an image.

    Exactly one of the last three attributes is set.

    Attributes:
        value: Raw value of its class.
        polygons: Outlines ``[x0, y0, x1, y1, ...]`` in pixels, whose union is the object. The
            centre of the upper left pixel is (0.5, 0.5).
        holes: Outlines of what the object leaves out.
        rle: Run lengths as in COCO: columns from the left, alternating background and object;
            numbers, or the compressed text of COCO.
        pixels: Rows and columns of an array that is not 0 where the object is, and the place of its
            upper left corner: ``(array, y, x)``.
    """

    value: int
    polygons: Sequence[Sequence[float]] = ()
    holes: Sequence[Sequence[float]] = ()
    rle: Sequence[int] | str | bytes | None = None
    pixels: tuple[NDArray[Any], int, int] | None = None

    def mask(self, height: int, width: int) -> NDArray[np.bool_]:
        """Return the pixels of the object, ``(height, width)``.

        Polygons are filled by the tools of COCO, the reference for its format: a pixel belongs to
        the object if its centre does, up to rounding at the outline.

        Raises:
            ValueError: When the run lengths or an outline do not make sense.
        """
        if self.pixels is not None:
            return _placed(*self.pixels, height, width)
        if self.rle is not None:
            return _decoded(self.rle, height, width)
        filled = _filled(self.polygons, height, width)
        return filled & ~_filled(self.holes, height, width) if self.holes else filled


def _filled(outlines: Sequence[Sequence[float]], height: int, width: int) -> NDArray[np.bool_]:
    from pycocotools import mask as coco  # noqa: PLC0415

    for outline in outlines:
        if len(outline) < 6 or len(outline) % 2:
            raise ValueError(f"an outline of {len(outline)} numbers is not a polygon")
        if not np.isfinite(outline).all():
            raise ValueError("an outline holds a number that is not finite")
    if not outlines:
        return np.zeros((height, width), np.bool_)
    # The outline is clipped by the library; far values would overflow its integers.
    far = 4 * max(height, width)
    near = [np.clip(np.asarray(outline, np.float64), -far, far).tolist() for outline in outlines]
    runs = coco.merge(coco.frPyObjects(near, height, width))
    return _decoded(runs["counts"], height, width)


def _decoded(rle: Sequence[int] | str | bytes, height: int, width: int) -> NDArray[np.bool_]:
    if isinstance(rle, str):
        rle = rle.encode()
    counts = _compressed_counts(rle) if isinstance(rle, bytes) else [int(run) for run in rle]
    rest = height * width - sum(counts)
    if rest < 0 or min(counts, default=0) < 0:
        raise ValueError(f"its run lengths do not fit into {height} x {width} pixels")
    # Some tools leave out the background at the end.
    counts = [*counts, 0, rest] if len(counts) % 2 else [*counts, rest]
    is_object = np.arange(len(counts)) % 2 == 1
    is_object[-1] = False
    found: NDArray[np.bool_] = np.repeat(is_object, counts).reshape(width, height).T
    return found


def _compressed_counts(text: bytes) -> list[int]:
    """Return the run lengths in COCO's compressed text.

    The decoder of pycocotools trusts them: a damaged text makes it read and write out of bounds.
    """
    counts: list[int] = []
    value = shift = 0
    for byte in text:
        bits = byte - 48
        if not 0 <= bits < 64:
            raise ValueError("its run lengths are not text of COCO's compression")
        value |= (bits & 0x1F) << (5 * shift)
        shift += 1
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << (5 * shift)
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift or min(counts, default=0) < 0:
        raise ValueError("its run lengths are cut off")
    return counts


def _placed(
    pixels: NDArray[Any], top: int, left: int, height: int, width: int
) -> NDArray[np.bool_]:
    """Return a bitmap at its place; what lies outside of the image is cut off."""
    if (top, left) == (0, 0) and (pixels.shape[0] > height or pixels.shape[1] > width):
        raise ValueError(
            f"its mask of {pixels.shape[0]} x {pixels.shape[1]} pixels is larger than the others or"
            f" its image, of {height} x {width}"
        )
    found = np.zeros((height, width), np.bool_)
    inside = pixels[max(-top, 0) : max(height - top, 0), max(-left, 0) : max(width - left, 0)]
    top, left = max(top, 0), max(left, 0)
    found[top : top + inside.shape[0], left : left + inside.shape[1]] = inside != 0
    return found


def paint(
    objects: Iterable[AnnotatedObject], height: int, width: int, on_top: OnTop, file: str
) -> NDArray[np.uint16]:
    """Return a mask ``(height, width)`` of raw values: those of the objects, 0 elsewhere.

    Args:
        objects: The objects, in the order of the file.
        height: Rows of the image.
        width: Columns of the image.
        on_top: Which object covers another: the one with fewer pixels, or the later one.
        file: Where the objects come from, for messages.

    Raises:
        DataError: When an object cannot be drawn.

    Example:
        >>> square = [1, 1, 4, 1, 4, 4, 1, 4]
        >>> paint([AnnotatedObject(7, polygons=[square])], 4, 5, "later", "a.json")
        array([[0, 0, 0, 0, 0],
               [0, 7, 7, 7, 0],
               [0, 7, 7, 7, 0],
               [0, 7, 7, 7, 0]], dtype=uint16)
    """
    drawn = list(_drawn(objects, height, width, file))
    if on_top == "smaller":
        drawn.sort(
            key=lambda item: -int(item[1].sum())
        )  # stable: the later of equal ones is on top
    found = np.zeros((height, width), np.uint16)
    for value, mask in drawn:
        found[mask] = value
    return found


def paint_channels(
    objects: Iterable[AnnotatedObject], height: int, width: int, values: Sequence[int], file: str
) -> list[NDArray[np.uint8]]:
    """Return a mask of 0 and 1 for each of the raw `values`; objects may overlap.

    Raises:
        DataError: As in :func:`paint`.
    """
    channels = {value: np.zeros((height, width), np.uint8) for value in values}
    for value, mask in _drawn(objects, height, width, file):
        channels[value] |= mask
    return list(channels.values())


def _drawn(
    objects: Iterable[AnnotatedObject], height: int, width: int, file: str
) -> Iterable[tuple[int, NDArray[np.bool_]]]:
    for number, item in enumerate(objects, start=1):
        try:
            yield item.value, item.mask(height, width)
        except (ValueError, TypeError, MemoryError) as error:
            raise DataError(f"{file}: object {number} cannot be drawn: {error}") from None


def fingerprint(objects: Iterable[AnnotatedObject]) -> int:
    """Return a number that changes with the objects."""
    total = 0
    for item in objects:
        if item.pixels is not None:
            total = zlib.crc32(np.ascontiguousarray(item.pixels[0]).tobytes(), total)
        text = repr((item.value, item.polygons, item.holes, item.rle, (item.pixels or (0, 0))[1:]))
        total = zlib.crc32(text.encode(), total)
    return total
