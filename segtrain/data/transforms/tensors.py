"""From image arrays to normalised tensors."""

from __future__ import annotations

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
        >>> Normalization(mean=[0.5], std=[0.25], channels=1).std
        (0.25,)
    """

    def __init__(
        self, mean: Sequence[float] | None, std: Sequence[float] | None, channels: int = RGB
    ) -> None:
        self.mean = _per_channel("mean", mean, IMAGENET_MEAN, channels)
        self.std = _per_channel("std", std, IMAGENET_STD, channels)
        MEAN_RANGE.check("augmentation.mean", self.mean)
        STD_RANGE.check("augmentation.std", self.std)


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


def normalize(image: NDArray[Any], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Subtract the mean of each channel, divide by its standard deviation, and make a tensor of it.

    Args:
        image: The pixels.
        mean: Mean of each channel, for pixels from 0 to 1.
        std: Standard deviation of each channel.

    Shape:
        - image: ``(H, W, C)``, uint8, or float32 from 0 to 1.
        - output: ``(C, H, W)``, float32.

    Example:
        >>> normalize(np.full((1, 1, 3), 255, np.uint8), (0.5,) * 3, (0.5,) * 3).flatten()
        tensor([1., 1., 1.])
    """
    cv2 = importlib.import_module("cv2")
    height, width, channels = image.shape
    white = 255.0 if image.dtype == np.uint8 else 1.0
    planes = np.empty((channels, height, width), dtype=np.float32)
    for first in range(0, channels, MAX_CHANNELS):
        # Split, then one pass per channel: three times as fast as converting, subtracting and
        # dividing in turn.
        parts = cv2.split(image[..., first : first + MAX_CHANNELS])
        for index, part in enumerate(parts, start=first):
            factor = 1 / (white * std[index])
            offset = -mean[index] / std[index]
            cv2.addWeighted(part, factor, part, 0, offset, planes[index], cv2.CV_32F)
    return torch.from_numpy(planes)
