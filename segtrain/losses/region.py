"""The overlap losses: dice and jaccard."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.losses.base import RegionLoss, safe_ratio
from segtrain.losses.registry import register_loss


class _SmoothedRegionLoss(RegionLoss):
    """A region loss whose ratio is smoothed by a number of pixels added above and below."""

    def __init__(self, *, smooth: float = 1.0, **common: Any) -> None:
        super().__init__(**common)
        if smooth < 0:
            raise ConfigError(f"smooth must not be negative, got {smooth}")
        self.smooth = smooth


@register_loss("dice")
class Dice(_SmoothedRegionLoss):
    r"""One minus the soft Dice coefficient, averaged over classes.

    .. math:: L = 1 - \frac{1}{|K|} \sum_{c \in K}
              \frac{2\,\text{TP}_c + s}{2\,\text{TP}_c + \text{FP}_c + \text{FN}_c + s}

    with :math:`\text{TP}_c = \sum_i p_{ic} y_{ic}` and so on, summed over the valid pixels of the
    batch.

    Args:
        smooth: :math:`s \ge 0`, in pixels; it softens the loss of classes with few pixels.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``classes``, ``per_image``
            of :class:`RegionLoss`.

    Example:
        >>> import torch
        >>> loss = Dice(num_classes=2, smooth=0.0)
        >>> loss(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]))  # TP = FP = FN = 1/2 for both
        tensor(0.5000)

    References:
        Milletari et al., V-Net, 3DV 2016, without the squares in the denominator; Drozdzal et al.,
        2016, eq. 2.
    """

    def class_loss(self, tp: Tensor, fp: Tensor, fn: Tensor) -> Tensor:
        return 1 - safe_ratio(2 * tp + self.smooth, 2 * tp + fp + fn + self.smooth, empty=1.0)


@register_loss("jaccard")
class Jaccard(_SmoothedRegionLoss):
    r"""One minus the soft intersection over union, averaged over classes.

    .. math:: L = 1 - \frac{1}{|K|} \sum_{c \in K} \frac{\text{TP}_c + s}{\text{TP}_c + \text{FP}_c
    + \text{FN}_c + s}

    with :math:`\text{TP}_c = \sum_i p_{ic} y_{ic}` and so on, summed over the valid pixels of the
    batch.

    Args:
        smooth: :math:`s \ge 0`, in pixels; it softens the loss of classes with few pixels.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``classes``, ``per_image``
            of :class:`RegionLoss`.

    Example:
        >>> import torch
        >>> loss = Jaccard(num_classes=2, smooth=0.0)
        >>> loss(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]))  # 1 - 0.5 / 1.5
        tensor(0.6667)

    References:
        Rahman and Wang, Optimizing Intersection-Over-Union in Deep Neural Networks for Image
        Segmentation, ISVC 2016.
    """

    def class_loss(self, tp: Tensor, fp: Tensor, fn: Tensor) -> Tensor:
        return 1 - safe_ratio(tp + self.smooth, tp + fp + fn + self.smooth, empty=1.0)
