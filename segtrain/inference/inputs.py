"""The images that a predictor takes: files, Pillow images, arrays and tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from segtrain.data import ImageValues, Reader
from segtrain.data.io.pillow import pixels_of
from segtrain.errors import ChannelsError, DataError

ImageInput = str | Path | Image.Image | NDArray[Any] | Tensor
"""An image for a predictor."""


def name_of(image: object) -> str | None:
    """The name of an image in messages; None: it has none."""
    return str(image) if isinstance(image, (str, Path)) else None


def read_pixels(image: ImageInput, reader: Reader) -> NDArray[Any]:
    """Return an image as an array ``(H, W, channels)``, uint8, or float32 from 0 to 1.

    Raises:
        DataError: When a file or a Pillow image cannot be read, or has the wrong number of
            channels.
        TypeError: When it is none of these.
        ValueError: When an array or a tensor has the wrong shape, type or range.
    """
    try:
        if isinstance(image, (str, Path)):
            return reader.image(image)
        if isinstance(image, Image.Image):
            pixels, has_alpha = pixels_of(image)
            return reader.convert(pixels, "the image", has_alpha=has_alpha)
    except ChannelsError:
        raise wrong_channels(name_of(image) or "the image", reader.channels) from None
    wanted = f"(H, W, {reader.channels})"
    if isinstance(image, Tensor):
        wanted = f"({reader.channels}, H, W)"
        shape = tuple(image.shape)
        pixels = (
            image.detach().cpu().float().numpy()
            if image.is_floating_point()
            else (image.detach().cpu().numpy())
        )
        pixels = np.ascontiguousarray(np.moveaxis(pixels, 0, -1)) if pixels.ndim == 3 else pixels
    elif isinstance(image, np.ndarray):
        pixels, shape = image, image.shape
    else:
        kind = type(image).__name__
        raise TypeError(f"image must be a path, a Pillow image, an array or a tensor, got {kind}")
    wrong_shape = pixels.ndim != 3 or pixels.shape[2] != reader.channels or 0 in shape
    if wrong_shape or pixels.dtype not in (np.uint8, np.float32):
        raise ValueError(
            f"image must be {wanted}, uint8, or float32 from 0 to 1, got {shape} {pixels.dtype}"
        )
    largest = np.max(pixels) if pixels.dtype == np.float32 else 0
    if largest > 1 and np.array_equal(pixels, np.round(pixels)):  # scans may go beyond 1
        raise ValueError(
            f"image must be float32 from 0 to 1, got whole numbers up to {largest:g}; divide them"
            " by the largest value of a pixel, such as 255"
        )
    return pixels


def read_file(path: Path, reader: Reader) -> tuple[NDArray[Any], ImageValues]:
    """Return the pixels of an image file as :func:`read_pixels`, and the values in the file.

    Raises:
        DataError: When it cannot be read, or has the wrong number of channels.
    """
    try:
        return reader.image_and_values(path)
    except ChannelsError:
        raise wrong_channels(str(path), reader.channels) from None


def wrong_channels(name: str, channels: int) -> DataError:
    """Return the error for an image with another number of channels than the model takes."""
    return DataError(
        f"{name}: this model takes images of {channels} channels, but the file has a different"
        " number; convert it"
    )
