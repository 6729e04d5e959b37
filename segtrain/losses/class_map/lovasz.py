"""The Lovász losses: the Jaccard loss of a set of mistakes, extended to errors of any size."""

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
    r"""The Lovász extension of the Jaccard loss at each class's errors, averaged over classes.

    .. math:: L = \frac{1}{|K|} \sum_{c \in K} \sum_k m_{\pi_k} \big( J(\pi_1, \dots, \pi_k)
              - J(\pi_1, \dots, \pi_{k-1}) \big), \qquad m_i = |y_{ic} - p_{ic}|

    where :math:`\pi` puts the errors :math:`m` of the valid pixels in falling order, and
    :math:`J(M) = |M|\, /\, |\{y = c\} \cup M|` is one minus the intersection over union when the
    pixels :math:`M` are the mistakes.

    Args:
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``activation``, ``classes``,
            ``per_image`` of :class:`ClassMapLoss`.

    Note:
        Exact: all errors are ranked, and none are put into bins. Of equal errors any order is
        right; the value does not depend on it, and the gradient is one of the subgradients. A class
        without a target pixel, if ``classes`` has it count, costs its largest error. Ignored pixels
        are left out of the ranking. A batch is not the mean of its images, except with
        ``per_image`` and pixels ignored in none.

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
    r"""The Lovász extension of the Jaccard loss at each class's hinge errors, mean over classes.

    .. math:: L = \frac{1}{|K|} \sum_{c \in K} \sum_k m_{\pi_k} \big( J(\pi_1, \dots, \pi_k)
              - J(\pi_1, \dots, \pi_{k-1}) \big), \qquad
              m_i = \max(0,\; 1 - z_{ic}\, s_{ic})

    with the sign :math:`s_{ic} = 1` where pixel :math:`i` is of class :math:`c` and -1 elsewhere;
    :math:`\pi` and :math:`J` as in :class:`LovaszSoftmax`.

    Args:
        num_classes: Number of channels of the logits. One channel is the binary case of the paper;
            with more, each class is told from the rest by its own logit.
        ignore_label: Target value of the pixels that do not count.
        class_weights: One non-negative number per class, or a file that holds them: the mean over
            classes becomes the weighted mean.
        classes: Over which classes the mean goes: ``present`` (those with a valid target pixel),
            ``all``, or a list of ids.
        per_image: One value per image and class instead of one per class over the batch.

    Note:
        A pixel beyond its margin, :math:`z s \ge 1`, has no error and no gradient. Errors grow with
        the logits, so the value has no upper bound. A class without a target pixel, if ``classes``
        has it count, costs its largest error. Ignored pixels are left out of the ranking.

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
        short = (probability - 1).clamp(max=0)  # of the margin of 1, where the logit must be large
        over = (probability + 1).clamp(min=0)
        return lovasz_extension(torch.where(positive, short, over * valid), positive, valid)


def lovasz_extension(residual: Tensor, positive: Tensor, valid: Tensor) -> Tensor:
    r"""The Lovász extension ``()`` of the Jaccard loss, as a function of the errors.

    Args:
        residual: By how much each pixel is above what it should be: minus its error at a positive
            pixel, its error elsewhere, and 0 where it does not count. Float32 or float64.
        positive: Bool, of the same shape: the pixels of the class.
        valid: Bool, of the same shape: the pixels that count.

    Example:
        >>> positive, valid = torch.tensor([True, False]), torch.tensor([True, True])
        >>> lovasz_extension(torch.tensor([-0.5, 0.25]), positive, valid)  # J is 1 with the first
        tensor(0.5000)
    """
    value: Tensor = _LovaszExtension.apply(residual, positive, valid)
    return value


class _LovaszExtension(torch.autograd.Function):
    """The gradient is what the value is made of, so it is kept and nothing else is."""

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
    r"""By how much each pixel raises the Jaccard loss when it joins the mistakes, largest first.

    With U the union of the positives and the mistakes before it, and I the positives not yet
    mistaken, a positive adds 1/U and any other pixel I/U - I/(U + 1). These are ratios of whole
    numbers, where differences of neighbouring losses would cancel. At a positive the slope is
    negative, as its error falls when the residual rises.
    """
    keys, order = _keys(residual, positive, valid).sort()
    found = keys.bitwise_and_(1)
    # From the smallest error to the largest: what is behind a pixel has not been mistaken yet.
    left = found.cumsum(0, dtype=torch.int32)
    union = torch.arange(len(order) - 1, -1, -1, dtype=torch.int32, device=left.device).add_(left)
    union[-1:].clamp_(min=1)
    slopes = left.to(residual.dtype).div_(union.to(residual.dtype).add_(1))
    slopes.masked_fill_(found.bool(), -1)
    # Where there is no positive the largest error starts the union, and is the whole loss.
    slopes[-1:] += left[-1:] == 0
    slopes.div_(union)
    return torch.empty_like(slopes).scatter_(0, order, slopes).view_as(residual)


def _keys(residual: Tensor, positive: Tensor, valid: Tensor) -> Tensor:
    """Whole numbers ``(P,)`` in the order of the errors, odd at the positives.

    Floats that are not negative are ordered like the whole numbers that their bits spell, and torch
    sorts those by radix: on a CPU several times faster than floats. The lowest bit says which are
    positive, so errors a rounding apart count as equal; pixels that do not count come first.
    """
    whole = torch.int64 if residual.dtype == torch.float64 else torch.int32
    kind = valid.to(torch.int8).mul_(2).add_(positive)
    return residual.abs().view(whole).bitwise_and_(-2).add_(kind).flatten()
