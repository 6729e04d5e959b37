"""From image arrays to normalised tensors."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segtrain.data.transforms.colour import _MOST_CHANNELS
from segtrain.errors import ConfigError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
RGB = 3


class Statistics:
    """Mean and standard deviation of each channel, for pixels from 0 to 1.

    Args:
        mean: One number per channel; None: ImageNet's, for three channels.
        std: Likewise.
        channels: Of the images.

    Raises:
        ConfigError: When there are as many numbers as channels not, or a deviation is not positive.
    """

    def __init__(
        self, mean: Sequence[float] | None, std: Sequence[float] | None, channels: int = RGB
    ) -> None:
        for name, values in (("mean", mean), ("std", std)):
            if values is None and channels != RGB:
                raise ConfigError(
                    f"augmentation.{name} is not set, and only for three channels there is a"
                    f" default; give {channels} numbers, which `segtrain inspect` prints"
                )
            if values is not None and len(values) != channels:
                raise ConfigError(
                    f"augmentation.{name} must have one number per channel ({channels}), got"
                    f" {list(values)}"
                )
        self.mean = tuple(float(value) for value in (IMAGENET_MEAN if mean is None else mean))
        self.std = tuple(float(value) for value in (IMAGENET_STD if std is None else std))
        for name, values in (("mean", self.mean), ("std", self.std)):
            if max(values) > 1:
                raise ConfigError(
                    f"augmentation.{name} is for pixels from 0 to 1, got {list(values)}; divide it"
                    " by the largest value that a pixel may have, such as 255"
                )
        if min(self.std) <= 0:
            raise ConfigError(f"augmentation.std must be positive, got {list(self.std)}")


def channels_first(mask: NDArray[Any]) -> Tensor:
    """A mask with a channel per class as a tensor with the channels first."""
    mask = mask.transpose(2, 0, 1) if mask.ndim == 3 else mask
    return torch.from_numpy(np.array(mask, order="C"))


def normalize(image: NDArray[Any], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """An image as a tensor of zero mean and unit deviation.

    Args:
        image: The pixels.
        mean: Of each channel, for values from 0 to 1.
        std: Likewise.

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
    for first in range(0, channels, _MOST_CHANNELS):
        # Split, then one pass per channel: three times as fast as converting, subtracting and
        # dividing in turn.
        parts = cv2.split(image[..., first : first + _MOST_CHANNELS])
        for index, part in enumerate(parts, start=first):
            factor = 1 / (white * std[index])
            offset = -mean[index] / std[index]
            cv2.addWeighted(part, factor, part, 0, offset, planes[index], cv2.CV_32F)
    return torch.from_numpy(planes)
