"""Images and masks on disk.

Pillow reads both: it raises on a truncated file where OpenCV returns an array with garbage below
the cut, and it keeps the indices of palette masks and all 16 bits of 16-bit ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from segtrain.errors import DataError

_T = TypeVar("_T")

_EXIF_ORIENTATION = 0x0112
_MASK_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")
# Pillow stretches grey PNGs of 2 and 4 bits to 0..255; dividing gives back what the file holds.
_STRETCH = {"L;2": 85, "L;4": 17}
_READ_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """An image as RGB bytes, upright.

    The EXIF orientation is applied. Grey becomes three equal channels, CMYK and palettes become
    RGB, 16-bit images keep their high byte, and transparency is dropped without blending.

    Shape:
        - output: ``(H, W, 3)``, uint8.

    Raises:
        DataError: When the file is missing, unreadable, truncated, or holds floats.
    """

    def decode(image: Image.Image) -> NDArray[np.uint8]:
        return np.array(_to_rgb(ImageOps.exif_transpose(image), path))

    return _read(path, "image", decode)


def read_mask(path: str | Path) -> NDArray[Any]:
    """The values of a mask exactly as the file holds them.

    Palette masks give their indices, 1-bit masks 0 and 1. An EXIF orientation is not applied: a
    mask is drawn for the upright image.

    Shape:
        - output: ``(H, W)``, uint8, uint16 or int32.

    Raises:
        DataError: When the file is missing, unreadable, truncated, or not a single-channel,
            lossless image of integers.
    """

    def decode(image: Image.Image) -> NDArray[Any]:
        _check_mask_mode(image, path)
        tiles = getattr(image, "tile", None)  # how the pixels are stored; gone after decoding
        stretch = _STRETCH.get(str(tiles[0].args), 1) if tiles else 1
        values = np.array(image)
        if values.dtype == np.bool_:
            return values.astype(np.uint8)
        if values.dtype.kind == "u":
            values = values.astype(values.dtype.newbyteorder("="), copy=False)
        return values // stretch if stretch > 1 else values

    return _read(path, "mask", decode)


def image_size(path: str | Path) -> tuple[int, int]:
    """Height and width of the array that :func:`read_image` would give, from the header alone.

    An orientation that a PNG file states after its pixels, as few writers do, is not seen.

    Raises:
        DataError: When the file is missing or its header is unreadable.
    """

    def decode(image: Image.Image) -> tuple[int, int]:
        width, height = image.size
        # The method of PNG files decodes all pixels first, in case the orientation comes last.
        turned = Image.Image.getexif(image).get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
        return (width, height) if turned else (height, width)

    return _read(path, "image", decode)


def write_mask(path: str | Path, ids: NDArray[Any]) -> None:
    """Write class ids as a grey PNG: 8 bits when they fit, 16 bits otherwise.

    Raises:
        ValueError: When an id is negative or above 65535.
    """
    _check_range(ids, 65535)
    dtype = np.uint8 if ids.size == 0 or ids.max() <= 255 else np.uint16
    Image.fromarray(np.ascontiguousarray(ids, dtype=dtype)).save(path, format="PNG")


def write_palette_mask(
    path: str | Path, ids: NDArray[Any], palette: Sequence[Sequence[int]]
) -> None:
    """Write class ids as a palette PNG: viewers show colours, :func:`read_mask` gives the ids.

    Raises:
        ValueError: When an id is negative or above 255.
    """
    _check_range(ids, 255)
    image = Image.fromarray(np.ascontiguousarray(ids, dtype=np.uint8))
    colours = [int(channel) for colour in palette[:256] for channel in colour]
    image.putpalette(colours + [0] * (768 - len(colours)))  # also turns the mode from L to P
    image.save(path, format="PNG")


def _read(path: str | Path, what: str, decode: Callable[[Image.Image], _T]) -> _T:
    try:
        with warnings.catch_warnings():
            # From half of Pillow's limit on it warns; beyond the limit it raises, which suffices.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return decode(image)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: the {what} file does not exist") from None
    except _READ_ERRORS as error:
        raise DataError(
            f"{path}: the {what} file cannot be read ({error}); it is truncated, empty or not an "
            f"image, so replace it or take it out of the dataset"
        ) from None


def _to_rgb(image: Image.Image, path: str | Path) -> Image.Image:
    if image.mode == "F":
        raise DataError(
            f"{path}: the image holds floating-point values, whose range is not stated in the "
            f"file; convert it to 8 or 16 bits"
        )
    if image.mode.startswith("I"):
        values = np.clip(np.array(image).astype(np.int64), 0, 65535) >> 8
        image = Image.fromarray(values.astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the direct way to RGB warns and may repaint pixels
    return image.convert("RGB")


def _check_mask_mode(image: Image.Image, path: str | Path) -> None:
    if image.format in ("JPEG", "MPO", "JPEG2000"):
        raise DataError(
            f"{path}: the mask is a {image.format} file, whose compression changes class ids; "
            f"write the masks as PNG from their source"
        )
    if image.mode not in _MASK_MODES:
        raise DataError(
            f"{path}: the mask has mode {image.mode} ({len(image.getbands())} channels), but a "
            f"mask has one channel of whole numbers, the class ids; convert it to a grey (8 or 16 "
            f"bits) or palette PNG"
        )


def _check_range(ids: NDArray[Any], largest: int) -> None:
    if ids.size and (ids.min() < 0 or ids.max() > largest):
        raise ValueError(
            f"ids must be within 0 to {largest} to be written, got {ids.min()} to {ids.max()}; "
            f"replace a negative ignore label first"
        )
