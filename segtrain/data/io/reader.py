"""Read images and masks: the decoded pixels of a file, converted by the rules of a dataset."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from segtrain.data.io.formats import load_image, load_mask, load_size
from segtrain.data.io.image_values import ImageValues
from segtrain.data.io.mask_values import (
    ALPHA,
    chosen_channel,
    explain_lossy,
    one_channel,
    whole_numbers,
)
from segtrain.data.io.missing import MAX_CLASS_ID, missing_pixels
from segtrain.data.io.raster import (
    READ_ERRORS,
    NeedsFieldError,
    NeedsPackageError,
    NotAMaskError,
    NotAnImageError,
    Raster,
    TooLargeError,
    orient,
)
from segtrain.data.io.storage import kind_of, open_header, read_bytes
from segtrain.errors import ChannelsError, ConfigError, DataError, one_line

_T = TypeVar("_T")
MAX_PIXELS = 178_956_970  # Pillow's limit; an RGB image of this size takes half a gigabyte
_STREAM = re.compile(r"<_io\.BytesIO object at 0x[0-9a-f]+>")
_RED, _GREEN, _BLUE = 0.299, 0.587, 0.114  # ITU-R BT.601, as in Pillow


@dataclass(frozen=True)
class Reader:
    """The rules for reading images and masks.

    Args:
        channels: Number of channels of each image. For 3 (red, green, blue) and 1 (grey), images
            are converted: grey is repeated, colours become grey by ITU-R BT.601, palettes and CMYK
            become RGB, transparency is dropped without blending. For any other number the file must
            have this number of channels.
        value_range: The two pixel values that become 0 and 1, for images with more than 8 bits or
            with floats. The image is then float32. With None, 8 bits stay uint8; from 16 bits the
            high byte is kept if `channels` is 1 or 3, and otherwise 65535 becomes 1.
        clip: Whether values outside `value_range` become its ends, as for a window of Hounsfield
            units. Otherwise they become numbers below 0 or above 1, and values far outside are an
            error.
        nodata: The value of pixels without data, besides NaN. In images they are left out of mean
            and deviation, and they are 0 after normalisation. In masks they are ignored, unless the
            value may be a class id (0 to 65535). None: the value that a GeoTIFF declares (GDAL's
            tag).
        ignore_nodata: Whether pixels without data in an image are ignored in its target.
        exif: Whether the EXIF orientation of a file is applied, to images and masks alike:
            ``apply`` or ``ignore``. None: it is applied, but a dataset is refused if an image has
            an orientation, its mask has none, and the sizes do not show which one is right.
        max_pixels: Files with more pixels are refused, before they are decoded.
        mask_channel: The channel of a mask file that holds the values of the mask, from 0, or
            ``alpha``, the channel of transparency. None: masks have one channel, or are colours.
        image_field: The array of an image file with several: a name in a ``.npz`` file, or names of
            structs and fields in a ``.mat`` file, such as ``data.image``. None: the only array.
        mask_field: The same for mask files, such as ``groundTruth.Segmentation``.

    Attributes:
        soft_masks: Whether masks hold grey values that a label map reads by ranges. Then a lossy
            file can be a mask, and three equal channels are one grey channel.

    Raises:
        ConfigError: When a number is out of range.
    """

    channels: int = 3
    value_range: tuple[float, float] | None = None
    exif: Literal["apply", "ignore"] | None = None
    max_pixels: int = MAX_PIXELS
    mask_channel: int | Literal["alpha"] | None = None
    image_field: str | None = None
    mask_field: str | None = None
    nodata: float | None = None
    ignore_nodata: bool = False
    clip: bool = False
    soft_masks: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        for key in ("channels", "max_pixels"):
            if getattr(self, key) < 1:
                raise ConfigError(f"dataset.{key} must be at least 1, got {getattr(self, key)}")
        span = self.value_range
        if span is not None and (len(span) != 2 or not span[0] < span[1]):
            raise ConfigError(
                f"dataset.value_range must be two numbers, the smaller first, got {list(span)}"
            )
        if self.clip and span is None:
            raise ConfigError(
                "dataset.clip=true needs dataset.value_range, the two values to clip at; set it"
            )
        channel = self.mask_channel
        if channel not in (None, ALPHA) and not (isinstance(channel, int) and channel >= 0):
            raise ConfigError(
                f"dataset.mask_channel must be a number from 0, or {ALPHA}, got {channel!r}"
            )

    def keys(self) -> dict[str, Any]:
        """Return the rules as keys of a config."""
        return {item.name: getattr(self, item.name) for item in fields(Reader) if item.init}

    @property
    def rules(self) -> str:
        """The rules that decide the values of a mask, as one text."""
        more = [
            f"{key}={value}"
            for key in ("mask_channel", "mask_field", "nodata", "soft_masks")
            if (value := getattr(self, key)) is not None and value is not False
        ]
        return " ".join([f"exif={'apply' if self.turns else 'ignore'}", *more])

    @property
    def turns(self) -> bool:
        """Whether the EXIF orientation is applied."""
        return self.exif != "ignore"

    def with_soft_masks(self, soft: bool = True) -> Reader:
        """Return a reader with other `soft_masks`."""
        same = copy.copy(self)
        object.__setattr__(same, "soft_masks", soft)
        return same

    def image(self, path: str | Path) -> NDArray[Any]:
        """Read an image.

        Shape:
            - output: ``(H, W, channels)``, uint8, or float32 as described for `value_range`. An
              image in which pixels have no data is float32, with NaN in all channels there.

        Raises:
            DataError: When the file is missing, unreadable, truncated or too large, or its pixels
                cannot be converted.
        """
        return self.decode_image(_content(path, "image"), str(path))

    def mask(self, path: str | Path, *, all_channels: bool = False) -> NDArray[Any]:
        """Read the values of a mask exactly as the file holds them.

        A palette mask gives its indices, a 1-bit mask 0 and 1. Floats must be whole numbers or NaN,
        which becomes :data:`~segtrain.data.labels.mask_facts.NAN`. Transparency is dropped.

        Args:
            path: The file.
            all_channels: Whether the channels are classes, not colours.

        Shape:
            - output: ``(H, W)``, integers; ``(H, W, 3)``, uint8, for colour masks; ``(H, W, C)``
              with `all_channels`.

        Raises:
            DataError: When the file is missing, unreadable, truncated or too large, has a lossy
                format, or holds numbers that are not whole.
        """
        return self.decode_mask(_content(path, "mask"), str(path), all_channels=all_channels)

    def valid(self, path: str | Path) -> NDArray[np.bool_]:
        """Read which pixels of an image count, from a file that is 0 at all others.

        A file with several channels is 0 where all of them are. A palette becomes RGB, so black is
        0. Transparency is not used, and NaN is 0.

        Shape:
            - output: ``(H, W)``.

        Raises:
            DataError: When the file is missing, unreadable, truncated or too large, or has a lossy
                format.
        """
        return self.decode_valid(_content(path, "valid"), str(path))

    def decode_image(self, data: bytes, name: str) -> NDArray[Any]:
        """Decode an image as :meth:`image` does, from the content of a file called `name`."""
        return self._upright(self._load(data, name), name)

    def values(self, path: str | Path) -> ImageValues:
        """Read the type and the range of the values in an image file.

        Raises:
            DataError: When the file cannot be read.
        """
        return self._values(self._load(_content(path, "image"), str(path)))

    def image_and_values(self, path: str | Path) -> tuple[NDArray[Any], ImageValues]:
        """Read an image as :meth:`image` does, and the values in its file; it is decoded once.

        Raises:
            DataError: As :meth:`image`.
        """
        raster = self._load(_content(path, "image"), str(path))
        return self._upright(raster, str(path)), self._values(raster)

    def convert(
        self,
        pixels: NDArray[Any],
        name: str,
        *,
        nodata: float | None = None,
        has_alpha: bool = False,
    ) -> NDArray[Any]:
        """Convert decoded pixels, of a whole image or a part of one, as :meth:`image` does.

        Args:
            pixels: The values as a file holds them.
            name: The name of the file, for messages.
            nodata: The value without data that the file declares; `self.nodata` wins.
            has_alpha: Whether the last channel is transparency.

        Shape:
            - pixels: ``(H, W)`` or ``(H, W, C)``, of any type of number.
            - output: As for :meth:`image`.

        Raises:
            DataError: When the pixels cannot be converted.
        """
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        missing = self.missing(pixels, nodata)
        if missing is None:
            return self._scaled(self._with_channels(pixels, name, has_alpha=has_alpha), name)
        known = np.where(missing[..., None], pixels[~missing].min(initial=0), pixels)
        known = known.astype(pixels.dtype)
        scaled = self._scaled(self._with_channels(known, name, has_alpha=has_alpha), name)
        scaled = scaled / np.float32(255) if scaled.dtype == np.uint8 else scaled
        scaled[missing] = np.nan
        return scaled

    def missing(self, pixels: NDArray[Any], declared: float | None) -> NDArray[np.bool_] | None:
        """Return the pixels without data of ``(H, W, C)``, as a file holds it; None: all have.

        Args:
            pixels: The values as a file holds them.
            declared: The value without data that the file declares; `self.nodata` wins.
        """
        nodata = declared if self.nodata is None else self.nodata
        return missing_pixels(pixels, nodata, self.value_range)

    def _upright(self, raster: Raster, name: str) -> NDArray[Any]:
        pixels = self._turned(raster.pixels, raster.orientation)
        return self.convert(pixels, name, nodata=raster.nodata, has_alpha=raster.has_alpha)

    def _values(self, raster: Raster) -> ImageValues:
        missing = self.missing(raster.pixels, raster.nodata)
        known = raster.pixels if missing is None else raster.pixels[~missing]
        low, high = (known.min(), known.max()) if known.size else (0.0, 0.0)
        return ImageValues(str(raster.pixels.dtype), float(low), float(high))

    def _load(self, data: bytes, name: str) -> Raster:
        """Return an image ``(H, W, C)`` as its file holds it."""
        load = partial(load_image, data, self.max_pixels, self.image_field)
        raster = _read(name, "image", load)
        if raster.pixels.ndim == 2:
            raster = raster._replace(pixels=raster.pixels[..., None])
        return raster

    def decode_mask(self, data: bytes, name: str, *, all_channels: bool = False) -> NDArray[Any]:
        """Decode a mask as :meth:`mask` does, from the content of a file called `name`."""
        expand = self.mask_channel is not None
        load = partial(load_mask, data, self.max_pixels, self.mask_field, expand_palette=expand)
        try:
            raster = _read(name, "mask", load)
        except NotAMaskError as error:
            raise DataError(
                f"{name}: {error}, but a mask has one channel of whole numbers, the class ids, or"
                " colours of 8 bits; convert it to a grey (8 or 16 bits) or palette PNG"
            ) from None
        values = self._turned(raster.pixels, raster.orientation)
        if self.mask_channel is not None:
            values = chosen_channel(values, self.mask_channel, name, has_alpha=raster.has_alpha)
        elif not all_channels:
            values = one_channel(values, name, has_alpha=raster.has_alpha, grey=self.soft_masks)
        elif raster.has_alpha and values.shape[2] == 2:
            values = values[..., 0]
        if raster.lossy is not None and not self.soft_masks:
            raise DataError(explain_lossy(values, raster.lossy, name))
        nodata = raster.nodata if self.nodata is None else self.nodata
        if nodata is not None and 0 <= nodata <= MAX_CLASS_ID:
            nodata = None  # black images have no data, while 0 in masks is often the background
        return whole_numbers(values, name, nodata)

    def decode_valid(self, data: bytes, name: str) -> NDArray[np.bool_]:
        """Decode which pixels count as :meth:`valid` does, from the content of a file."""
        raster = _read(name, "valid", partial(load_image, data, self.max_pixels))
        if raster.lossy is not None:
            raise DataError(
                f"{name}: the valid file is a {raster.lossy} file, whose compression changes zeros;"
                " write it as PNG from its source"
            )
        pixels = self._turned(raster.pixels, raster.orientation)
        pixels = pixels[..., :-1] if raster.has_alpha else pixels
        counts = np.nan_to_num(pixels) != 0 if pixels.dtype.kind == "f" else pixels != 0
        found: NDArray[np.bool_] = counts.any(axis=2) if counts.ndim == 3 else counts
        return found

    def size(self, path: str | Path) -> tuple[int, int]:
        """Read height and width of an image; see :meth:`header`."""
        height, width, _ = self.header(path)
        return height, width

    def header(self, path: str | Path) -> tuple[int, int, int]:
        """Read height and width of an image, with the orientation applied, and the orientation.

        The orientation of a PNG file is missed if it comes after the pixels, which is rare.

        Returns:
            Height, width, and the EXIF orientation from 1 to 8; 1 means upright.

        Raises:
            DataError: When the file is missing or too large, or its header is unreadable.
        """

        def decode() -> tuple[int, int, int]:
            with open_header(Path(path)) as stream:
                return load_size(stream, self.max_pixels, self.image_field)

        height, width, orientation = _read(str(path), "image", decode)
        turned = self.turns and orientation in (5, 6, 7, 8)
        return (width, height, orientation) if turned else (height, width, orientation)

    def _turned(self, pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
        return orient(pixels, orientation) if self.turns and orientation != 1 else pixels

    def _with_channels(self, pixels: NDArray[Any], name: str, *, has_alpha: bool) -> NDArray[Any]:
        found, wanted = pixels.shape[2], self.channels
        if found == wanted:
            return pixels
        if wanted in (1, 3) and has_alpha:  # dropped without blending
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
            clean: NDArray[Any] = np.nan_to_num(scaled, nan=np.nan, posinf=1.0, neginf=0.0)
            return clean.clip(0, 1) if self.clip else clean
        if pixels.dtype == np.uint8:
            return np.ascontiguousarray(pixels)
        if pixels.dtype == np.uint16:
            if self.channels in (1, 3):
                return (pixels >> 8).astype(np.uint8)
            return pixels.astype(np.float32) / np.float32(65535)
        kind = "floating-point values" if pixels.dtype.kind == "f" else f"{pixels.dtype} values"
        least, most = (float(f(pixels)) if pixels.size else 0.0 for f in (np.nanmin, np.nanmax))
        raise DataError(
            f"{name}: the image holds {kind} from {least:g} to {most:g}, and the file does not"
            " state which of them are black and white; set dataset.value_range=[LOW,HIGH]"
            + (", here dataset.value_range=[0,1]" if least >= 0 and 0.5 < most <= 1 else "")
        )


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Read an image as RGB, uint8 ``(H, W, 3)``, with the default rules of :class:`Reader`."""
    return Reader().image(path)


def read_mask(path: str | Path) -> NDArray[Any]:
    """Read the values of a mask with the default rules of :class:`Reader`."""
    return Reader().mask(path)


def as_rgb(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert an image with any number of channels to RGB for display.

    One or two channels give a grey image of the first; of more, the first three are used.

    Shape:
        - image: ``(H, W, C)``, uint8, or floats in [0, 1].
        - output: ``(H, W, 3)``, uint8.
    """
    pixels = image
    if image.dtype != np.uint8:  # pixels without data are black
        pixels = (np.nan_to_num(image).clip(0, 1) * 255).round().astype(np.uint8)
    return np.ascontiguousarray(pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., [0, 0, 0]])


def _content(path: str | Path, what: str) -> bytes:
    return _read(str(path), what, lambda: read_bytes(Path(path)))


def _read(name: str, what: str, action: Callable[[], _T]) -> _T:
    """Return the result of `action`; its errors become a message about the file."""
    try:
        return action()
    except (DataError, NotAMaskError):
        raise
    except FileNotFoundError:
        path = Path(name)
        link = f"; it is {kind_of(path)}" if path.is_symlink() else ""
        raise DataError(f"{name}: the {what} file does not exist{link}") from None
    except NeedsFieldError as error:
        likely = error.likely_image if what == "image" else error.likely
        key = "image_field" if what == "image" else "mask_field"
        raise DataError(f"{name}: {error}; name one, as in dataset.{key}={likely}") from None
    except (TooLargeError, NotAnImageError, NeedsPackageError) as error:
        raise DataError(f"{name}: {error}") from None
    except READ_ERRORS as error:
        raise DataError(_unreadable(name, what, error)) from None


def _unreadable(name: str, what: str, error: Exception) -> str:
    reason = _STREAM.sub("the file", one_line(error))
    path = Path(name)
    if path.exists() and not path.is_file():
        return f"{name}: the {what} file cannot be read: it is {kind_of(path)}; remove it"
    return (
        f"{name}: the {what} file cannot be read ({reason}); it is truncated, empty or not an"
        " image, so replace it or remove it from the dataset"
    )
