"""The asymmetric loss: a sigmoid loss that drops easy negatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.losses.pixel.binary import SigmoidLoss, focal_term
from segtrain.losses.registry import register_loss
from segtrain.schema.arguments import check_not_negative


@register_loss("asymmetric")
class Asymmetric(SigmoidLoss):
    r"""Focal loss with two exponents and without easy negatives, averaged over classes and pixels.

    .. math:: \ell = -\frac{1}{C} \sum_c \Big[ y_c (1 - p_c)^{\gamma_+} \log p_c
              + (1 - y_c)\, q_c^{\gamma_-} \log (1 - q_c) \Big], \qquad q_c = \max(p_c - m, 0)

    with :math:`p = \sigma(z)`.

    Args:
        gamma_neg: :math:`\gamma_- \ge 0`, for absent classes. They are many and mostly easy, so it
            is the larger exponent.
        gamma_pos: :math:`\gamma_+ \ge 0`, for present classes. 1 as in the official code; the paper
            finds 0, plain cross entropy, sufficient for most tasks.
        clip: The margin :math:`m` in [0, 1): a negative below this probability has no loss. It
            also bounds the loss of a negative by :math:`-\log m`, which limits the cost of a wrong
            label. 0 means no margin.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``mining`` of
            :class:`PixelLoss`.

    Note:
        Targets are as for ``bce``. With equal exponents and ``clip=0`` it is ``sigmoid_focal`` with
        ``alpha=null``; with exponents of 0 as well, ``bce``. With a margin, the gradient of a
        negative decreases again as :math:`p` approaches 1, by design: its label may be wrong. The
        loss of a batch is the mean over its parts, weighted by their valid pixels.

    Example:
        >>> loss = Asymmetric(num_classes=2, gamma_neg=1.0, gamma_pos=0.0, clip=0.5)
        >>> logits = torch.tensor([0.0, 0.0]).reshape(1, 2, 1, 1)
        >>> loss(logits, torch.zeros(1, 1, 1, dtype=torch.long))  # ln 2 / 2: the negative is free
        tensor(0.3466)

    References:
        Ridnik et al., Asymmetric Loss for Multi-Label Classification, ICCV 2021, sections 2.2 to
        2.4. The official code sums over classes and images where this averages, and by default
        takes the factors :math:`(1 - p)^{\gamma_+}` and :math:`q^{\gamma_-}` as constants for the
        gradient; here the gradient is that of the formula.
    """

    def __init__(
        self,
        *,
        gamma_neg: float = 4.0,
        gamma_pos: float = 1.0,
        clip: float = 0.05,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.gamma_neg = check_not_negative("gamma_neg", gamma_neg)
        self.gamma_pos = check_not_negative("gamma_pos", gamma_pos)
        if not 0 <= clip < 1:
            raise ConfigError(f"clip must be at least 0 and below 1, got {clip}")
        self.clip = clip

    def positive(self, logits: Tensor) -> Tensor:
        return focal_term(logits, self.gamma_pos)

    def negative(self, logits: Tensor) -> Tensor:
        if self.clip == 0:
            return focal_term(-logits, self.gamma_neg)
        # The floor keeps the slope of x**gamma finite at 0 for gamma < 1. The logarithm is of
        # min(1 - p + m, 1), which is at least m.
        tiny = torch.finfo(logits.dtype).tiny
        shifted = (logits.sigmoid() - self.clip).clamp(min=tiny)
        log_miss = ((-logits).sigmoid() + self.clip).clamp(tiny, 1).log()
        return -log_miss * shifted**self.gamma_neg
