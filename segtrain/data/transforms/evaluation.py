"""What evaluation does to an image: resize, normalise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from segtrain.data.labels.contract import LabelContract
from segtrain.data.transforms.tensors import RGB, Statistics, channels_first, normalize
from segtrain.data.transforms.training import check_size


class EvalTransform:
    """An image as the model wants it, without augmentation.

    Args:
        mean: Mean of each channel, for images from 0 to 1.
        std: Standard deviation of each channel.
        labels: The contract of the targets; unused pixels keep its `ignore_label`.
        size: Height and width that images are resized to, or None. Targets keep their size:
            predictions are compared with the labels as they were drawn.

    Raises:
        ConfigError: When a value is out of range.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        labels: LabelContract,
        size: tuple[int, int] | None = None,
    ) -> None:
        statistics = Statistics(mean, std, len(mean))
        check_size("size", size)
        self.mean, self.std, self.labels, self.size = statistics.mean, statistics.std, labels, size

    def __call__(
        self, image: NDArray[Any], target: NDArray[Any], seed: int = 0
    ) -> tuple[Tensor, Tensor]:
        """The tensors of one sample; `seed` is there for the sake of :class:`TrainTransform`.

        Shape:
            - image: ``(H, W, C)``, uint8, or float32 from 0 to 1. target: ``(H, W)``, or
              ``(H, W, K)`` for multi-label data, integers.
            - output: ``(C, h, w)``, float32, and ``(H, W)`` or ``(K, H, W)``, the target's type.
        """
        del seed
        if self.size is not None and image.shape[:2] != self.size:
            image = _smoothly_resized(image, self.size)
        return normalize(image, self.mean, self.std), channels_first(target)


def _smoothly_resized(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Bilinear over all pixels that become one, as Pillow does."""
    kind = Image.Resampling.BILINEAR
    if image.dtype == np.uint8 and image.shape[2] == RGB:
        return np.array(Image.fromarray(image).resize(size[::-1], kind))
    planes = [
        np.array(Image.fromarray(np.ascontiguousarray(image[..., index])).resize(size[::-1], kind))
        for index in range(image.shape[2])
    ]
    return np.stack(planes, axis=2)
