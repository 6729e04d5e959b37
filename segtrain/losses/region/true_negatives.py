"""Region losses with true negatives: sensitivity-specificity and Matthews correlation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.losses.base import safe_ratio
from segtrain.losses.families.region import RegionLoss, RegionSums
from segtrain.losses.region.overlap import SmoothedRegionLoss
from segtrain.losses.registry import register_loss


@register_loss("sensitivity_specificity")
class SensitivitySpecificity(RegionLoss):
    r"""Weighted squared errors on positive and on negative pixels, averaged over classes.

    .. math:: L = \frac{1}{|K|} \sum_{c \in K} \Big[ r\,\frac{\sum_i y_{ic} (1 - p_{ic})^2}{\sum_i
              y_{ic}} + (1 - r)\,\frac{\sum_i (1 - y_{ic})\,p_{ic}^2}{\sum_i (1 - y_{ic})} \Big]

    Args:
        sensitivity_ratio: :math:`r` in [0, 1], the weight of positive pixels against negative ones.
            It is small because the mean over the few pixels of a rare class changes much with each
            of them.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``activation``, ``classes``,
            ``per_image`` of :class:`RegionLoss`.

    Note:
        The first part is 0 for a class without a valid pixel, the second for a class that covers
        them all.

    Example:
        >>> import torch
        >>> loss = SensitivitySpecificity(num_classes=1)
        >>> logits = torch.tensor([3.0, 1.0]).log().reshape(1, 1, 1, 2)  # p = 3/4 and 1/2
        >>> loss(logits, torch.tensor([[[1, 0]]]))  # 0.05 / 16 + 0.95 / 4
        tensor(0.2406)

    References:
        Brosch et al., Deep Convolutional Encoder Networks for Multiple Sclerosis Lesion
            Segmentation, MICCAI 2015, for the lesion class of two; here the mean is over classes.
    """

    needs_squares = True

    def __init__(self, *, sensitivity_ratio: float = 0.05, **common: Any) -> None:
        super().__init__(**common)
        if not 0 <= sensitivity_ratio <= 1:
            raise ConfigError(f"sensitivity_ratio must be from 0 to 1, got {sensitivity_ratio}")
        self.sensitivity_ratio = sensitivity_ratio

    def class_values(self, sums: RegionSums) -> Tensor:
        assert sums.tp_squared is not None  # needs_squares
        assert sums.predicted_squared is not None
        missed = _not_below_zero(sums.actual - 2 * sums.tp + sums.tp_squared)
        invented = _not_below_zero(sums.predicted_squared - sums.tp_squared)
        sensitivity = safe_ratio(missed, sums.actual)
        specificity = safe_ratio(invented, sums.count - sums.actual)
        ratio = self.sensitivity_ratio
        return ratio * sensitivity + (1 - ratio) * specificity


@register_loss("mcc")
class MatthewsCorrelation(SmoothedRegionLoss):
    r"""One minus the soft Matthews correlation of each class with the rest, averaged over classes.

    .. math:: L = 1 - \frac{1}{|K|} \sum_{c \in K} \frac{\text{TP}\,\text{TN} - \text{FP}\,
              \text{FN}}{\sqrt{(\text{TP} + \text{FP})(\text{TP} + \text{FN})(\text{TN} + \text{FP})
              (\text{TN} + \text{FN})}}

    with :math:`\text{TP} = s + \sum_i p_{ic} y_{ic}`, :math:`\text{TN} = s + \sum_i (1 - p_{ic})(1
    - y_{ic})`, and false positives and negatives without :math:`s`, summed over the valid pixels of
    the batch. It is 0 if all pixels are right, 1 for a random guess and 2 if all are wrong.

    Args:
        smooth: :math:`s \ge 0`, in pixels: this many right pixels are added to the class and to the
            rest. It gives a gradient to classes that cover no pixel or all pixels.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``activation``, ``classes``,
            ``per_image`` of :class:`RegionLoss`.

    Note:
        Without smoothing, the correlation of a class that covers no valid pixel or all of them is
        undefined; it is set to 0, without a gradient.

    Example:
        >>> import torch
        >>> loss = MatthewsCorrelation(num_classes=1, smooth=0.0)
        >>> logits = torch.tensor([3.0, 3.0, 1 / 3, 1 / 3]).log().reshape(1, 1, 1, 4)  # p 3/4, 1/4
        >>> loss(logits, torch.tensor([[[1, 1, 0, 0]]]))  # 1 - (1.5 * 1.5 - 0.5 * 0.5) / 4
        tensor(0.5000)

    References:
        Abhishek and Hamarneh, Matthews Correlation Coefficient Loss for Deep Convolutional
            Networks: Application to Skin Lesion Segmentation, ISBI 2021, for two classes and
            without smoothing; here the mean is over classes.
    """

    def class_values(self, sums: RegionSums) -> Tensor:
        fp, fn, tn = (_not_below_zero(count) for count in (sums.fp, sums.fn, sums.tn))
        tp, tn = sums.tp + self.smooth, tn + self.smooth
        margins = torch.stack([tp + fp, tp + fn, tn + fp, tn + fn])
        exists = (margins > 0).all(0)
        # A root of each, because the product of four counts may overflow float32, and none of 0,
        # where its gradient is infinite.
        scale = torch.where(exists, margins, 1).sqrt().prod(0)
        return 1 - safe_ratio(tp * tn - fp * fn, scale * exists)


def _not_below_zero(difference: Tensor) -> Tensor:
    """Raise a `difference` of two sums to 0 where rounding made it negative; keep its gradient."""
    return difference + (-difference.detach()).clamp(min=0)
