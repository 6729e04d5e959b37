"""Metrics of the predicted probabilities: calibration, likelihood, and the ROC curve."""

from __future__ import annotations

import torch
from torch import Tensor

from segtrain.metrics.base import METRICS, ProbabilityMetric, ratio
from segtrain.precision import wide
from segtrain.schema.arguments import check_at_least_one


@METRICS.register("nll")
class NegativeLogLikelihood(ProbabilityMetric):
    r"""Mean of :math:`-\log p_y` over the valid pixels: the cross entropy without weights."""

    larger_is_better = False
    is_share = False
    has_classes = False

    def sums(self, log_probability: Tensor, target: Tensor) -> Tensor:
        values = -_of_target(log_probability, target)
        return _sum_and_count(values)

    def value(self, sums: Tensor) -> Tensor:
        return ratio(sums[0], sums[1])


@METRICS.register("brier")
class BrierScore(ProbabilityMetric):
    r"""Mean over the valid pixels of :math:`\sum_c (p_c - t_c)^2`, from 0 to 2.

    With two classes it is twice the square of the error of one probability. Brier, Verification of
    forecasts expressed in terms of probability, 1950, in its form for several classes.
    """

    larger_is_better = False
    is_share = False
    has_classes = False

    def sums(self, log_probability: Tensor, target: Tensor) -> Tensor:
        probability = log_probability.exp()
        right = _of_target(probability, target)
        return _sum_and_count((probability**2).sum(0) - 2 * right + 1)

    def value(self, sums: Tensor) -> Tensor:
        return ratio(sums[0], sums[1])


@METRICS.register("ece")
class ExpectedCalibrationError(ProbabilityMetric):
    """Mean difference between the confidence and the accuracy of the predicted class, in bins.

    Args:
        bins: Number of bins of equal width of the largest probability.

    References:
        Guo et al., On Calibration of Modern Neural Networks, ICML 2017, eq. 3.
    """

    larger_is_better = False
    has_classes = False

    def __init__(self, *, bins: int = 15) -> None:
        self.bins = check_at_least_one("bins", bins)

    def sums(self, log_probability: Tensor, target: Tensor) -> Tensor:
        top, predicted = log_probability.max(0)
        confidence = wide(top.exp())
        # The bins are (0, 1/B], (1/B, 2/B], ...: a confidence of exactly 1 is in the last one.
        index = ((confidence * self.bins).ceil() - 1).clamp(0, self.bins - 1).long()
        columns = (torch.ones_like(confidence), confidence, wide((predicted == target).float()))
        return torch.stack(
            [torch.bincount(index, weights=column, minlength=self.bins) for column in columns]
        )

    def value(self, sums: Tensor) -> Tensor:
        count, confidence, right = sums
        return ratio((confidence - right).abs().sum(), count.sum())


@METRICS.register("auc")
class RocAuc(ProbabilityMetric):
    r"""Area under the ROC curve of each class against the rest, from a histogram.

    The scores are the logits :math:`\log p_c / (1 - p_c)`, in bins of equal width from -20 to 20.
    Pairs of pixels in one bin count as ties, a half each; the error bound is half of their share of
    all pairs. A class that no pixel, or every pixel, has is undefined.

    Args:
        bins: Number of bins.
    """

    _LIMIT = 20.0

    def __init__(self, *, bins: int = 4096) -> None:
        self.bins = check_at_least_one("bins", bins)

    def sums(self, log_probability: Tensor, target: Tensor) -> Tensor:
        histograms = []
        for index, log_p in enumerate(log_probability):
            # The smallest float32 stands for 1 - p = 0, whose logit is beyond the last bin anyway.
            rest = (-torch.expm1(log_p)).clamp(min=torch.finfo(torch.float32).tiny).log()
            position = (log_p - rest + self._LIMIT) * (self.bins / (2 * self._LIMIT))
            place = position.clamp(0, self.bins - 1).long()
            place = place + self.bins * (target == index)
            histograms.append(torch.bincount(place, minlength=2 * self.bins))
        return wide(torch.stack(histograms).reshape(len(log_probability), 2, self.bins))

    def value(self, sums: Tensor) -> Tensor:
        negative, positive = sums.unbind(1)
        below = negative.cumsum(1) - negative  # negatives in lower bins
        pairs = (positive * (below + negative / 2)).sum(1)
        return ratio(pairs, positive.sum(1) * negative.sum(1))

    def error_bound(self, sums: Tensor) -> Tensor:
        negative, positive = sums.unbind(1)
        return ratio((positive * negative).sum(1) / 2, positive.sum(1) * negative.sum(1))


def _of_target(values: Tensor, target: Tensor) -> Tensor:
    return values.gather(0, target[None])[0]


def _sum_and_count(values: Tensor) -> Tensor:
    total = wide(values).sum()
    return torch.stack([total, torch.full_like(total, values.numel())])
