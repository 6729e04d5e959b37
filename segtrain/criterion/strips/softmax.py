"""The softmax of a strip, its sums and its gradient, all in the memory of the strip."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from segtrain.precision import sums_by_class

_CHUNK = 2**17  # elements of the largest temporary tensor beside the strip


@dataclass
class SoftmaxGradient:
    r"""The gradient of the loss for what terms read of a softmax; None: no term reads it.

    Attributes:
        slope: ``(N, R, W)``, for the log-probability of the target's class; 0 at ignored pixels.
        offset: ``(N, R, W)``, :math:`\sum_c p_c\, \partial L / \partial p_c` of a loss whose
            :math:`p_c\, \partial L / \partial p_c` are already in the gradient for the logits.
        predicted: ``(N, C)``, for the sum of each class's probability over the valid pixels.
        tp: ``(N, C)``, for the sum of each class's probability over the pixels of the class.
    """

    slope: Tensor | None = None
    offset: Tensor | None = None
    predicted: Tensor | None = None
    tp: Tensor | None = None

    def add_slope(self, slope: Tensor) -> None:
        """Add the gradient of a loss that reads the target's log-probability."""
        self.slope = slope if self.slope is None else self.slope + slope

    def add_sums(self, predicted: Tensor, tp: Tensor) -> None:
        """Add the gradient of a loss that reads the sums."""
        self.predicted = predicted if self.predicted is None else self.predicted + predicted
        self.tp = tp if self.tp is None else self.tp + tp


class SoftmaxStrip:
    """The softmax of a strip; its exponentials take the memory of the logits.

    Args:
        logits: ``(N, C, R, W)``, overwritten.
        ids: ``(N, R, W)``, class ids; any class id at ignored pixels.
        valid: ``(N, R, W)``, bool, the pixels that count.
        safe: Whether the largest logit of every pixel is at most 0 and not far below it, so that it
            need not be subtracted before the exponential.

    Attributes:
        log_probability: ``(N, R, W)``, of the class in `ids`.
    """

    def __init__(self, logits: Tensor, ids: Tensor, valid: Tensor, *, safe: bool) -> None:
        self.ids, self.valid = ids, valid
        self._index = self.ids[:, None]
        largest = None if safe else logits.amax(1, keepdim=True)
        if largest is not None:
            logits.sub_(largest)
        of_target = logits.gather(1, self._index)
        self._exponentials = logits.exp_()
        self._total = self._exponentials.sum(1, keepdim=True)
        log_total = self._total.log()
        self.log_probability = (of_target - log_total)[:, 0]
        self._log_normaliser = log_total if largest is None else log_total + largest

    @property
    def log_normaliser(self) -> Tensor:
        """The log of the sum of the exponentials of the given logits, ``(N, R, W)``."""
        return self._log_normaliser[:, 0]

    def sums(self) -> tuple[Tensor, Tensor]:
        """The sums of each class's probability, ``(N, C)``: over its own pixels, and over all."""
        weight = self.valid.to(self._exponentials.dtype)
        of_target = (self.log_probability.exp() * weight).flatten(1)
        tp = sums_by_class(of_target, self.ids.flatten(1), self._exponentials.shape[1])
        share = (weight / self._total[:, 0]).flatten(1)[..., None]
        return tp, torch.bmm(self._exponentials.flatten(2), share)[..., 0]

    def gradient(self, wanted: SoftmaxGradient) -> Tensor:
        r"""The gradient for the logits, ``(N, C, R, W)``, written over the exponentials.

        With :math:`A_c` of ``predicted``, :math:`B_c` of ``tp``, the slope :math:`s` and the offset
        :math:`o`, it is :math:`p_c (A_c - m) + \delta_{cy} (p_y B_y + s)` where
        :math:`m = \sum_k p_k A_k + p_y B_y + s + o`.
        """
        inverse = self._total.reciprocal()[:, 0]
        at_target = torch.zeros_like(inverse) if wanted.slope is None else wanted.slope
        lowering = at_target if wanted.offset is None else at_target + wanted.offset
        if wanted.predicted is not None and wanted.tp is not None:
            valid = self.valid.to(inverse.dtype)
            of_target = wanted.tp.gather(1, self.ids.flatten(1)).view_as(inverse)
            of_target = of_target * self.log_probability.exp() * valid
            inverse = inverse * valid
            flat = self._exponentials.flatten(2)
            mean = torch.bmm(wanted.predicted[:, None], flat).view_as(inverse) * inverse
            at_target = at_target + of_target
            lowering = lowering + of_target + mean
            # As a product of rank two, A_c - m is written in one pass; in chunks of a few classes
            # it takes little memory.
            left = torch.stack([wanted.predicted, -torch.ones_like(wanted.predicted)], dim=2)
            right = torch.stack([inverse, lowering * inverse], dim=1).flatten(2)
            step = max(1, _CHUNK // max(1, inverse.numel()))
            for first in range(0, flat.shape[1], step):
                classes = slice(first, first + step)
                flat[:, classes].mul_(torch.bmm(left[:, classes], right))
        else:
            self._exponentials.mul_(-(lowering * inverse)[:, None])
        return self._exponentials.scatter_add_(1, self._index, at_target[:, None])
