"""Lovász losses: the Jaccard loss of a set of wrong pixels, extended to errors of any size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from segtrain.losses.class_weights import ClassWeights
from segtrain.losses.families.class_map import ClassMapLoss
from segtrain.losses.families.class_mean import Classes
from segtrain.losses.registry import register_loss


@register_loss("lovasz_softmax")
class LovaszSoftmax(ClassMapLoss):
    r"""Lovász extension of the Jaccard loss at the errors of each class, averaged over classes.

    .. math:: L = \frac{1}{|K|} \sum_{c \in K} \sum_k m_{\pi_k} \big( J(\pi_1, \dots, \pi_k)
              - J(\pi_1, \dots, \pi_{k-1}) \big), \qquad m_i = |y_{ic} - p_{ic}|

    where :math:`\pi` sorts the errors :math:`m` of the valid pixels in descending order, and
    :math:`J(M) = |M|\, /\, |\{y = c\} \cup M|` is one minus the intersection over union if the
    pixels :math:`M` are wrong.

    Args:
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``activation``, ``classes``,
            ``per_image`` of :class:`ClassMapLoss`.

    Note:
        The loss is exact: all errors are sorted, without bins. The value does not depend on the
        order of equal errors, and the gradient is one of the subgradients. The loss of a class
        without a target pixel, if ``classes`` includes it, is its largest error. Ignored pixels are
        not sorted. The loss of a batch is not the mean over its images, except with ``per_image``
        and without ignored pixels.

    Example:
        >>> loss = LovaszSoftmax(num_classes=2)
        >>> # errors 1/2 at both pixels, of which each class has one: 1/2 J(both) = 1/2
        >>> loss(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]))
        tensor(0.5000)

    References:
        Berman, Rannen Triki and Blaschko, The Lovász-Softmax Loss, CVPR 2018, eq. 11 and
        algorithm 1. The mean over the classes present is the default of the authors' code. The
        increments of J are written out here and not taken as differences of neighbours, which
        cancel when there are many pixels.
    """

    def class_map_loss(self, probability: Tensor, positive: Tensor, valid: Tensor) -> Tensor:
        return lovasz_extension(probability - positive.to(probability.dtype), positive, valid)


@register_loss("lovasz_hinge")
class LovaszHinge(ClassMapLoss):
    r"""Lovász extension of the Jaccard loss at the hinge errors of each class, mean over classes.

    .. math:: L = \frac{1}{|K|} \sum_{c \in K} \sum_k m_{\pi_k} \big( J(\pi_1, \dots, \pi_k)
              - J(\pi_1, \dots, \pi_{k-1}) \big), \qquad
              m_i = \max(0,\; 1 - z_{ic}\, s_{ic})

    with the sign :math:`s_{ic} = 1` where pixel :math:`i` is of class :math:`c` and -1 elsewhere;
    :math:`\pi` and :math:`J` as in :class:`LovaszSoftmax`.

    Args:
        num_classes: Number of channels of the logits. One channel is the binary case of the paper;
            with more, the logit of each class separates it from the rest.
        ignore_label: Target value of ignored pixels.
        class_weights: One non-negative number per class, or a file that holds them: the mean over
            classes becomes the weighted mean.
        classes: The classes of the mean: ``present`` (those with a valid target pixel), ``all``, or
            a list of ids.
        per_image: One value per image and class instead of one per class over the batch.

    Note:
        A pixel beyond its margin, :math:`z s \ge 1`, has no error and no gradient. Errors grow with
        the logits, so the value has no upper bound. The loss of a class without a target pixel, if
        ``classes`` includes it, is its largest error. Ignored pixels are not sorted.

    Example:
        >>> loss = LovaszHinge(num_classes=1)
        >>> logits = torch.tensor([0.5, 1.0, -3.0]).reshape(1, 1, 1, 3)
        >>> # errors 1/2, 2, 0; J is 1/2 with the second pixel and 1 with the first two
        >>> loss(logits, torch.tensor([[[1, 0, 0]]]))
        tensor(1.2500)

    References:
        Berman, Rannen Triki and Blaschko, The Lovász-Softmax Loss, CVPR 2018, the loss for
        foreground and background of section 3; Yu and Blaschko, The Lovász Hinge, TPAMI 2018. The
        authors' code takes one channel and averages over images, which is ``per_image`` here.
    """

    reads_logits = True

    def __init__(
        self,
        *,
        num_classes: int,
        ignore_label: int = 255,
        class_weights: ClassWeights = None,
        classes: Classes = "present",
        per_image: bool = False,
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            ignore_label=ignore_label,
            class_weights=class_weights,
            classes=classes,
            per_image=per_image,
        )

    def class_map_loss(self, probability: Tensor, positive: Tensor, valid: Tensor) -> Tensor:
        short = (probability - 1).clamp(max=0)  # below the margin of a positive pixel
        over = (probability + 1).clamp(min=0)  # above that of a negative pixel
        return lovasz_extension(torch.where(positive, short, over * valid), positive, valid)


def lovasz_extension(residual: Tensor, positive: Tensor, valid: Tensor) -> Tensor:
    r"""Lovász extension ``()`` of the Jaccard loss, as a function of the errors.

    Args:
        residual: Prediction minus target, float32 or float64: minus the error at positive pixels,
            the error at negative pixels, and 0 at ignored pixels.
        positive: Bool, of the same shape: the pixels of the class.
        valid: Bool, of the same shape: the pixels that are not ignored.

    Example:
        >>> positive, valid = torch.tensor([True, False]), torch.tensor([True, True])
        >>> lovasz_extension(torch.tensor([-0.5, 0.25]), positive, valid)  # J is 1 with the first
        tensor(0.5000)
    """
    value: Tensor = _LovaszExtension.apply(residual, positive, valid)
    return value


class _LovaszExtension(torch.autograd.Function):
    """Computes the gradient in forward, because the value is made of it, and keeps only that."""

    @staticmethod
    def forward(ctx: Any, residual: Tensor, positive: Tensor, valid: Tensor) -> Tensor:
        slopes = _slopes(residual, positive, valid)
        ctx.save_for_backward(slopes)
        return (residual * slopes).sum()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (slopes,) = ctx.saved_tensors
        return slopes * upstream, None, None


def _slopes(residual: Tensor, positive: Tensor, valid: Tensor) -> Tensor:
    r"""Increase of the Jaccard loss as each pixel becomes wrong, in descending order of errors.

    Let U be the size of the union of the positives and the pixels that are wrong already, and I the
    number of positives that are still right. A positive adds 1/U and a negative adds
    I/U - I/(U + 1). These ratios of integers avoid differences of neighbouring losses, which would
    cancel. The slope of a positive is negative, because its error falls as the residual rises.
    """
    keys, order = _keys(residual, positive, valid).sort()
    found = keys.bitwise_and_(1)
    # In ascending order of errors, the pixels up to each one are still right at its turn.
    left = found.cumsum(0, dtype=torch.int32)
    union = torch.arange(len(order) - 1, -1, -1, dtype=torch.int32, device=left.device).add_(left)
    union[-1:].clamp_(min=1)
    slopes = left.to(residual.dtype).div_(union.to(residual.dtype).add_(1))
    slopes.masked_fill_(found.bool(), -1)
    # Without a positive, the largest error is the whole loss.
    slopes[-1:] += left[-1:] == 0
    slopes.div_(union)
    return torch.empty_like(slopes).scatter_(0, order, slopes).view_as(residual)


def _keys(residual: Tensor, positive: Tensor, valid: Tensor) -> Tensor:
    """Integers ``(P,)`` in the order of the errors, odd at positives.

    Non-negative floats have the order of the integers with the same bits. torch sorts integers by
    radix, which is several times faster on a CPU. The lowest bit marks the positives, so errors
    that differ by one rounding count as equal. Ignored pixels come first.
    """
    whole = torch.int64 if residual.dtype == torch.float64 else torch.int32
    kind = valid.to(torch.int8).mul_(2).add_(positive)
    return residual.abs().view(whole).bitwise_and_(-2).add_(kind).flatten()
