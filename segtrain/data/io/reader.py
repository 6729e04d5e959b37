"""Images and masks from files: what a dataset's rules make of the pixels that a file holds."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from segtrain.data.io.formats import load_image, load_mask, load_size
from segtrain.data.io.raster import (
    READ_ERRORS,
    NeedsPackageError,
    NotAMaskError,
    TooLargeError,
    orient,
)
from segtrain.data.io.storage import kind_of, open_file, read_bytes
from segtrain.data.labels.mask_facts import NAN
from segtrain.errors import ChannelsError, ConfigError, DataError, one_line

_T = TypeVar("_T")
MAX_PIXELS = 178_956_970  # the limit of Pillow; an image of so many takes half a gigabyte
_STREAM = re.compile(r"<_io\.BytesIO object at 0x[0-9a-f]+>")
_RED, _GREEN, _BLUE = 0.299, 0.587, 0.114  # ITU-R BT.601, as in Pillow


@dataclass(frozen=True)
class Reader:
    """The rules by which files become images and masks.

    Args:
        channels: Of every image. With 3 (red, green, blue) and 1 (grey) any image is converted:
            grey is repeated, colours become grey by ITU-R BT.601, palettes and CMYK become RGB,
            transparency is dropped without blending. For any other number the file must have as
            many.
        value_range: The two pixel values that become 0 and 1, for images of more than 8 bits or of
            floats; the image is float32 then, and NaN, as of pixels without data, becomes 0. None:
            8 bits stay bytes; of 16 bits the high byte stays where `channels` is 1 or 3, and
            otherwise 65535 becomes 1.
        exif: Whether an orientation that a file states is applied, to images and to masks alike.
        max_pixels: Refuse files with more, from their header.

    Raises:
        ConfigError: When a number is out of range.
    """

    channels: int = 3
    value_range: tuple[float, float] | None = None
    exif: Literal["apply", "ignore"] = "apply"
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        for key in ("channels", "max_pixels"):
            if getattr(self, key) < 1:
                raise ConfigError(f"dataset.{key} must be at least 1, got {getattr(self, key)}")
        span = self.value_range
        if span is not None and (len(span) != 2 or not span[0] < span[1]):
            raise ConfigError(
                f"dataset.value_range must be two numbers, the smaller first, got {list(span)}"
            )

    def image(self, path: str | Path) -> NDArray[Any]:
        """An image, upright.

        Shape:
            - output: ``(H, W, channels)``, uint8, or float32 as `value_range` says.

        Raises:
            DataError: When the file is missing, unreadable, truncated, too large, or has pixels
                of another kind.
        """
        return self.decode_image(_content(path, "image"), str(path))

    def mask(self, path: str | Path, *, all_channels: bool = False) -> NDArray[Any]:
        """The values of a mask exactly as the file holds them.

        Palette masks give their indices, 1-bit masks 0 and 1, floats whole numbers, where NaN is
        :data:`~segtrain.data.labels.mask_facts.NAN`. Transparency is left out.

        Args:
            path: The file.
            all_channels: Whether channels are classes, not colours.

        Shape:
            - output: ``(H, W)``, integers; ``(H, W, 3)``, uint8, for masks of colours;
              ``(H, W, C)`` with `all_channels`.

        Raises:
            DataError: When the file is missing, unreadable, truncated, too large, lossy, or holds
                numbers that are not whole.
        """
        return self.decode_mask(_content(path, "mask"), str(path), all_channels=all_channels)

    def decode_image(self, data: bytes, name: str) -> NDArray[Any]:
        """:meth:`image` of the bytes of a file called `name`."""
        raster = _read(name, "image", lambda: load_image(data, self.max_pixels))
        pixels = self._turned(raster.pixels, raster.orientation)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        return self._scaled(self._with_channels(pixels, name, has_alpha=raster.has_alpha), name)

    def decode_mask(self, data: bytes, name: str, *, all_channels: bool = False) -> NDArray[Any]:
        """:meth:`mask` of the bytes of a file called `name`."""
        try:
            raster = _read(name, "mask", lambda: load_mask(data, self.max_pixels))
        except NotAMaskError as error:
            raise DataError(
                f"{name}: {error}, but a mask has one channel of whole numbers, the class ids, or"
                " colours of 8 bits; convert it to a grey (8 or 16 bits) or palette PNG"
            ) from None
        if raster.lossy is not None:
            raise DataError(
                f"{name}: the mask is a {raster.lossy} file, whose compression changes class ids;"
                " write the masks as PNG from their source"
            )
        values = self._turned(raster.pixels, raster.orientation)
        if not all_channels and values.ndim == 3:
            values = _colours(values, name)
        return _whole_numbers(values, name)

    def size(self, path: str | Path) -> tuple[int, int]:
        """Height and width of what :meth:`image` would give, from the header alone.

        An orientation that a PNG file states after its pixels, as few writers do, is not seen.

        Raises:
            DataError: When the file is missing, its header unreadable, or it is too large.
        """

        def decode() -> tuple[int, int, int]:
            with open_file(Path(path)) as stream:
                return load_size(stream, self.max_pixels)

        height, width, orientation = _read(str(path), "image", decode)
        turned = self.exif == "apply" and orientation in (5, 6, 7, 8)
        return (width, height) if turned else (height, width)

    def _turned(self, pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
        return orient(pixels, orientation) if self.exif == "apply" and orientation != 1 else pixels

    def _with_channels(self, pixels: NDArray[Any], name: str, *, has_alpha: bool) -> NDArray[Any]:
        found, wanted = pixels.shape[2], self.channels
        if found == wanted:
            return pixels
        if wanted in (1, 3) and has_alpha:  # which goes without blending
            pixels, found = pixels[..., : found - 1], found - 1
        if found == wanted:
            return pixels
        if (found, wanted) == (1, 3):
            return np.repeat(pixels, 3, axis=2)
        if (found, wanted) == (3, 1):
            grey = pixels.astype(np.float32) @ np.array([_RED, _GREEN, _BLUE], np.float32)
            grey = grey if pixels.dtype.kind == "f" else grey.round()
            return grey.astype(pixels.dtype)[..., None]
        raise ChannelsError(
            f"{name}: the image has {found} channels, but dataset.channels={wanted}; set"
            f" dataset.channels={found}, or convert the image"
        )

    def _scaled(self, pixels: NDArray[Any], name: str) -> NDArray[Any]:
        if self.value_range is not None:
            low, high = self.value_range
            scaled = (pixels.astype(np.float32) - np.float32(low)) / np.float32(high - low)
            clean: NDArray[Any] = np.nan_to_num(scaled, nan=0.0, posinf=1.0, neginf=0.0)
            return clean
        if pixels.dtype == np.uint8:
            return np.ascontiguousarray(pixels)
        if pixels.dtype == np.uint16:
            if self.channels in (1, 3):
                return (pixels >> 8).astype(np.uint8)
            return pixels.astype(np.float32) / np.float32(65535)
        kind = "floating-point values" if pixels.dtype.kind == "f" else f"{pixels.dtype} values"
        least, most = (float(f(pixels)) if pixels.size else 0.0 for f in (np.nanmin, np.nanmax))
        raise DataError(
            f"{name}: the image holds {kind} from {least:g} to {most:g}, and which of them are"
            " black and white is not stated in the file; say it as dataset.value_range=[LOW,HIGH]"
        )


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """An image as RGB bytes, upright: :meth:`Reader.image` by the default rules."""
    return Reader().image(path)


def read_mask(path: str | Path) -> NDArray[Any]:
    """The values of a mask: :meth:`Reader.mask` by the default rules."""
    return Reader().mask(path)


def as_rgb(image: NDArray[Any]) -> NDArray[np.uint8]:
    """An image of any number of channels as one to look at: grey, or its first three.

    Shape:
        - image: ``(H, W, C)``, uint8, or floats from 0 to 1.
        - output: ``(H, W, 3)``, uint8.
    """
    pixels = image if image.dtype == np.uint8 else (image.clip(0, 1) * 255).round().astype(np.uint8)
    return np.ascontiguousarray(pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., [0, 0, 0]])


def _content(path: str | Path, what: str) -> bytes:
    return _read(str(path), what, lambda: read_bytes(Path(path)))


def _read(name: str, what: str, action: Callable[[], _T]) -> _T:
    """What `action` gives; whatever it raises becomes one sentence about the file."""
    try:
        return action()
    except (DataError, NotAMaskError):
        raise
    except FileNotFoundError:
        path = Path(name)
        nowhere = f"; it is {kind_of(path)}" if path.is_symlink() else ""
        raise DataError(f"{name}: the {what} file does not exist{nowhere}") from None
    except (TooLargeError, NeedsPackageError) as error:
        raise DataError(f"{name}: {error}") from None
    except READ_ERRORS as error:
        raise DataError(_unreadable(name, what, error)) from None


def _unreadable(name: str, what: str, error: Exception) -> str:
    reason = _STREAM.sub("the file", one_line(error))
    path = Path(name)
    if path.exists() and not path.is_file():
        return f"{name}: the {what} file cannot be read, for it is {kind_of(path)}; take it away"
    return (
        f"{name}: the {what} file cannot be read ({reason}); it is truncated, empty or not an"
        " image, so replace it or take it out of the dataset"
    )


def _colours(values: NDArray[Any], name: str) -> NDArray[Any]:
    """A mask of several channels as grey or RGB."""
    channels = values.shape[2]
    if channels == 1:
        return values[..., 0]
    if channels in (3, 4) and values.dtype == np.uint8:
        return np.ascontiguousarray(values[..., :3])
    raise DataError(
        f"{name}: the mask has {channels} channels of {values.dtype}, but a mask has one channel of"
        " whole numbers, the class ids, or colours of 8 bits; if each channel answers for a class,"
        " set dataset.multi_label=true"
    )


def _whole_numbers(values: NDArray[Any], name: str) -> NDArray[Any]:
    if values.dtype == np.bool_:
        return values.astype(np.uint8)
    if values.dtype.kind != "f":
        return values
    missing = np.isnan(values)
    found = np.where(missing, 0, values)
    wrong = (found != np.round(found)) | (np.abs(found) >= -NAN)
    if wrong.any():
        raise DataError(
            f"{name}: the mask holds {found[wrong][0]:g} at {int(wrong.sum())} pixels, but class"
            " ids are whole numbers; write the ids, not probabilities or scaled values"
        )
    whole = found.astype(np.int64)
    whole[missing] = NAN
    return whole
