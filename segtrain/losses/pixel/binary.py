"""Sigmoid losses: each class is a binary problem of its own."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from segtrain.errors import ConfigError
from segtrain.losses.base import Dense
from segtrain.losses.families.pixel import PixelLoss
from segtrain.losses.registry import register_loss
from segtrain.schema.arguments import check_not_negative


class SigmoidLoss(PixelLoss):
    """A pixel loss with one binary label per class, averaged over classes and pixels.

    A subclass implements :meth:`positive` and :meth:`negative`. The target holds class ids, of
    which each gives one positive label; or it is multi-hot, ``(N, C, H, W)``, with any number of
    positive labels; or it holds 0 and 1 for a single channel.

    Hard-example mining ranks a pixel by its worst label; see :meth:`target_probability`.
    """

    dense: ClassVar[Dense | None] = "multi_hot"
    has_elements = True

    @property
    def is_multi_label(self) -> bool:
        return True

    @property
    def multi_label(self) -> bool:
        # Soft labels, too, are independent per class and need not add up to 1.
        return True

    @abstractmethod
    def positive(self, logits: Tensor) -> Tensor:
        """Loss of logits with label 1, elementwise."""

    @abstractmethod
    def negative(self, logits: Tensor) -> Tensor:
        """Loss of logits with label 0, elementwise; a new tensor and not a view."""

    def weigh_positive(self, values: Tensor, index: Tensor | None) -> Tensor:  # noqa: ARG002
        """Weigh the result of :meth:`positive` for the classes `index` ``(N, 1, R, W)``, or all."""
        return values

    def dense_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of each logit, ``(N, C, R, W)``, for labels in [0, 1] of the same shape."""
        positive = self.weigh_positive(self.positive(logits), None)
        return target * positive + (1 - target) * self.negative(logits)

    def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        if self._has_class_ids(target):
            # The loss of a negative everywhere, overwritten at the target's class: this needs no
            # one-hot target and no difference of large numbers.
            index = target[:, None]
            of_target = self.weigh_positive(self.positive(logits.gather(1, index)), index)
            return self.negative(logits).scatter_(1, index, of_target).mean(1)
        return self.dense_loss(logits, _labels(target, logits)).mean(1)

    def elements(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        if self._has_class_ids(target):
            labels = F.one_hot(target, self.num_classes).movedim(-1, 1).to(logits.dtype)
            share = self.label_smoothing
            labels = (1 - share) * labels + share / self.num_classes
        else:
            labels = _labels(target, logits)
        return self.dense_loss(logits, labels), _right(logits, labels)

    def target_probability(self, logits: Tensor, target: Tensor) -> Tensor:
        r"""Probability of the worst label of each pixel, :math:`\min_c 1 - |y_c - p_c|`.

        With many classes nearly all labels are easy negatives, and a mean over them would rank a
        pixel as easy whose class is missed. One minus this value is the largest gradient norm among
        the logits.
        """
        if self._has_class_ids(target):
            index = target[:, None]
            worst = logits.scatter(1, index, -logits.gather(1, index)).amax(1)
            return (-worst).sigmoid()
        return _right(logits, _labels(target, logits)).amin(1)

    def _has_class_ids(self, target: Tensor) -> bool:
        return target.dim() == 3 and self.num_classes > 1


@register_loss("bce")
class BinaryCrossEntropy(SigmoidLoss):
    r"""Binary cross entropy of each class against the rest, averaged over classes and pixels.

    .. math:: \ell = -\frac{1}{C} \sum_c \big[ w_c\, y_c \log p_c + (1 - y_c) \log (1 - p_c) \big],
              \qquad p = \sigma(z)

    Args:
        pos_weight: :math:`w_c > 0`, one number or one per class. Above 1, a false negative costs
            more than a false positive. A class that covers the share :math:`f` of the pixels is
            balanced by :math:`(1 - f) / f`.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``mining`` of
            :class:`PixelLoss`.

    Note:
        The target holds class ids (:math:`y` is 1 for one class, 0 for the others), is multi-hot
        ``(N, C, H, W)``, or holds 0 and 1 for one channel (``num_classes=1``). For all of them,
        values and gradients equal those of
        :func:`torch.nn.functional.binary_cross_entropy_with_logits`; no one-hot target is created.
        The loss of a batch is the mean over its parts, weighted by their valid pixels.

    Example:
        >>> loss = BinaryCrossEntropy(num_classes=2)
        >>> logits = torch.tensor([2.0, -2.0]).reshape(1, 2, 1, 1)
        >>> loss(logits, torch.zeros(1, 1, 1, dtype=torch.long))  # ln(1 + e^-2)
        tensor(0.1269)
        >>> loss(logits, torch.tensor([1.0, 1.0]).reshape(1, 2, 1, 1))  # both: 1 more for the miss
        tensor(1.1269)
    """

    def __init__(self, *, pos_weight: float | list[float] = 1.0, **common: Any) -> None:
        super().__init__(**common)
        self.pos_weight: Tensor
        weights = _check_pos_weight(pos_weight, self.num_classes)
        self.register_buffer("pos_weight", weights, persistent=False)
        self._weighs = bool((weights != 1).any())

    def positive(self, logits: Tensor) -> Tensor:
        return -F.logsigmoid(logits)

    def negative(self, logits: Tensor) -> Tensor:
        return -F.logsigmoid(-logits)

    def weigh_positive(self, values: Tensor, index: Tensor | None) -> Tensor:
        if not self._weighs:
            return values
        weights = self.pos_weight.to(values.dtype)
        return values * (weights[:, None, None] if index is None else weights[index])


@register_loss("sigmoid_focal")
class SigmoidFocal(SigmoidLoss):
    r"""Binary cross entropy that down-weights easy labels, averaged over classes and pixels.

    .. math:: \ell = -\frac{1}{C} \sum_c \alpha_{tc} (1 - p_{tc})^\gamma \log p_{tc}

    with :math:`p_{tc} = \sigma(z_c)`, :math:`\alpha_{tc} = \alpha` for positive labels and
    :math:`p_{tc} = 1 - \sigma(z_c)`, :math:`\alpha_{tc} = 1 - \alpha` for negative labels.

    Args:
        gamma: :math:`\gamma \ge 0`; 0 is binary cross entropy, and 2 is the paper's choice.
        alpha: :math:`\alpha` in [0, 1], or null for no weighting. 0.25 is the paper's choice for
            :math:`\gamma = 2`: the rare positives are harder, so :math:`\gamma` already gives them
            a larger weight.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``mining`` of
            :class:`PixelLoss`.

    Note:
        Targets are as for ``bce``. For labels of 0 and 1 the loss equals
        :func:`torchvision.ops.sigmoid_focal_loss` with ``reduction="mean"``. For labels in between
        it is the mean of the losses of a positive and a negative, weighted by the label. The loss
        of a batch is the mean over its parts, weighted by their valid pixels.

    Example:
        >>> loss = SigmoidFocal(num_classes=1, gamma=2.0, alpha=0.25)
        >>> loss(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, dtype=torch.long))  # ln 2 / 16
        tensor(0.0433)

    References:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, eq. 5; averaged over pixels
        and classes in place of divided by the number of anchors that hold an object.
    """

    def __init__(self, *, gamma: float = 2.0, alpha: float | None = 0.25, **common: Any) -> None:
        super().__init__(**common)
        self.gamma = check_not_negative("gamma", gamma)
        if alpha is not None and not 0 <= alpha <= 1:
            raise ConfigError(f"alpha must be in [0, 1] or null, got {alpha}")
        self.alpha = alpha

    def positive(self, logits: Tensor) -> Tensor:
        values = focal_term(logits, self.gamma)
        return values if self.alpha is None else self.alpha * values

    def negative(self, logits: Tensor) -> Tensor:
        values = focal_term(-logits, self.gamma)
        return values if self.alpha is None else (1 - self.alpha) * values


@register_loss("quality_focal")
class QualityFocal(SigmoidLoss):
    r"""Focal loss for soft binary labels, averaged over classes and pixels.

    .. math:: \ell = -\frac{1}{C} \sum_c |y_c - p_c|^\beta \big[ y_c \log p_c
              + (1 - y_c) \log (1 - p_c) \big], \qquad p = \sigma(z)

    Args:
        beta: :math:`\beta \ge 0`; 0 is binary cross entropy, and 2 is the paper's choice. Below 1
            the gradient at :math:`p = y` would be infinite; it is set to 0 there.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``mining`` of
            :class:`PixelLoss`.

    Note:
        A dense target ``(N, C, H, W)`` holds :math:`y` in [0, 1], such as the quality of a label, a
        share of annotators or a distance to the border. The loss is 0 where :math:`p = y`. For
        labels of 0 and 1, which are class ids, multi-hot targets, and 0 and 1 for one channel, it
        is ``sigmoid_focal`` with ``alpha=null``. With class weights, the weight of a pixel is
        :math:`\sum_c w_c y_c / \sum_c y_c`, the average over its labels; if all its labels are 0,
        it is the mean of all class weights. The loss of a batch is the mean over its parts,
        weighted by their valid pixels.

    Example:
        >>> loss = QualityFocal(num_classes=1)
        >>> loss(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1))  # ln 2 / 4
        tensor(0.1733)
        >>> loss(torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 0.5))
        tensor(0.)

    References:
        Li et al., Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for
        Dense Object Detection, NeurIPS 2020, section 3 (QFL); averaged over pixels and classes in
        place of divided by the number of positive anchors.
    """

    dense = "probability"

    def __init__(self, *, beta: float = 2.0, **common: Any) -> None:
        super().__init__(**common)
        self.beta = check_not_negative("beta", beta)

    def positive(self, logits: Tensor) -> Tensor:
        return focal_term(logits, self.beta)

    def negative(self, logits: Tensor) -> Tensor:
        return focal_term(-logits, self.beta)

    def dense_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        # y - p without a difference of two numbers near 1. The floor keeps the gradient of x**beta
        # finite at 0 for beta < 1.
        distance = target * (-logits).sigmoid() - (1 - target) * logits.sigmoid()
        scale = distance.abs().clamp(min=torch.finfo(distance.dtype).tiny) ** self.beta
        entropy = -target * F.logsigmoid(logits) - (1 - target) * F.logsigmoid(-logits)
        return scale * entropy


def focal_term(logits: Tensor, gamma: float) -> Tensor:
    r""":math:`-(1 - p)^\gamma \log p` with :math:`p = \sigma(z)`, elementwise.

    The power is computed from logarithms, so its gradient is finite for every `gamma` and logit.

    Example:
        >>> focal_term(torch.tensor([0.0]), gamma=1.0)  # ln 2 / 2
        tensor([0.3466])
    """
    return -F.logsigmoid(logits) * torch.exp(gamma * F.logsigmoid(-logits))


def _right(logits: Tensor, labels: Tensor) -> Tensor:
    """One minus the error of each label, :math:`1 - |y - p|`."""
    # Without a difference of two numbers near 1.
    return torch.minimum(1 - labels + logits.sigmoid(), labels + (-logits).sigmoid())


def _labels(target: Tensor, like: Tensor) -> Tensor:
    """Labels with one channel per logit, from any form of target."""
    return (target[:, None] if target.dim() == 3 else target).to(like.dtype)


def _check_pos_weight(weight: float | list[float], num_classes: int) -> Tensor:
    numbers = weight if isinstance(weight, list) else [weight] * num_classes
    if len(numbers) != num_classes:
        raise ConfigError(f"pos_weight has {len(numbers)} values, but num_classes is {num_classes}")
    if not all(0 < number < math.inf for number in numbers):
        raise ConfigError(f"pos_weight must be finite and above 0, got {weight}")
    return torch.tensor(numbers, dtype=torch.float32)
