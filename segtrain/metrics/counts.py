"""Metrics that follow from the counts of right and wrong pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from segtrain.metrics.base import METRICS, CountMetric, Counts, OverallMetric, ratio


@METRICS.register("iou")
class IoU(CountMetric):
    r"""Intersection over union, :math:`TP / (TP + FP + FN)`; also called Jaccard index."""

    def class_values(self, counts: Counts) -> Tensor:
        return ratio(counts.tp, counts.tp + counts.fp + counts.fn)


@METRICS.register("dice")
class Dice(CountMetric):
    r"""Dice coefficient, :math:`2 TP / (2 TP + FP + FN)`; also called F1 score."""

    def class_values(self, counts: Counts) -> Tensor:
        return ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn)


@METRICS.register("precision")
class Precision(CountMetric):
    r"""Share of the predicted pixels that are right, :math:`TP / (TP + FP)`."""

    def class_values(self, counts: Counts) -> Tensor:
        return ratio(counts.tp, counts.predicted)


@METRICS.register("recall")
class Recall(CountMetric):
    r"""Share of the target pixels that are found, :math:`TP / (TP + FN)`; also sensitivity."""

    def class_values(self, counts: Counts) -> Tensor:
        return ratio(counts.tp, counts.target)


@METRICS.register("mean_accuracy")
class MeanAccuracy(Recall):
    """Accuracy of the pixels of each class, which is :class:`Recall`, averaged over classes."""


@METRICS.register("specificity")
class Specificity(CountMetric):
    r"""Share of the pixels of other classes that are not predicted, :math:`TN / (TN + FP)`."""

    def class_values(self, counts: Counts) -> Tensor:
        return ratio(counts.tn, counts.tn + counts.fp)


@METRICS.register("mcc")
class MatthewsCorrelation(CountMetric):
    r"""Correlation of prediction and target, from -1 to 1.

    .. math:: \frac{TP \cdot TN - FP \cdot FN}
              {\sqrt{(TP + FP)(TP + FN)(TN + FP)(TN + FN)}}

    for each class against the rest. The micro value is the correlation of all classes together
    (Gorodkin, Comparing two K-category assignments by a K-category correlation coefficient, 2004).
    It is undefined if the prediction or the target has a single class.
    """

    is_share = False

    def class_values(self, counts: Counts) -> Tensor:
        tp, fp, fn, tn = counts.tp, counts.fp, counts.fn, counts.tn
        # The product of four counts would overflow the exact range of float64; its root does not.
        below = ((tp + fp) * (tp + fn)).sqrt() * ((tn + fp) * (tn + fn)).sqrt()
        return ratio(tp * tn - fp * fn, below)

    def micro(self, counts: Counts, classes: Tensor) -> Tensor:
        if not counts.exclusive:
            return super().micro(counts, classes)
        target, predicted = counts.target, counts.predicted
        total = counts.valid
        covariance = counts.tp.sum(-1) * total - (target * predicted).sum(-1)
        spread = [(total**2 - (side**2).sum(-1)).sqrt() for side in (target, predicted)]
        return ratio(covariance, spread[0] * spread[1])


@METRICS.register("accuracy")
class Accuracy(OverallMetric):
    """Share of the valid pixels with the right class; with multi-label data, of right labels."""

    def value(self, counts: Counts) -> Tensor:
        if counts.exclusive:
            return ratio(counts.tp.sum(-1), counts.valid)
        right, wrong = (counts.tp + counts.tn).sum(-1), (counts.fp + counts.fn).sum(-1)
        return ratio(right, right + wrong)


@METRICS.register("fw_iou")
class FrequencyWeightedIoU(OverallMetric):
    """Mean of the IoU of the classes, weighted by their numbers of target pixels."""

    def value(self, counts: Counts) -> Tensor:
        iou = ratio(counts.tp, counts.tp + counts.fp + counts.fn)
        return ratio((iou.nan_to_num() * counts.target).sum(-1), counts.target.sum(-1))


@METRICS.register("kappa")
class Kappa(OverallMetric):
    r"""Cohen's kappa, :math:`(p_o - p_e) / (1 - p_e)`, from -1 to 1.

    :math:`p_o` is the accuracy, and :math:`p_e` the accuracy that is expected by chance. With
    multi-label data it is the mean over the classes, each against the rest. Cohen, A coefficient of
    agreement for nominal scales, 1960.
    """

    is_share = False

    def value(self, counts: Counts) -> Tensor:
        if counts.exclusive:
            return _kappa(counts.tp.sum(-1), counts.target, counts.predicted)
        total = counts.tp + counts.fp + counts.fn + counts.tn
        target = torch.stack([counts.target, total - counts.target], -1)
        predicted = torch.stack([counts.predicted, total - counts.predicted], -1)
        return _kappa(counts.tp + counts.tn, target, predicted).nanmean(-1)


def _kappa(right: Tensor, target: Tensor, predicted: Tensor) -> Tensor:
    """Kappa from the right pixels ``(...)`` and the sums of rows and columns ``(..., C)``."""
    total = target.sum(-1)
    by_chance = ratio((target * predicted).sum(-1), total)
    return ratio(right - by_chance, total - by_chance)
