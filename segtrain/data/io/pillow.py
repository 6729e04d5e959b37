"""The formats that Pillow reads, with OpenCV for JPEG files and for colours of 16 bits.

Pillow raises on a truncated file, keeps the indices of palette masks and all 16 bits of grey
images. OpenCV decodes a complete JPEG file faster, to the same pixels. Truncated JPEG files are
left to Pillow, because the result of OpenCV depends on its version.
"""

from __future__ import annotations

import importlib
import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from segtrain.data.io.raster import (
    EXIF_ORIENTATION,
    JPEG_END,
    UPRIGHT,
    NeedsPackageError,
    NotAMaskError,
    Raster,
    check_pixels,
)

# Pillow stretches grey PNGs of 2 and 4 bits to 0..255; dividing restores the values of the file.
_STRETCH = {"L;2": 85, "L;4": 17}
_ALWAYS_LOSSY = ("JPEG", "MPO", "JPEG2000", "AVIF")
_MASK_MODES = ("1", "L", "P", "LA", "PA", "I", "F", "RGB", "RGBA")
_WITH_ALPHA = ("LA", "PA", "RGBA")
_DEEP = 3  # dimensions of an image with channels
_bomb_lock = threading.Lock()


def load_image(data: bytes, max_pixels: int) -> Raster:
    """Decode an image to grey, RGB or RGBA; palettes become RGB.

    Raises:
        TooLargeError: When it has more than `max_pixels` pixels.
    """
    with open_pillow(io.BytesIO(data), max_pixels) as image:
        orientation, lossy = _orientation(image), _lossy(image, data)
        if image.format == "JPEG" and image.mode in ("L", "RGB"):
            pixels = _jpeg_pixels(data, image.mode)
            if pixels is not None:
                return Raster(pixels, orientation, lossy)
        deep = ";16" in _rawmode(image) and len(image.getbands()) > 1
        pixels, has_alpha = pixels_of(image)
    if deep:  # Pillow has just found the file complete, but keeps only 8 of the 16 bits
        pixels = _deep_pixels(data)
    return Raster(pixels, orientation, lossy, has_alpha and pixels.ndim == _DEEP)


def pixels_of(image: Any) -> tuple[NDArray[Any], bool]:
    """Return the pixels of an open image, and whether the last channel is transparency.

    Shape:
        - output: ``(H, W)`` or ``(H, W, C)``: grey, RGB or RGBA; palettes become RGB.
    """
    has_alpha = image.mode in ("LA", "RGBA", "PA", "La", "RGBa") or "transparency" in image.info
    pixels = _image_pixels(image)
    return pixels, has_alpha and pixels.ndim == _DEEP


def load_mask(data: bytes, max_pixels: int, *, expand_palette: bool = False) -> Raster:
    """Decode the values of a mask; for a palette mask these are the indices.

    Args:
        data: The content of the file.
        max_pixels: Limit of the number of pixels.
        expand_palette: Whether the colours of a palette are read instead of its indices.

    Raises:
        NotAMaskError: When the pixel type cannot be that of a mask, with the reason.
        TooLargeError: When it has more than `max_pixels` pixels.
    """
    with open_pillow(io.BytesIO(data), max_pixels) as image:
        lossy = _lossy(image, data)
        orientation = _orientation(image)
        rawmode = _rawmode(image)
        if image.mode in ("RGB", "RGBA") and ";16" in rawmode:
            raise NotAMaskError("it has colours of 16 bits per channel, which no palette covers")
        if image.mode not in _MASK_MODES and not image.mode.startswith("I;16"):
            raise NotAMaskError(f"it has mode {image.mode} ({len(image.getbands())} channels)")
        if expand_palette and image.mode in ("P", "PA"):
            image = image.convert("RGBA")  # noqa: PLW2901  the file is closed all the same
        mode = image.mode
        values = np.array(image)
    values = values.astype(np.uint8) if values.dtype == np.bool_ else values
    if values.dtype.kind == "u":
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
    stretch = _STRETCH.get(rawmode, 1)
    values = values // stretch if stretch > 1 else values
    return Raster(values, orientation, lossy, mode in _WITH_ALPHA)


def load_size(stream: IO[bytes], max_pixels: int) -> tuple[int, int, int]:
    """Read height, width and orientation from the header.

    Raises:
        TooLargeError: When the image has more than `max_pixels` pixels.
    """
    with open_pillow(stream, max_pixels) as image:
        width, height = image.size
        return height, width, _orientation(image)


@contextmanager
def open_pillow(stream: IO[bytes], max_pixels: int) -> Iterator[Any]:
    """Open an image with Pillow; only its header is read.

    Raises:
        TooLargeError: When it has more than `max_pixels` pixels.
    """
    with warnings.catch_warnings():
        # Pillow warns from half of its own limit on; `max_pixels` takes the place of that limit.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = Image.open(stream)
        except Image.DecompressionBombError:
            image = _open_large(stream)
        except UnidentifiedImageError:
            image = _open_heif(stream)
        with image:
            check_pixels(image.size[1], image.size[0], max_pixels)
            yield image


def _open_heif(stream: IO[bytes]) -> Any:
    """Open a HEIC or AVIF file that Pillow does not know, with pillow-heif.

    Raises:
        NeedsPackageError: When it is one, and the package is missing.
    """
    stream.seek(0)
    start = stream.read(12)
    stream.seek(0)
    if start[4:8] != b"ftyp":
        raise UnidentifiedImageError("cannot identify image file")
    kind = "AVIF" if start[8:12].startswith(b"avi") else "HEIC"
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        package = "pillow-heif: pip install pillow-heif"
        raise NeedsPackageError(f"a {kind} file needs the package {package}") from None
    return Image.open(stream)


def _open_large(stream: IO[bytes]) -> Any:
    """Open an image beyond Pillow's own limit, which is a global number."""
    stream.seek(0)
    with _bomb_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(stream)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _orientation(image: Any) -> int:
    # The getexif of PNG files decodes all pixels first, in case the orientation comes last.
    found = Image.Image.getexif(image).get(EXIF_ORIENTATION, UPRIGHT)
    return found if found in range(1, 9) else UPRIGHT


def _rawmode(image: Any) -> str:
    """Return how the pixels are stored; empty once they are decoded."""
    tiles = getattr(image, "tile", None)
    if not tiles:
        return ""
    arguments = tiles[0].args
    return str(arguments if isinstance(arguments, str) else next(iter(arguments or ()), ""))


def _image_pixels(image: Any) -> NDArray[Any]:
    if image.mode == "P":  # the direct conversion of a transparent palette to RGB warns
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    elif image.mode in ("PA", "La", "RGBa"):
        image = image.convert("RGBA" if image.mode != "La" else "LA")
    elif image.mode not in ("1", "L", "LA", "RGB", "RGBA", "F") and image.mode[0] != "I":
        image = image.convert("RGB")  # CMYK, YCbCr, LAB, HSV, RGBX
    pixels = np.array(image)
    if image.mode[0] == "I":
        return np.clip(pixels.astype(np.int64), 0, 65535).astype(np.uint16)
    return pixels.astype(np.uint8) * 255 if pixels.dtype == np.bool_ else pixels


def _jpeg_pixels(data: bytes, mode: str) -> NDArray[Any] | None:
    """Decode a JPEG file with OpenCV; None if its end marker is missing."""
    if not data.endswith(JPEG_END):
        return None
    cv2 = importlib.import_module("cv2")
    kind = cv2.IMREAD_GRAYSCALE if mode == "L" else cv2.IMREAD_COLOR_RGB
    pixels: NDArray[Any] | None = cv2.imdecode(
        np.frombuffer(data, np.uint8), kind | cv2.IMREAD_IGNORE_ORIENTATION
    )
    return pixels


def _deep_pixels(data: bytes) -> NDArray[Any]:
    cv2 = importlib.import_module("cv2")
    pixels: NDArray[Any] = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]  # OpenCV's order is blue, green, red


def _lossy(image: Any, data: bytes) -> str | None:
    if image.format in _ALWAYS_LOSSY:
        return str(image.format)
    if image.format == "TIFF" and "jpeg" in str(image.info.get("compression")):
        return "JPEG-compressed TIFF"
    return "lossy WebP" if image.format == "WEBP" and not _has_chunk(data, b"VP8L") else None


def _has_chunk(data: bytes, name: bytes) -> bool:
    """Whether a RIFF file has the chunk."""
    start = 12
    while start + 8 <= len(data):
        if data[start : start + 4] == name:
            return True
        size = int.from_bytes(data[start + 4 : start + 8], "little")
        start += 8 + size + size % 2
    return False
