"""Decode image and mask files: the first bytes decide which library reads the file."""

from __future__ import annotations

from typing import IO

from segtrain.data.io import arrays, dicom, pillow, tiff
from segtrain.data.io.raster import PNG_END, UPRIGHT, Raster

_PNG = b"\x89PNG\r\n\x1a\n"


def load_image(data: bytes, max_pixels: int, field: str | None = None) -> Raster:
    """Decode an image to grey, RGB, RGBA or any number of channels; palettes become RGB.

    Args:
        data: The content of the file.
        max_pixels: Limit of the number of pixels.
        field: The array of a file with several arrays; None: the only one.

    Raises:
        TooLargeError: When it has more than `max_pixels` pixels.
        NotAnImageError: When the file does not hold one image.
        NeedsPackageError: When its format needs an optional package.
        NeedsFieldError: When `field` does not name one of several arrays.
        Exception: One of :data:`~segtrain.data.io.raster.READ_ERRORS` when it cannot be decoded.
    """
    _check_end(data)
    if dicom.is_dicom(data):
        return dicom.load_image(data, max_pixels)
    raster = _load_other(data, max_pixels, field)
    return pillow.load_image(data, max_pixels) if raster is None else raster


def load_mask(
    data: bytes, max_pixels: int, field: str | None = None, *, expand_palette: bool = False
) -> Raster:
    """Decode the values of a mask; for a palette mask these are the indices.

    Args:
        data: The content of the file.
        max_pixels: Limit of the number of pixels.
        field: The array of a file with several arrays; None: the only one.
        expand_palette: Whether the colours of a palette are read instead of its indices.

    Raises:
        NotAMaskError: When the pixel type cannot be that of a mask, with the reason.
        Exception: As :func:`load_image`.
    """
    _check_end(data)
    if dicom.is_dicom(data):
        return dicom.load_mask(data, max_pixels)
    raster = _load_other(data, max_pixels, field)
    if raster is not None:
        return raster
    return pillow.load_mask(data, max_pixels, expand_palette=expand_palette)


def load_size(stream: IO[bytes], max_pixels: int, field: str | None = None) -> tuple[int, int, int]:
    """Read height, width and orientation from the header.

    Raises:
        Exception: As :func:`load_image`.
    """
    start = stream.read(dicom.START)
    stream.seek(0)
    if dicom.is_dicom(start):
        return *dicom.load_size(stream, max_pixels), UPRIGHT
    if tiff.is_tiff(start):
        return tiff.load_size(stream, max_pixels)
    if arrays.is_array(start):
        return *arrays.load_size(stream, max_pixels, field), UPRIGHT
    return pillow.load_size(stream, max_pixels)


def _load_other(data: bytes, max_pixels: int, field: str | None) -> Raster | None:
    """Decode a file of another library than Pillow; None if Pillow must read it."""
    if arrays.is_array(data):
        return arrays.load(data, max_pixels, field)
    return tiff.load(data, max_pixels) if tiff.is_tiff(data) else None


def _check_end(data: bytes) -> None:
    """Refuse a PNG file without its last chunk, which Pillow accepts if all pixels are there.

    Raises:
        ValueError: When the chunk is missing.
    """
    if data.startswith(_PNG) and PNG_END not in data:
        raise ValueError("image file is truncated: a PNG file ends with IEND")
