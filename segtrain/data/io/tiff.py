"""TIFF files, read by tifffile: any number of channels and any bit depth."""

from __future__ import annotations

import importlib
import io
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from segtrain.data.io.pillow import open_pillow
from segtrain.data.io.raster import (
    EXIF_ORIENTATION,
    READ_ERRORS,
    UPRIGHT,
    NeedsPackageError,
    Raster,
    check_pixels,
)

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ALPHA = (1, 2)  # values of the tag ExtraSamples that mean transparency
_GDAL_NODATA = 42113
_FLAT = 2  # dimensions of a page with one channel
_JPEG = (6, 7, 33003, 33005, 34712, 34892)  # values of the tag Compression
_FOR_PILLOW = (3, 5, 6, 8, 9, 10)  # photometric tags: palettes, CMYK, YCbCr and CIELAB


def is_tiff(data: bytes) -> bool:
    """Whether `data` is the start of a TIFF file."""
    return data.startswith(_MAGIC)


def load(data: bytes, max_pixels: int) -> Raster | None:
    """Decode the first page, or all pages as channels if they are grey and of one size.

    Returns:
        None for files that Pillow must read.

    Raises:
        TooLargeError: When the image has more than `max_pixels` pixels.
        NeedsPackageError: When the compression needs a package that is not installed.
    """
    tifffile = importlib.import_module("tifffile")
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        *_, orientation = _page_size(page, max_pixels)
        lossy = "JPEG-compressed TIFF" if page.compression in _JPEG else None
        if page.photometric in _FOR_PILLOW:
            return None  # Pillow converts these to RGB, and keeps the indices of a palette mask
        try:
            pixels = _pages(file)
        except ValueError as error:
            if "imagecodecs" in str(error):
                _check_pillow_can(data, page, max_pixels)
                return None
            raise
        pixels = pixels.transpose(1, 2, 0) if page.axes.startswith("S") else pixels
        pixels = pixels.astype(np.uint8) if pixels.dtype == np.bool_ else pixels
        # A bilevel file may store black as 1 ("white is zero").
        is_inverted = page.photometric == 0 and pixels.dtype == np.uint8
        pixels = (1 if page.bitspersample == 1 else 255) - pixels if is_inverted else pixels
        return Raster(pixels, orientation, lossy, has_transparency(page), declared_nodata(page))


def load_size(stream: IO[bytes], max_pixels: int) -> tuple[int, int, int]:
    """Read height, width and orientation of the first page from its header.

    Raises:
        TooLargeError: When the image has more than `max_pixels` pixels.
    """
    with importlib.import_module("tifffile").TiffFile(stream) as file:
        return _page_size(file.pages[0], max_pixels)


def _page_size(page: Any, max_pixels: int) -> tuple[int, int, int]:
    height, width = page.imagelength, page.imagewidth
    check_pixels(height, width, max_pixels)
    return height, width, int(page.tags.valueof(EXIF_ORIENTATION, UPRIGHT))


def has_transparency(page: Any) -> bool:
    """Whether the last channel of a page is transparency."""
    extra = page.extrasamples
    return bool(extra) and extra[-1] in _ALPHA


def declared_nodata(page: Any) -> float | None:
    """The value without data, from the tag that GDAL writes."""
    try:
        return float(page.tags.valueof(_GDAL_NODATA, None))
    except (TypeError, ValueError):  # no tag, or no number
        return None


def channel_pages(file: Any) -> list[Any]:
    """Return the first page, or all pages if they are grey and alike, as bands are."""
    first = file.pages[0]
    alike = first.ndim == _FLAT and all(
        (page.shape, page.dtype) == (first.shape, first.dtype) for page in file.pages
    )
    return list(file.pages) if alike else [first]


def _pages(file: Any) -> NDArray[Any]:
    """Return the pixels of the first page, or those of all pages that are channels, stacked."""
    pages = channel_pages(file)
    if len(pages) == 1:
        pixels: NDArray[Any] = pages[0].asarray()
        return pixels
    return np.stack([page.asarray() for page in pages], axis=2)


def _check_pillow_can(data: bytes, page: Any, max_pixels: int) -> None:
    try:
        with open_pillow(io.BytesIO(data), max_pixels) as image:
            image.load()
    except READ_ERRORS:
        raise NeedsPackageError(
            f"a TIFF file with {page.compression.name} compression needs the package imagecodecs:"
            ' pip install "segtrain[tiff]"'
        ) from None
