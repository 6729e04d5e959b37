"""Decoded pixels, whatever the file format, and the errors of decoding."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segtrain.errors import ConfigError

READ_ERRORS = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, TypeError, KeyError,
               IndexError, Image.DecompressionBombError)  # fmt: skip
EXIF_ORIENTATION = 0x0112
UPRIGHT = 1
JPEG_END, PNG_END = b"\xff\xd9", b"IEND\xaeB`\x82"  # the last bytes of complete files


class Raster(NamedTuple):
    """Pixels as a file holds them.

    Attributes:
        pixels: ``(H, W)`` or ``(H, W, C)``, of the file's own type.
        orientation: EXIF orientation, 1 to 8; 1 means upright.
        lossy: Name of the format if its compression changes values, else None.
        has_alpha: Whether the last channel is transparency.
    """

    pixels: NDArray[Any]
    orientation: int = UPRIGHT
    lossy: str | None = None
    has_alpha: bool = False


class TooLargeError(Exception):
    """An image has more pixels than are allowed."""


class NotAMaskError(Exception):
    """The pixel type of a file cannot be that of a mask."""


class NeedsPackageError(ConfigError):
    """The format of a file needs an optional package that is not installed."""


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
