"""From image arrays to tensors, and their normalization."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segtrain.data.transforms.crop import MAX_CHANNELS
from segtrain.errors import ConfigError
from segtrain.schema.sections import MEAN_RANGE, STD_RANGE

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
RGB = 3


class Normalization:
    """The mean and standard deviation of each channel that images are normalised with.

    Args:
        mean: One number per channel, for pixels from 0 to 1. None: ImageNet's, for RGB images.
        std: Likewise.
        channels: Number of channels of the images.

    Raises:
        ConfigError: When the numbers do not match the channels, or one is out of range.

    Example:
        >>> normalization = Normalization(mean=[0.5], std=[0.25], channels=1)
        >>> normalization(torch.tensor([[[[0, 255]]]], dtype=torch.uint8))
        tensor([[[[-2.,  2.]]]])
    """

    def __init__(
        self, mean: Sequence[float] | None, std: Sequence[float] | None, channels: int = RGB
    ) -> None:
        self.mean = _per_channel("mean", mean, IMAGENET_MEAN, channels)
        self.std = _per_channel("std", std, IMAGENET_STD, channels)
        MEAN_RANGE.check("augmentation.mean", self.mean)
        STD_RANGE.check("augmentation.std", self.std)

    def __call__(self, images: Tensor) -> Tensor:
        """Subtract the mean of each channel and divide by its deviation, on the images' device.

        Shape:
            - images: ``(..., C, H, W)``, uint8, or float from 0 to 1.
            - output: the same shape, float32.
        """
        white = 255.0 if images.dtype == torch.uint8 else 1.0
        factor, offset = _factor_and_offset(self.mean, self.std, white, images.device)
        # One conversion, then in place: ten times as fast as multiplying bytes.
        return images.to(torch.float32, copy=True).mul_(factor).add_(offset)


@functools.lru_cache(maxsize=16)
def _factor_and_offset(
    mean: tuple[float, ...], std: tuple[float, ...], white: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """What to multiply pixels by and to add, ``(C, 1, 1)`` each; kept, as copying them waits."""
    numbers = np.array([(1 / (white * s), -m / s) for m, s in zip(mean, std, strict=True)])
    both = torch.from_numpy(numbers.astype(np.float32)).to(device)
    return both[:, 0, None, None], both[:, 1, None, None]


def _per_channel(
    name: str, values: Sequence[float] | None, default: Sequence[float], channels: int
) -> tuple[float, ...]:
    if values is None and channels != RGB:
        raise ConfigError(
            f"augmentation.{name} is not set, and it has a default for three channels only; set it"
            f" to {channels} numbers, which `segtrain inspect` prints"
        )
    values = default if values is None else values
    if len(values) != channels:
        raise ConfigError(
            f"augmentation.{name} must have one number per channel ({channels}), got {list(values)}"
        )
    return tuple(float(value) for value in values)


def channels_first(mask: NDArray[Any]) -> Tensor:
    """Return a mask as a tensor; one with a channel per class gets its channels first.

    Shape:
        - mask: ``(H, W)``, or ``(H, W, K)`` for multi-label data.
        - output: ``(H, W)`` or ``(K, H, W)``, a copy.
    """
    mask = mask.transpose(2, 0, 1) if mask.ndim == 3 else mask
    return torch.from_numpy(np.array(mask, order="C"))


def unit_range(images: Tensor) -> Tensor:
    """Return pixels as float32 from 0 to 1.

    Example:
        >>> unit_range(torch.tensor([0, 255], dtype=torch.uint8))
        tensor([0., 1.])
    """
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def planes(image: NDArray[Any]) -> Tensor:
    """Return an image as a tensor with its channels first.

    Shape:
        - image: ``(H, W, C)``, uint8, or float32 from 0 to 1.
        - output: ``(C, H, W)``, a copy of the same type.

    Example:
        >>> planes(np.zeros((2, 4, 3), np.uint8)).shape
        torch.Size([3, 2, 4])
    """
    cv2 = importlib.import_module("cv2")
    height, width, channels = image.shape
    kept = image.dtype if image.dtype == np.uint8 else np.float32
    found = np.empty((channels, height, width), kept)
    for first in range(0, channels, MAX_CHANNELS):
        # Several times as fast as copying a transposed array.
        parts = cv2.split(image[..., first : first + MAX_CHANNELS])
        for index, part in enumerate(parts, start=first):
            found[index] = part
    return torch.from_numpy(found)
