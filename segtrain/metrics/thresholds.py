"""Scores of one class at every threshold of its probability, from a histogram."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from segtrain.metrics.base import ratio
from segtrain.precision import wide

THRESHOLDS = tuple(index / 1000 for index in range(1, 1000))
"""The thresholds that are compared."""

_HALF = 0.5


def limits_of(thresholds: Sequence[float]) -> Tensor:
    """The logits above which the probability is above the threshold, ``(K,)``, float32.

    Every comparison with a threshold uses them, so that a pixel on a threshold counts as it is
    predicted.

    Example:
        >>> limits_of([0.5, 0.9])
        tensor([0.0000, 2.1972])
    """
    return torch.tensor(thresholds).logit()


class ThresholdScores(NamedTuple):
    """Scores at each of :data:`THRESHOLDS`, by logit.

    Attributes:
        iou: Intersection over union, ``(K, 999)``, float64; NaN where it is undefined.
        dice: Dice, likewise.
        chosen: The threshold of the largest IoU of each logit, which also has the largest Dice,
            since Dice = 2 IoU / (1 + IoU). Of several, the one nearest to one half. It is one half
            where no pixel is positive.
    """

    iou: Tensor
    dice: Tensor
    chosen: tuple[float, ...]


class ThresholdCounts:
    """Counts pixels by their probability.

    Args:
        num_logits: Number of logits, each with a threshold of its own.
        device: Where the counts are kept.

    Attributes:
        counts: Negative and positive pixels between the thresholds, ``(K, 2, 1000)``, int64. They
            may be added up over processes.

    Example:
        >>> counts = ThresholdCounts(1, torch.device("cpu"))
        >>> logits = torch.tensor([[0.2, 0.3, 0.4]]).logit()
        >>> counts.update(logits, torch.tensor([[0, 1, 1]]), torch.ones(3, dtype=torch.bool))
        >>> scores = counts.scores()
        >>> scores.chosen, [round(float(scores.iou[0, at]), 3) for at in (99, 249, 349)]
        ((0.299,), [0.667, 1.0, 0.5])
    """

    def __init__(self, num_logits: int, device: torch.device) -> None:
        self._limits = limits_of(THRESHOLDS).to(device)
        shape = (num_logits, 2, len(THRESHOLDS) + 1)
        self.counts = torch.zeros(shape, dtype=torch.int64, device=device)

    def update(self, logits: Tensor, target: Tensor, valid: Tensor) -> None:
        """Count the valid pixels of some rows.

        Shape:
            - logits: ``(K, ...)``.
            - target: ``(K, ...)``, integers; 1 is positive.
            - valid: ``(...)``, bool.
        """
        for logit, (values, actual) in enumerate(zip(logits, target, strict=True)):
            place = torch.bucketize(values[valid].float(), self._limits)
            place += (len(THRESHOLDS) + 1) * (actual[valid] == 1)
            found = torch.bincount(place, minlength=2 * (len(THRESHOLDS) + 1))
            self.counts[logit] += found.view(2, -1)

    def scores(self) -> ThresholdScores:
        """Compute the scores at each threshold; a pixel above it is predicted as positive."""
        above = wide(self.counts).flip(2).cumsum(2).flip(2)[..., 1:]
        false_positive, true_positive = above.unbind(1)
        positive = wide(self.counts[:, 1].sum(1, keepdim=True))
        iou = ratio(true_positive, positive + false_positive)
        dice = ratio(2 * true_positive, positive + true_positive + false_positive)
        return ThresholdScores(iou, dice, tuple(map(_best, iou, positive[:, 0].tolist())))


def _best(iou: Tensor, positive: float) -> float:
    if not positive:
        return _HALF
    best: list[int] = (iou == iou.max()).nonzero()[:, 0].tolist()
    return min((THRESHOLDS[index] for index in best), key=lambda value: abs(value - _HALF))
