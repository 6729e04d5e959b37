"""Decoded pixels, whatever the file format, and the errors of decoding."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segtrain.errors import ConfigError

READ_ERRORS = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, TypeError, KeyError,
               IndexError, Image.DecompressionBombError)  # fmt: skip
EXIF_ORIENTATION = 0x0112
UPRIGHT = 1
_LABELS = re.compile(r"seg|label|mask|gt|truth|target|class", re.IGNORECASE)
_IMAGE = re.compile(r"im|photo|data|rgb", re.IGNORECASE)
JPEG_END, PNG_END = b"\xff\xd9", b"IEND\xaeB`\x82"  # the last bytes of complete files


class Raster(NamedTuple):
    """Pixels as a file holds them.

    Attributes:
        pixels: ``(H, W)`` or ``(H, W, C)``, of the file's own type.
        orientation: EXIF orientation, 1 to 8; 1 means upright.
        lossy: Name of the format if its compression changes values, else None.
        has_alpha: Whether the last channel is transparency.
        nodata: The value of pixels without data, as the file declares it; None: it does not.
    """

    pixels: NDArray[Any]
    orientation: int = UPRIGHT
    lossy: str | None = None
    has_alpha: bool = False
    nodata: float | None = None


class TooLargeError(Exception):
    """An image has more pixels than are allowed."""


class NotAMaskError(Exception):
    """The pixel type of a file cannot be that of a mask."""


class NotAnImageError(Exception):
    """A file is whole, but what it holds is not one image."""


class NeedsFieldError(Exception):
    """A file holds several arrays, and which of them is meant is not known.

    Args:
        arrays: The arrays by name.
        field: The name that was given; None: none.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], field: str | None = None) -> None:
        held = ", ".join(
            f"{name} ({array.shape[0]} x {array.shape[1]}, {array.dtype})"
            for name, array in arrays.items()
        )
        lacks = "" if field is None else f"has no array {field!r}: it "
        super().__init__(f"the file {lacks}holds {held or 'no array of height and width'}")
        self.likely = _likely(arrays, _LABELS)
        self.likely_image = _likely(arrays, _IMAGE)


class NeedsPackageError(ConfigError):
    """The format of a file needs an optional package that is not installed."""


def _likely(names: Iterable[str], words: re.Pattern[str]) -> str:
    """Return the first name whose last part has one of some words, else the first name."""
    known = list(names)
    return next(
        (name for name in known if words.search(name.rpartition(".")[2])), (known or [""])[0]
    )


def check_pixels(height: int, width: int, max_pixels: int) -> None:
    """Check the size of an image against the limit.

    Raises:
        TooLargeError: When it has more than `max_pixels` pixels.
    """
    if height * width > max_pixels:
        raise TooLargeError(
            f"{height} x {width} are {height * width:,} pixels, more than"
            f" dataset.max_pixels={max_pixels:,}; raise it if the image is meant to be so large"
        )


def orient(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn `pixels` upright, following the EXIF `orientation`.

    Example:
        >>> orient(np.array([[1, 2, 3]]), 6).tolist()
        [[1], [2], [3]]
    """
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
