"""Overlap losses: Dice, Jaccard, Tversky and their variants."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.losses.base import safe_ratio
from segtrain.losses.families.region import RegionLoss, RegionSums
from segtrain.losses.registry import register_loss
from segtrain.schema.arguments import check_not_negative, check_one_of, check_positive


class SmoothedRegionLoss(RegionLoss):
    """A region loss whose ratio is smoothed by a number of pixels."""

    def __init__(self, *, smooth: float = 1.0, **common: Any) -> None:
        super().__init__(**common)
        self.smooth = check_not_negative("smooth", smooth)


class ScoreLoss(SmoothedRegionLoss):
    """One minus a score in [0, 1], or minus its logarithm."""

    def __init__(self, *, log: bool = False, **common: Any) -> None:
        super().__init__(**common)
        self.log = log

    @abstractmethod
    def score(self, tp: Tensor, fp: Tensor, fn: Tensor) -> Tensor:
        """Score of each class, ``(..., C)`` in [0, 1]."""

    def class_loss(self, tp: Tensor, fp: Tensor, fn: Tensor) -> Tensor:
        score = self.score(tp, fp, fn)
        if not self.log:
            return 1 - score
        # Without smoothing, a score may underflow to 0. The root keeps 1 / score times a gradient
        # finite.
        return -score.clamp(min=torch.finfo(score.dtype).tiny ** 0.5).log()


class SquaredScoreLoss(ScoreLoss):
    """A score that may use the sum of squared probabilities."""

    def __init__(self, *, squared: bool = False, **common: Any) -> None:
        super().__init__(**common)
        self.squared = squared
        self.needs_squares = squared

    def class_values(self, sums: RegionSums) -> Tensor:
        if sums.predicted_squared is None:
            return self.class_loss(sums.tp, sums.fp, sums.fn)
        # predicted + actual = 2 TP + FP + FN, so the sum of squares as predicted changes FP.
        return self.class_loss(sums.tp, sums.predicted_squared - sums.tp, sums.fn)


def tversky_index(
    tp: Tensor, fp: Tensor, fn: Tensor, *, alpha: float, beta: float, smooth: float
) -> Tensor:
    """Tversky index; the Dice coefficient, to the last bit, at `alpha` = `beta` = 1/2."""
    found = 2 * tp + 2 * alpha * fp + 2 * beta * fn
    return safe_ratio(2 * tp + smooth, found + smooth, empty=1.0)


@register_loss("dice")
class Dice(SquaredScoreLoss):
    r"""One minus the soft Dice coefficient, averaged over classes.

    .. math:: L = 1 - \frac{1}{|K|} \sum_{c \in K}
              \frac{2\,\text{TP}_c + s}{2\,\text{TP}_c + \text{FP}_c + \text{FN}_c + s}

    with :math:`\text{TP}_c = \sum_i p_{ic} y_{ic}` and so on, summed over the valid pixels of the
    batch. With `squared`, the denominator is :math:`\sum_i p_{ic}^2 + \sum_i y_{ic} + s`.

    Args:
        smooth: :math:`s \ge 0`, in pixels; it softens the loss of classes with few pixels. With 0,
            an absent class has no gradient.
        squared: Use squares in the denominator, as in V-Net. The gradient of a pixel then vanishes
            as its prediction becomes right.
        log: :math:`-\log` of the coefficient instead of one minus it: steeper where a class is
            missed.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``activation``, ``classes``,
            ``per_image`` of :class:`RegionLoss`.

    Note:
        With `squared`, the target still contributes its sum and not the sum of its squares. For
        class ids and multi-hot targets both are equal.

    Example:
        >>> import torch
        >>> loss = Dice(num_classes=2, smooth=0.0)
        >>> loss(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]))  # TP = FP = FN = 1/2 for both
        tensor(0.5000)

    References:
        Milletari, Navab and Ahmadi, V-Net: Fully Convolutional Neural Networks for Volumetric
            Medical Image Segmentation, 3DV 2016: with `squared`; Drozdzal et al., The Importance of
            Skip Connections in Biomedical Image Segmentation, DLMIA 2016, eq. 2: without. Both are
            for one class; here the mean is over classes and `smooth` is added.
    """

    def score(self, tp: Tensor, fp: Tensor, fn: Tensor) -> Tensor:
        return tversky_index(tp, fp, fn, alpha=0.5, beta=0.5, smooth=self.smooth)


@register_loss("jaccard")
class Jaccard(SquaredScoreLoss):
    r"""One minus the soft intersection over union, averaged over classes.

    .. math:: L = 1 - \frac{1}{|K|} \sum_{c \in K}
              \frac{\text{TP}_c + s}{\text{TP}_c + \text{FP}_c + \text{FN}_c + s}

    with :math:`\text{TP}_c = \sum_i p_{ic} y_{ic}` and so on, summed over the valid pixels of the
    batch. With `squared`, the denominator is :math:`\sum_i p_{ic}^2 + \sum_i y_{ic} - \text{TP}_c +
    s`.

    Args:
        smooth: :math:`s \ge 0`, in pixels; it softens the loss of classes with few pixels.
        squared: Use squares in the denominator, as in the Jaccard distance of Yuan et al.
        log: :math:`-\log` of the ratio instead of one minus it: steeper where a class is missed.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``activation``, ``classes``,
            ``per_image`` of :class:`RegionLoss`.

    Note:
        Without smoothing, the ratio is :math:`J = D / (2 - D)` for the Dice coefficient :math:`D`,
        so both rank predictions of one class alike. As in :class:`Dice`, `squared` does not square
        the target.

    Example:
        >>> import torch
        >>> loss = Jaccard(num_classes=2, smooth=0.0)
        >>> loss(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]))  # 1 - 0.5 / 1.5
        tensor(0.6667)

    References:
        Rahman and Wang, Optimizing Intersection-Over-Union in Deep Neural Networks for Image
            Segmentation, ISVC 2016; Yuan, Chao and Lo, Automatic Skin Lesion Segmentation Using
            Deep Fully Convolutional Networks With Jaccard Distance, IEEE TMI 2017: with `squared`.
            Both are for one class and without `smooth`.
    """

    def score(self, tp: Tensor, fp: Tensor, fn: Tensor) -> Tensor:
        return safe_ratio(tp + self.smooth, tp + fp + fn + self.smooth, empty=1.0)


@register_loss("tversky")
class Tversky(ScoreLoss):
    r"""One minus the soft Tversky index, averaged over classes.

    .. math:: L = 1 - \frac{1}{|K|} \sum_{c \in K} \frac{\text{TP}_c + s/2}{\text{TP}_c + \alpha\,
              \text{FP}_c + \beta\,\text{FN}_c + s/2}

    with :math:`\text{TP}_c = \sum_i p_{ic} y_{ic}` and so on, summed over the valid pixels of the
    batch.

    Args:
        alpha: :math:`\alpha \ge 0`, the weight of false positives.
        beta: :math:`\beta \ge 0`, the weight of false negatives. A value above `alpha`, as in the
            paper, favours recall over precision.
        smooth: :math:`s \ge 0`, in pixels, halved so that it means the same as in ``dice``.
        log: :math:`-\log` of the index instead of one minus it: steeper where a class is missed.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``activation``, ``classes``,
            ``per_image`` of :class:`RegionLoss`.

    Note:
        ``alpha=0.5, beta=0.5`` is :class:`Dice`; ``alpha=1, beta=1`` is :class:`Jaccard` with half
        of the `smooth`.

    Example:
        >>> import torch
        >>> loss = Tversky(num_classes=1, smooth=0.0)
        >>> target = torch.tensor([[[1, 1, 0]]])
        >>> loss(torch.zeros(1, 1, 1, 3), target)  # TP 1, FP 1/2, FN 1: 1 - 1 / (1 + 0.15 + 0.7)
        tensor(0.4595)

    References:
        Salehi, Erdogmus and Gholipour, Tversky Loss Function for Image Segmentation Using 3D Fully
            Convolutional Deep Networks, MLMI 2017, eq. 3, for the lesion class of two; 0.3 and 0.7
            are its best pair. Here the mean is over classes and `smooth` is added.
    """

    def __init__(self, *, alpha: float = 0.3, beta: float = 0.7, **common: Any) -> None:
        super().__init__(**common)
        _check_tversky(alpha, beta)
        self.alpha = alpha
        self.beta = beta

    def score(self, tp: Tensor, fp: Tensor, fn: Tensor) -> Tensor:
        return tversky_index(tp, fp, fn, alpha=self.alpha, beta=self.beta, smooth=self.smooth)


@register_loss("focal_tversky")
class FocalTversky(SmoothedRegionLoss):
    r"""Power of one minus the soft Tversky index, averaged over classes.

    .. math:: L = \frac{1}{|K|} \sum_{c \in K} (1 - \text{TI}_c)^{1 / \gamma}, \qquad
              \text{TI}_c = \frac{\text{TP}_c + s/2}{\text{TP}_c + \alpha\,\text{FP}_c + \beta\,
              \text{FN}_c + s/2}

    Args:
        alpha: :math:`\alpha \ge 0`, the weight of false positives.
        beta: :math:`\beta \ge 0`, the weight of false negatives.
        gamma: :math:`\gamma > 0`; 1 is :class:`Tversky`. Above 1, the gradient grows as the index
            approaches 1; below 1, it vanishes there.
        smooth: :math:`s \ge 0`, in pixels, halved so that it means the same as in ``dice``.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``activation``, ``classes``,
            ``per_image`` of :class:`RegionLoss`.

    Note:
        For `gamma` above 1, the gradient is unbounded as the index approaches 1. Where the index
        is exactly 1, the gradient is 0.

    Example:
        >>> import torch
        >>> loss = FocalTversky(num_classes=1, smooth=0.0)
        >>> loss(torch.zeros(1, 1, 1, 3), torch.tensor([[[1, 1, 0]]]))  # 0.4595 ** 0.75
        tensor(0.5581)

    References:
        Abraham and Khan, A Novel Focal Tversky Loss Function with Improved Attention U-Net for
            Lesion Segmentation, ISBI 2019. The paper gives :math:`\alpha = 0.7` to false negatives
            and :math:`\beta = 0.3` to false positives: the same numbers under the other letters,
            which here are those of ``tversky``. It sums over classes; here it is the mean. Its
            smooth of 1 in numerator and denominator is a `smooth` of 2 here, which is halved.
    """

    def __init__(
        self, *, alpha: float = 0.3, beta: float = 0.7, gamma: float = 4 / 3, **common: Any
    ) -> None:
        super().__init__(**common)
        _check_tversky(alpha, beta)
        self.alpha = alpha
        self.beta = beta
        self.gamma = check_positive("gamma", gamma)

    def class_loss(self, tp: Tensor, fp: Tensor, fn: Tensor) -> Tensor:
        index = tversky_index(tp, fp, fn, alpha=self.alpha, beta=self.beta, smooth=self.smooth)
        # The gradient of the root is infinite at 0, so it is not computed there. NaN stays NaN.
        perfect = index >= 1
        return torch.where(perfect, 0, torch.where(perfect, 1, 1 - index) ** (1 / self.gamma))


@register_loss("log_cosh_dice")
class LogCoshDice(SmoothedRegionLoss):
    r"""Logarithm of the hyperbolic cosine of the Dice loss, averaged over classes.

    .. math:: L = \frac{1}{|K|} \sum_{c \in K} \log \cosh (1 - D_c), \qquad D_c = \frac{2\,
              \text{TP}_c + s}{2\,\text{TP}_c + \text{FP}_c + \text{FN}_c + s}

    A small Dice loss gives half its square: the gradient vanishes as a class becomes right, so the
    classes that are predicted badly dominate.

    Args:
        smooth: :math:`s \ge 0`, in pixels; it softens the loss of classes with few pixels.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``activation``, ``classes``,
            ``per_image`` of :class:`RegionLoss`.

    Example:
        >>> import torch
        >>> loss = LogCoshDice(num_classes=2, smooth=0.0)
        >>> loss(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]))  # log cosh 0.5
        tensor(0.1201)

    References:
        Jadon, A Survey of Loss Functions for Semantic Segmentation, CIBCB 2020, for one class; here
            it is taken of each class before the mean.
    """

    def class_loss(self, tp: Tensor, fp: Tensor, fn: Tensor) -> Tensor:
        miss = 1 - tversky_index(tp, fp, fn, alpha=0.5, beta=0.5, smooth=self.smooth)
        # cosh x - 1 = 2 sinh(x/2)^2, which does not cancel for small x.
        return torch.log1p(2 * torch.sinh(miss / 2).square())


@register_loss("generalized_dice")
class GeneralizedDice(RegionLoss):
    r"""One minus a single Dice ratio over all classes, in which rare classes weigh more.

    .. math:: L = 1 - \frac{2 \sum_{c \in K} w_c\,\text{TP}_c}{\sum_{c \in K} w_c \sum_i (p_{ic} +
              y_{ic})}, \qquad w_c = \frac{1}{\big(\sum_i y_{ic}\big)^2}

    Args:
        weighting: The weight of a class with :math:`A_c` target pixels: ``square``,
            :math:`1 / A_c^2`, as in the paper, with which rare classes dominate; ``simple``,
            :math:`1 / A_c`, with which each class counts by the share of it that is found; or
            ``uniform``, 1, the Dice coefficient of all pixels together.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``activation``, ``classes``,
            ``per_image`` of :class:`RegionLoss`; `class_weights` multiply :math:`w_c`.

    Note:
        With one channel, the background is the second class, as in the paper.

        The weight of an absent class would be infinite. ``classes="present"`` leaves it out;
        otherwise it gets the weight of the rarest present class. A class has at least the size of
        one pixel. There is no smoothing: if no class of the mean is present, as for a list of
        absent classes, the loss is 1 with a zero gradient; with ``only_present=True`` it is 0.

    Example:
        >>> import torch
        >>> loss = GeneralizedDice(num_classes=2)
        >>> target = torch.tensor([[[0, 0, 0, 1]]])  # w = 1/9 and 1, TP = 3/2 and 1/2
        >>> loss(torch.zeros(1, 2, 1, 4), target)  # 1 - 2 (1/6 + 1/2) / (5/9 + 3)
        tensor(0.6250)

    References:
        Sudre et al., Generalised Dice Overlap as a Deep Learning Loss Function for Highly
            Unbalanced Segmentations, DLMIA 2017, there for two classes.
    """

    def __init__(
        self, *, weighting: Literal["square", "simple", "uniform"] = "square", **common: Any
    ) -> None:
        super().__init__(**common)
        powers = {"square": 2, "simple": 1, "uniform": 0}
        self.weighting = check_one_of("weighting", weighting, powers)
        self.power = powers[weighting]

    def mean(self, sums: RegionSums, weight: Tensor) -> Tensor:
        tp, predicted, actual = sums.tp, sums.predicted, sums.actual
        if self.num_classes == 1:  # alone, the weight of the object would cancel
            tp = torch.cat([sums.tn, tp], -1)
            predicted = torch.cat([sums.count - predicted, predicted], -1)
            actual = torch.cat([sums.count - actual, actual], -1)
            weight = self._two_weights(weight)
        weight = weight * self._rarity(actual, weight)
        overlap = (weight * 2 * tp).sum(-1)
        # A ratio of 1 where all weights are 0 makes the loss 0.
        return 1 - safe_ratio(overlap, (weight * (predicted + actual)).sum(-1), empty=1.0)

    def _two_weights(self, weight: Tensor) -> Tensor:
        """The weights of background and object, ``(..., 2)``, from that of the object."""
        counted = weight.sign()
        if self.class_weights is None:
            return counted.expand(*weight.shape[:-1], 2)
        return counted * self.class_weights.to(weight.dtype)

    def each(self, sums: RegionSums, weight: Tensor) -> Tensor:
        return self.mean(sums, weight)  # one ratio over all classes

    def _rarity(self, actual: Tensor, weight: Tensor) -> Tensor:
        """Inverse of a power of the size of each class, ``(..., C)``."""
        counted = torch.where((weight > 0) & (actual > 0), actual, torch.inf)
        rarest = counted.amin(-1, keepdim=True)
        rarest = torch.where(rarest.isinf(), 1, rarest)
        size = torch.where(actual > 0, actual, rarest).clamp(min=1)
        return size**-self.power


def _check_tversky(alpha: float, beta: float) -> None:
    check_not_negative("alpha", alpha)
    check_not_negative("beta", beta)
    if alpha == beta == 0:
        raise ConfigError("alpha and beta must not both be 0: the loss would be constant")
