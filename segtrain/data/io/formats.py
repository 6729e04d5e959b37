"""What the bytes of an image file hold, whatever its format: raw pixels and a few facts.

Pillow reads most formats: it raises on a truncated file, and it keeps the indices of palette masks
and all 16 bits of grey ones. JPEG files that have their last bytes are decoded by OpenCV, which is
faster and gives the same pixels; what it makes of a truncated file differs from version to version,
so those are left to Pillow. TIFF files are read by tifffile, which knows any number of channels and
any depth, and NumPy's and MATLAB's own files by NumPy and SciPy.
"""

from __future__ import annotations

import importlib
import io
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segtrain.errors import ConfigError

READ_ERRORS = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, TypeError, KeyError,
               IndexError, Image.DecompressionBombError)  # fmt: skip

_PNG = b"\x89PNG\r\n\x1a\n"
JPEG_END, PNG_END = b"\xff\xd9", b"IEND\xaeB`\x82"
_EXIF_ORIENTATION = 0x0112
_UPRIGHT = 1
# Pillow stretches grey PNGs of 2 and 4 bits to 0..255; dividing gives back what the file holds.
_STRETCH = {"L;2": 85, "L;4": 17}
_ALWAYS_LOSSY = ("JPEG", "MPO", "JPEG2000", "AVIF")
_DEEP = 3  # dimensions of an image with channels
_ALPHA = (1, 2)  # extra samples that are transparency
_FLAT = 2  # dimensions of a page with one channel
_TIFF_JPEG = (6, 7, 33003, 33005, 34712, 34892)  # compression tags
_FOR_PILLOW = (3, 5, 6, 8, 9, 10)  # photometric tags: palettes, CMYK, YCbCr and CIELAB
_bomb_lock = threading.Lock()


class Raster(NamedTuple):
    """Pixels as a file holds them.

    Attributes:
        pixels: ``(H, W)`` or ``(H, W, C)``, of the file's own type.
        orientation: EXIF's number, 1 for upright.
        lossy: The name of a format whose compression changes values, else None.
        has_alpha: Whether the last channel is transparency.
    """

    pixels: NDArray[Any]
    orientation: int = _UPRIGHT
    lossy: str | None = None
    has_alpha: bool = False


class TooLargeError(Exception):
    """An image has more pixels than are allowed."""


class NotAMaskError(Exception):
    """The kind of pixel is not one of a mask."""


class NeedsPackageError(ConfigError):
    """A file of a format whose reader is an extra that is not installed."""


def load_image(data: bytes, max_pixels: int) -> Raster:
    """The pixels of an image: grey, RGB, RGBA or any number of channels; palettes become RGB."""
    _check_end(data)
    other = _other_format(data, max_pixels)
    if other is not None:
        return other
    with open_pillow(io.BytesIO(data), max_pixels) as image:
        orientation = _orientation(image)
        if image.format == "JPEG" and image.mode in ("L", "RGB"):
            pixels = _jpeg_pixels(data, image.mode)
            if pixels is not None:
                return Raster(pixels, orientation)
        has_alpha = image.mode in ("LA", "RGBA", "PA", "La", "RGBa") or "transparency" in image.info
        deep = ";16" in _rawmode(image) and len(image.getbands()) > 1
        pixels = _image_pixels(image)
    if deep:  # Pillow, which has just found the file whole, keeps 8 of the 16 bits
        pixels = _deep_pixels(data)
    return Raster(pixels, orientation, has_alpha=has_alpha and pixels.ndim == _DEEP)


def load_mask(data: bytes, max_pixels: int) -> Raster:
    """The values of a mask; those of palette masks are indices.

    Raises:
        NotAMaskError: When the file's kind of pixel is not one of a mask, with the reason.
    """
    _check_end(data)
    other = _other_format(data, max_pixels)
    if other is not None:
        return other
    with open_pillow(io.BytesIO(data), max_pixels) as image:
        lossy = _lossy(image, data)
        if lossy is not None:
            return Raster(np.zeros((0, 0), np.uint8), lossy=lossy)
        orientation = _orientation(image)
        rawmode = _rawmode(image)
        if image.mode in ("RGB", "RGBA") and ";16" in rawmode:
            raise NotAMaskError(
                "it has colours of 16 bits per channel, of which there is no palette"
            )
        if image.mode not in ("1", "L", "P", "LA", "PA", "I", "F", "RGB", "RGBA") and (
            not image.mode.startswith("I;16")
        ):
            raise NotAMaskError(f"it has mode {image.mode} ({len(image.getbands())} channels)")
        values = np.array(image)
    values = values.astype(np.uint8) if values.dtype == np.bool_ else values
    if values.dtype.kind == "u":
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
    stretch = _STRETCH.get(rawmode, 1)
    values = values // stretch if stretch > 1 else values
    if image.mode in ("LA", "PA"):  # what is transparent has a class all the same
        values = values[..., 0]
    return Raster(values, orientation)


def _check_end(data: bytes) -> None:
    """Refuse a PNG file without its last chunk: that Pillow has all pixels does not make it whole.

    Raises:
        ValueError: When the chunk is missing.
    """
    if data.startswith(_PNG) and PNG_END not in data:
        raise ValueError("image file is truncated: a PNG file ends with IEND")


def load_size(stream: IO[bytes], max_pixels: int) -> tuple[int, int, int]:
    """Height, width and orientation from the header alone."""
    start = stream.read(16)
    stream.seek(0)
    if _is_tiff(start):
        with importlib.import_module("tifffile").TiffFile(stream) as file:
            return _tiff_size(file.pages[0], max_pixels)
    if start.startswith((_NPY, _MAT)):  # they have no header that is worth a way of its own
        raster = load_image(stream.read(), max_pixels)
        return (*raster.pixels.shape[:2], raster.orientation)
    with open_pillow(stream, max_pixels) as image:
        width, height = image.size
        return height, width, _orientation(image)


def orient(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """`pixels` turned upright, as EXIF's `orientation` says.

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


@contextmanager
def open_pillow(stream: IO[bytes], max_pixels: int) -> Iterator[Any]:
    """Pillow's image, its header read.

    Raises:
        TooLargeError: When it has more than `max_pixels` pixels.
    """
    with warnings.catch_warnings():
        # From half of Pillow's limit on it warns; the limit here is our own.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = Image.open(stream)
        except Image.DecompressionBombError:
            image = _open_large(stream)
        with image:
            _check_pixels(image.size[1], image.size[0], max_pixels)
            yield image


def _open_large(stream: IO[bytes]) -> Any:
    """Open an image beyond Pillow's own limit, which is a global number."""
    stream.seek(0)
    with _bomb_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(stream)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _check_pixels(height: int, width: int, max_pixels: int) -> None:
    if height * width > max_pixels:
        raise TooLargeError(
            f"{height} x {width} are {height * width:,} pixels, more than"
            f" dataset.max_pixels={max_pixels:,}; raise it if the image is meant to be so large"
        )


def _orientation(image: Any) -> int:
    # The method of PNG files decodes all pixels first, in case the orientation comes last.
    found = Image.Image.getexif(image).get(_EXIF_ORIENTATION, _UPRIGHT)
    return found if found in range(1, 9) else _UPRIGHT


def _rawmode(image: Any) -> str:
    """How the pixels are stored; not known once they are decoded."""
    tiles = getattr(image, "tile", None)
    if not tiles:
        return ""
    arguments = tiles[0].args
    return str(arguments if isinstance(arguments, str) else next(iter(arguments or ()), ""))


def _image_pixels(image: Any) -> NDArray[Any]:
    if image.mode == "P":  # the direct way from transparent palettes to RGB warns
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
    """None where the file does not end as a whole one does; within its pixels that end is none."""
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
    return pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]  # OpenCV has blue first


def _lossy(image: Any, data: bytes) -> str | None:
    if image.format in _ALWAYS_LOSSY:
        return str(image.format)
    if image.format == "TIFF" and "jpeg" in str(image.info.get("compression")):
        return "JPEG-compressed TIFF"
    return "lossy WebP" if image.format == "WEBP" and not _has_chunk(data, b"VP8L") else None


def _has_chunk(data: bytes, name: bytes) -> bool:
    """Whether a RIFF file has the chunk."""
    place = 12
    while place + 8 <= len(data):
        if data[place : place + 4] == name:
            return True
        size = int.from_bytes(data[place + 4 : place + 8], "little")
        place += 8 + size + size % 2
    return False


# ---------------------------------------------------------------------- formats of other libraries

_NPY, _MAT = b"\x93NUMPY", b"MATLAB 5.0"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _other_format(data: bytes, max_pixels: int) -> Raster | None:
    if data.startswith(_NPY):
        pixels = np.load(io.BytesIO(data), allow_pickle=False)
    elif data.startswith(_MAT):
        pixels = _from_matlab(data)
    elif _is_tiff(data):
        return _from_tiff(data, max_pixels)
    else:
        return None
    if pixels.ndim not in (2, 3):
        raise ValueError(f"its array has {pixels.ndim} dimensions, not height, width, channels")
    _check_pixels(pixels.shape[0], pixels.shape[1], max_pixels)
    return Raster(pixels)


def _is_tiff(data: bytes) -> bool:
    return data.startswith(_TIFF)


def _from_tiff(data: bytes, max_pixels: int) -> Raster | None:
    """The first page, or all pages as channels where they are alike; None: Pillow must try."""
    tifffile = importlib.import_module("tifffile")
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        *_, orientation = _tiff_size(page, max_pixels)
        lossy = "JPEG-compressed TIFF" if page.compression in _TIFF_JPEG else None
        if page.photometric in _FOR_PILLOW:
            return None  # it knows how they become RGB, and keeps the indices in a mask
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
        extra = page.extrasamples
        return Raster(pixels, orientation, lossy, bool(extra) and extra[-1] in _ALPHA)


def _pages(file: Any) -> NDArray[Any]:
    """The pixels of the first page; of several grey ones of one size, as bands are stored, all."""
    first = file.pages[0]
    alike = first.ndim == _FLAT and all(
        (page.shape, page.dtype) == (first.shape, first.dtype) for page in file.pages
    )
    if not alike or len(file.pages) == 1:
        pixels: NDArray[Any] = first.asarray()
        return pixels
    return np.stack([page.asarray() for page in file.pages], axis=2)


def _tiff_size(page: Any, max_pixels: int) -> tuple[int, int, int]:
    height, width = page.imagelength, page.imagewidth
    _check_pixels(height, width, max_pixels)
    return height, width, int(page.tags.valueof(_EXIF_ORIENTATION, _UPRIGHT))


def _check_pillow_can(data: bytes, page: Any, max_pixels: int) -> None:
    try:
        with open_pillow(io.BytesIO(data), max_pixels) as image:
            image.load()
    except READ_ERRORS:
        raise NeedsPackageError(
            f"a TIFF file with {page.compression.name} compression needs the package imagecodecs:"
            ' pip install "segtrain[tiff]"'
        ) from None


def _from_matlab(data: bytes) -> NDArray[Any]:
    """The label array of a MATLAB file: of SBD, of PASCAL-Context, or the only one there is."""
    try:
        loadmat: Callable[..., dict[str, Any]] = importlib.import_module("scipy.io").loadmat
    except ImportError:
        raise NeedsPackageError(
            'a .mat file needs the package scipy: pip install "segtrain[mat]"'
        ) from None
    content = loadmat(io.BytesIO(data))
    if "GTcls" in content:
        return np.asarray(content["GTcls"]["Segmentation"][0, 0])
    arrays = {
        key: value
        for key, value in content.items()
        if not key.startswith("__") and getattr(value, "ndim", 0) in (2, 3) and value.size > 1
        and value.dtype.kind in "uifb"
    }  # fmt: skip
    for key in ("LabelMap", "S"):
        if key in arrays:
            return np.asarray(arrays[key])
    if len(arrays) != 1:
        raise ValueError(
            f"it holds {', '.join(content) or 'nothing'} and no single array of labels"
        )
    return np.asarray(next(iter(arrays.values())))
