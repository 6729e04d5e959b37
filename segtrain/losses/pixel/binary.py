"""The sigmoid losses of a pixel: every class is a yes-or-no question of its own."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from segtrain.errors import ConfigError
from segtrain.losses.arguments import check_not_negative
from segtrain.losses.base import Dense
from segtrain.losses.families.pixel import PixelLoss
from segtrain.losses.registry import register_loss


class SigmoidLoss(PixelLoss):
    """A pixel loss that asks of each class whether it is there, averaged over classes and pixels.

    A subclass writes :meth:`positive` and :meth:`negative`. The target is class ids, which answer
    yes for one class and no for the rest; or multi-hot, ``(N, C, H, W)``, where several classes or
    none may be there; or 0 and 1 for a single channel.

    Minings tell hard pixels by the worst answer, see :meth:`target_probability`.
    """

    dense: ClassVar[Dense | None] = "multi_hot"

    @property
    def is_multi_label(self) -> bool:
        return True

    @property
    def multi_label(self) -> bool:
        # Answers between yes and no, too, are one per class and share nothing out among them.
        return True

    @abstractmethod
    def positive(self, logits: Tensor) -> Tensor:
        """The loss of each logit whose answer should be yes, of any shape."""

    @abstractmethod
    def negative(self, logits: Tensor) -> Tensor:
        """The loss of each logit whose answer should be no, of any shape; not a view."""

    def weigh_positive(self, values: Tensor, index: Tensor | None) -> Tensor:  # noqa: ARG002
        """What :meth:`positive` gave for the classes `index` ``(N, 1, R, W)``, or for all."""
        return values

    def dense_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of each logit, ``(N, C, R, W)``, for answers in [0, 1] of the same shape."""
        positive = self.weigh_positive(self.positive(logits), None)
        return target * positive + (1 - target) * self.negative(logits)

    def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        if self._names_one_class(target):
            # The loss of a no everywhere, with that of the yes written over it: no one-hot target,
            # and no difference of large numbers.
            index = target[:, None]
            of_target = self.weigh_positive(self.positive(logits.gather(1, index)), index)
            return self.negative(logits).scatter_(1, index, of_target).mean(1)
        return self.dense_loss(logits, _answers(target, logits)).mean(1)

    def target_probability(self, logits: Tensor, target: Tensor) -> Tensor:
        r"""How well the worst of a pixel's questions is answered, :math:`\min_c 1 - |y_c - p_c|`.

        With many classes nearly all answers are an easy no, and their mean would call a pixel easy
        whose class is missed. ``1 -`` this is the largest gradient norm among the logits.
        """
        if self._names_one_class(target):
            index = target[:, None]
            worst = logits.scatter(1, index, -logits.gather(1, index)).amax(1)
            return (-worst).sigmoid()
        answers = _answers(target, logits)
        # 1 - |y - p| without a difference of two numbers near 1
        right = torch.minimum(1 - answers + logits.sigmoid(), answers + (-logits).sigmoid())
        return right.amin(1)

    def _names_one_class(self, target: Tensor) -> bool:
        return target.dim() == 3 and self.num_classes > 1


@register_loss("bce")
class BinaryCrossEntropy(SigmoidLoss):
    r"""Binary cross entropy of each class against the rest, averaged over classes and pixels.

    .. math:: \ell = -\frac{1}{C} \sum_c \big[ w_c\, y_c \log p_c + (1 - y_c) \log (1 - p_c) \big],
              \qquad p = \sigma(z)

    Args:
        pos_weight: :math:`w_c > 0`, one number or one per class; above 1 it costs more to miss a
            class than to see one that is not there. A class of which the share :math:`f` of the
            pixels is positive is balanced by :math:`(1 - f) / f`.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``mining`` of
            :class:`PixelLoss`.

    Note:
        The target is class ids (:math:`y` is 1 for one class, 0 for the others), multi-hot
        ``(N, C, H, W)``, or 0 and 1 for one channel (``num_classes=1``). Values and gradients are
        those of :func:`torch.nn.functional.binary_cross_entropy_with_logits` for each of them;
        one-hot targets are never made. The mean over a batch is the mean over its parts, weighted
        by their valid pixels.

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
    r"""Binary cross entropy with well-answered questions weighted down, averaged over all of them.

    .. math:: \ell = -\frac{1}{C} \sum_c \alpha_{tc} (1 - p_{tc})^\gamma \log p_{tc}

    with :math:`p_{tc} = \sigma(z_c)`, :math:`\alpha_{tc} = \alpha` for the classes that are there
    and :math:`p_{tc} = 1 - \sigma(z_c)`, :math:`\alpha_{tc} = 1 - \alpha` for the others.

    Args:
        gamma: :math:`\gamma \ge 0`; 0 is binary cross entropy, and 2 is the paper's choice.
        alpha: :math:`\alpha` in [0, 1], or null for no weights at all. 0.25 is the paper's choice
            for :math:`\gamma = 2`: the rare positives are the harder ones, and get their weight
            from :math:`\gamma` already.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``mining`` of
            :class:`PixelLoss`.

    Note:
        Targets as for ``bce``. Equal to :func:`torchvision.ops.sigmoid_focal_loss` with
        ``reduction="mean"`` for targets of 0 and 1; between them, the loss here is the mean of
        both answers by the target. A batch is the mean of its parts, weighted by valid pixels.

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
    r"""Focal loss for answers between yes and no, averaged over classes and pixels.

    .. math:: \ell = -\frac{1}{C} \sum_c |y_c - p_c|^\beta \big[ y_c \log p_c
              + (1 - y_c) \log (1 - p_c) \big], \qquad p = \sigma(z)

    Args:
        beta: :math:`\beta \ge 0`; 0 is binary cross entropy, and 2 is the paper's choice. Below 1
            the slope at :math:`p = y` is infinite and is taken as 0 there.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``mining`` of
            :class:`PixelLoss`.

    Note:
        A dense target ``(N, C, H, W)`` holds :math:`y` in [0, 1]: how sure or how good a label is,
        a share of annotators, a distance to the border. The loss is 0 where :math:`p = y`. Class
        ids, multi-hot targets, and 0 and 1 for one channel are answers of 0 and 1, for which it
        is ``sigmoid_focal`` with ``alpha=null``. With class weights a pixel weighs
        :math:`\sum_c w_c y_c / \sum_c y_c`, what its answers weigh on average, and one whose
        answers are all no what all classes do. A batch is the mean of its parts, weighted by valid
        pixels.

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
        # y - p with no difference of two numbers near 1; the floor keeps the slope of x**beta
        # finite at 0 for beta < 1.
        distance = target * (-logits).sigmoid() - (1 - target) * logits.sigmoid()
        scale = distance.abs().clamp(min=torch.finfo(distance.dtype).tiny) ** self.beta
        entropy = -target * F.logsigmoid(logits) - (1 - target) * F.logsigmoid(-logits)
        return scale * entropy


def focal_term(logits: Tensor, gamma: float) -> Tensor:
    r""":math:`-(1 - p)^\gamma \log p` with :math:`p = \sigma(z)`, elementwise.

    The power is taken in logarithms, so that its slope is finite for every `gamma` and logit.

    Example:
        >>> focal_term(torch.tensor([0.0]), gamma=1.0)  # ln 2 / 2
        tensor([0.3466])
    """
    return -F.logsigmoid(logits) * torch.exp(gamma * F.logsigmoid(-logits))


def _answers(target: Tensor, like: Tensor) -> Tensor:
    """The target with a channel for each logit, whatever its form."""
    return (target[:, None] if target.dim() == 3 else target).to(like.dtype)


def _check_pos_weight(weight: float | list[float], num_classes: int) -> Tensor:
    numbers = weight if isinstance(weight, list) else [weight] * num_classes
    if len(numbers) != num_classes:
        raise ConfigError(f"pos_weight has {len(numbers)} values, but num_classes is {num_classes}")
    if not all(0 < number < math.inf for number in numbers):
        raise ConfigError(f"pos_weight must be finite and above 0, got {weight}")
    return torch.tensor(numbers, dtype=torch.float32)
