"""From an evaluation sample to tensors: resizing, without augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from segtrain.data.io.missing import fill_missing
from segtrain.data.labels.contract import LabelContract
from segtrain.data.transforms.tensors import RGB, Normalization, channels_first, planes
from segtrain.schema.ranges import Range


class EvalTransform:
    """Resize an image for the model, without augmentation.

    The result is not normalised: bytes travel to the device, where `normalization` is applied.

    Args:
        mean: Mean of each channel, for pixels from 0 to 1.
        std: Standard deviation of each channel.
        labels: The contract of the targets; unused pixels keep its `ignore_label`.
        size: Height and width that images are resized to; None: they keep their size. Targets
            always keep theirs, because predictions are compared with the labels as drawn.

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
        self.normalization = Normalization(mean, std, len(mean))
        Range(1).check("evaluation.size", size)
        self.labels, self.size = labels, size

    def __call__(
        self,
        image: NDArray[Any],
        target: NDArray[Any],
        seed: int = 0,
        wanted: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return a sample as tensors; `seed` and `wanted` are those of `TrainTransform`, not used.

        Shape:
            - image: ``(H, W, C)``, uint8, or float32 from 0 to 1. target: ``(H, W)``, or
              ``(H, W, K)`` for multi-label data, integers.
            - output: ``(C, h, w)``, the image's type, and ``(H, W)`` or ``(K, H, W)``, the target's
              type.
        """
        del seed, wanted
        image = fill_missing(image, self.normalization.mean)
        if self.size is not None and image.shape[:2] != self.size:
            image = _smoothly_resized(image, self.size)
        return planes(image), channels_first(target)


def _smoothly_resized(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Resize with a bilinear filter that covers all source pixels, as Pillow does."""
    kind = Image.Resampling.BILINEAR
    if image.dtype == np.uint8 and image.shape[2] == RGB:
        return np.array(Image.fromarray(image).resize(size[::-1], kind))
    planes = [
        np.array(Image.fromarray(np.ascontiguousarray(image[..., index])).resize(size[::-1], kind))
        for index in range(image.shape[2])
    ]
    return np.stack(planes, axis=2)
