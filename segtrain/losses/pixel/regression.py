"""Smooth L1: a loss of numbers instead of distributions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from segtrain.losses.base import safe_ratio
from segtrain.losses.families.pixel import PixelLoss
from segtrain.losses.registry import register_loss
from segtrain.schema.arguments import check_not_negative


@register_loss("smooth_l1")
class SmoothL1(PixelLoss):
    r"""Squared error for small and absolute error for large differences, averaged over pixels.

    .. math:: \ell = \frac{1}{C} \sum_c h(d_c), \qquad h(d) = \begin{cases}
              d^2 / (2 \beta) & |d| < \beta \\ |d| - \beta / 2 & \text{otherwise} \end{cases}

    With class ids, :math:`d_c = p_c - \delta_{cy}` compares softmax probabilities with the one-hot
    target; for one channel, :math:`d = \sigma(z) - y`. With a dense target, :math:`d_c = z_c - t_c`
    compares the outputs without an activation, such as a depth, a height or a distance per channel.

    Args:
        beta: :math:`\beta \ge 0`, in units of the target: the difference at which the absolute
            error begins. 0 is the absolute error everywhere. Probabilities differ by at most 1, so
            with class ids the default is the squared error, half of the Brier score
            :math:`\frac{1}{C} \sum_c d_c^2`.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``mining`` of
            :class:`PixelLoss`.

    Note:
        The mean is also over the channels, as in :class:`torch.nn.SmoothL1Loss`. With class ids,
        values and gradients therefore shrink as the number of classes grows; a ``weight`` in
        ``sum`` compensates for it.

        In a dense target, a pixel is ignored where a channel is NaN, and ``ignore_label`` is an
        ordinary number. ``class_weights`` then weigh the channels in their mean, without effect on
        a single channel; with class ids they weigh pixels. The target gets no gradient.

        With a dense target, hard-example mining ranks pixels by :math:`1 - |d| / \sqrt{d^2 +
        \beta^2}`, averaged over the channels: 1 without an error, near 0 for errors far above
        :math:`\beta`. It is one minus the gradient norm that GHM-R uses.

    Example:
        >>> loss = SmoothL1(num_classes=2)
        >>> outputs = torch.tensor([0.5, 3.0]).reshape(1, 2, 1, 1)
        >>> loss(outputs, torch.zeros(1, 2, 1, 1))  # (1/8 + 5/2) / 2
        tensor(1.3125)
        >>> loss(torch.zeros(1, 2, 1, 1), torch.ones(1, 1, 1, dtype=torch.long))  # d = 1/2, -1/2
        tensor(0.1250)

    References:
        Girshick, Fast R-CNN, ICCV 2015, eq. 3, with beta = 1; beta as in torch. Gradient norm: Li
        et al., Gradient Harmonized Single-stage Detector, AAAI 2019, the section on GHM-R, where it
        is that of the loss :math:`\sqrt{d^2 + \mu^2} - \mu` and not of smooth L1.
    """

    dense = "regression"

    def __init__(self, *, beta: float = 1.0, **common: Any) -> None:
        super().__init__(**common)
        self.beta = check_not_negative("beta", beta)

    def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        if target.dim() == 4:
            return self._mean(self._smooth_l1(logits - target.detach()))
        if self.num_classes == 1:
            return self._smooth_l1(logits[:, 0].sigmoid() - target)
        probability = logits.softmax(1)
        one = torch.ones_like(probability[:, :1])
        return self._smooth_l1(probability.scatter_add(1, target[:, None], -one)).mean(1)

    def _smooth_l1(self, difference: Tensor) -> Tensor:
        zero = difference.new_zeros(()).expand_as(difference)
        return F.smooth_l1_loss(difference, zero, reduction="none", beta=self.beta)

    def _mean(self, values: Tensor) -> Tensor:
        """Mean over the channels of a regression, ``(N, R, W)``."""
        if self.class_weights is None or self.num_classes == 1:
            return values.mean(1)
        weights = self.class_weights.to(values.dtype)
        return torch.einsum("nchw,c->nhw", values, weights / weights.sum())

    def class_weight_map(self, target: Tensor, dtype: torch.dtype) -> Tensor | None:
        return None if target.dim() == 4 else super().class_weight_map(target, dtype)

    def target_probability(self, logits: Tensor, target: Tensor) -> Tensor:
        if target.dim() == 3:
            return super().target_probability(logits, target)
        distance = (logits - target).abs()
        slope = safe_ratio(distance, torch.hypot(distance, distance.new_full((), self.beta)))
        return 1 - slope.mean(1)
