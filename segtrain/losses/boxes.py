"""Losses for bounding boxes: one minus the overlap of a predicted and a target box.

They compare boxes ``(M, 4)`` and not logits, so they are plain functions without a registry name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from segtrain.losses.base import at_least_float32
from segtrain.losses.registry import LOSSES

Reduction = Literal["none", "mean", "sum"]

# Pairs are scaled to a square of this side, in which torchvision's epsilon of 1e-7 is negligible.
_SIDE = 1024.0
_THINNEST = 0.01  # side of a box in that square; a side of 0 has no aspect ratio


def box_iou(boxes: Tensor, target: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""One minus the intersection over union of each pair of boxes, averaged over the pairs.

    .. math:: L = 1 - \frac{|A \cap B|}{|A \cup B|}

    Args:
        boxes: ``(M, 4)``, float: left, top, right, bottom of the predicted boxes. Computed in
            float32 or better.
        target: ``(M, 4)``, float or integer: the target of each predicted box.
        reduction: ``mean`` or ``sum`` over the pairs, or ``none`` for one value per pair, ``(M,)``.

    Raises:
        TypeError: When a dtype is wrong.
        ValueError: When a shape is wrong, a box is not finite or its corners are in the wrong
            order, or `reduction` is not one of these.

    Note:
        Boxes that do not overlap have a zero gradient; the other three losses move them towards
        each other. The mean over no pairs is 0, with a graph.

    Example:
        >>> boxes, target = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 1, 3, 3]])
        >>> box_iou(boxes, target)  # 1 - 1/7
        tensor(0.8571)

    References:
        Yu et al., UnitBox: An Advanced Object Detection Network, ACM MM 2016, which takes
            :math:`-\log` of the ratio in place of one minus it.
    """
    return _reduced(_iou_loss, boxes, target, reduction)


def giou(boxes: Tensor, target: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""One minus the generalized IoU of each pair of boxes, averaged over the pairs.

    .. math:: L = 1 - \text{IoU} + \frac{|H| - |A \cup B|}{|H|}

    with the smallest box :math:`H` around both.

    Args:
        boxes: ``(M, 4)``, as for :func:`box_iou`.
        target: ``(M, 4)``, as for :func:`box_iou`.
        reduction: ``mean``, ``sum`` or ``none``.

    Raises:
        TypeError: As :func:`box_iou`.
        ValueError: As :func:`box_iou`.

    Note:
        The loss does not depend on scale and translation, so boxes may be in pixels or in fractions
        of the image. Sides shorter than 1e-5 of the longer side of :math:`H` count as that long.

    Example:
        >>> boxes, target = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 1, 3, 3]])
        >>> giou(boxes, target)  # 1 - 1/7 + 2/9
        tensor(1.0794)

    References:
        Rezatofighi et al., Generalized Intersection over Union: A Metric and a Loss for Bounding
            Box Regression, CVPR 2019, algorithm 2.
    """
    from torchvision.ops import generalized_box_iou_loss  # noqa: PLC0415  takes long to import

    return _reduced(generalized_box_iou_loss, boxes, target, reduction)


def diou(boxes: Tensor, target: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""One minus the distance IoU of each pair of boxes, averaged over the pairs.

    .. math:: L = 1 - \text{IoU} + \frac{d^2}{c^2}

    with the distance :math:`d` of the centres and the diagonal :math:`c` of the smallest box around
    both.

    Args:
        boxes: ``(M, 4)``, as for :func:`box_iou`.
        target: ``(M, 4)``, as for :func:`box_iou`.
        reduction: ``mean``, ``sum`` or ``none``.

    Raises:
        TypeError: As :func:`box_iou`.
        ValueError: As :func:`box_iou`.

    Note:
        Scale, translation and thin boxes are treated as in :func:`giou`.

    Example:
        >>> boxes, target = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 1, 3, 3]])
        >>> diou(boxes, target)  # 1 - 1/7 + 2/18
        tensor(0.9683)

    References:
        Zheng et al., Distance-IoU Loss: Faster and Better Learning for Bounding Box Regression,
            AAAI 2020, eq. 7.
    """
    from torchvision.ops import distance_box_iou_loss  # noqa: PLC0415  takes long to import

    return _reduced(distance_box_iou_loss, boxes, target, reduction)


def ciou(boxes: Tensor, target: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""One minus the complete IoU of each pair of boxes, averaged over the pairs.

    .. math:: L = 1 - \text{IoU} + \frac{d^2}{c^2} + \alpha v, \qquad
              v = \frac{4}{\pi^2} \Big( \arctan \frac{w_B}{h_B} - \arctan \frac{w_A}{h_A} \Big)^2,
              \qquad \alpha = \frac{v}{1 - \text{IoU} + v}

    with :math:`d` and :math:`c` as in :func:`diou` and no gradient through :math:`\alpha`.

    Args:
        boxes: ``(M, 4)``, as for :func:`box_iou`.
        target: ``(M, 4)``, as for :func:`box_iou`.
        reduction: ``mean``, ``sum`` or ``none``.

    Raises:
        TypeError: As :func:`box_iou`.
        ValueError: As :func:`box_iou`.

    Note:
        Scale, translation and thin boxes are treated as in :func:`giou`.

    Example:
        >>> boxes, target = torch.tensor([[0.0, 0, 4, 2]]), torch.tensor([[0.0, 0, 2, 2]])
        >>> ciou(boxes, target)  # 1 - 1/2 + 1/20 + alpha v, v = 0.0420, alpha = 0.0774
        tensor(0.5532)

    References:
        Zheng et al., Distance-IoU Loss: Faster and Better Learning for Bounding Box Regression,
            AAAI 2020, eq. 10; with the true gradient of :math:`v`, whose scale the paper changes.
    """
    from torchvision.ops import complete_box_iou_loss  # noqa: PLC0415  takes long to import

    return _reduced(complete_box_iou_loss, boxes, target, reduction)


for _name in ("box_iou", "giou", "diou", "ciou"):
    LOSSES.explain(
        _name,
        f"{_name} compares boxes (M, 4), and masks have none: call"
        f" segtrain.losses.{_name}(boxes, target); for masks use jaccard",
    )


def _iou_loss(boxes: Tensor, target: Tensor) -> Tensor:
    inner = torch.minimum(boxes[:, 2:], target[:, 2:]) - torch.maximum(boxes[:, :2], target[:, :2])
    intersection = inner.clamp(min=0).prod(1)
    areas = [(item[:, 2:] - item[:, :2]).prod(1) for item in (boxes, target)]
    return 1 - intersection / (areas[0] + areas[1] - intersection)


def _reduced(
    loss: Callable[[Tensor, Tensor], Tensor], boxes: Tensor, target: Tensor, reduction: Reduction
) -> Tensor:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction must be none, mean or sum, got {reduction!r}")
    if not boxes.is_floating_point():
        raise TypeError(f"boxes must be a floating point tensor, got {boxes.dtype}")
    if target.is_complex() or target.dtype == torch.bool:
        raise TypeError(f"target must hold numbers, got {target.dtype}")
    _check_shape("boxes", boxes, None)
    _check_shape("target", target, len(boxes))
    _check_order("boxes", boxes)
    _check_order("target", target)
    with torch.autocast(boxes.device.type, enabled=False):
        boxes = at_least_float32(boxes)
        values = loss(*_in_frame(boxes, target.to(boxes.dtype)))
        if reduction == "none":
            return values
        return values.sum() / (max(len(values), 1) if reduction == "mean" else 1)


def _in_frame(boxes: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Move and scale each pair into the square ``[0, 1024]``, which leaves the losses unchanged.

    The constants in torchvision's denominators are then negligible for small boxes too, such as
    those in fractions of the image, and a box without a width gets an aspect ratio.
    """
    corner = torch.minimum(boxes[:, :2], target[:, :2]).detach()
    extent = (torch.maximum(boxes[:, 2:], target[:, 2:]).detach() - corner).amax(1, keepdim=True)
    scale = _SIDE / torch.where(extent > 0, extent, _SIDE)
    return _place(boxes, corner, scale), _place(target, corner, scale)


def _place(boxes: Tensor, corner: Tensor, scale: Tensor) -> Tensor:
    low, high = (boxes[:, :2] - corner) * scale, (boxes[:, 2:] - corner) * scale
    # A constant, so that the gradient can still widen a box.
    lacking = (_THINNEST - (high - low)).clamp(min=0).detach()
    return torch.cat([low, high + lacking], dim=1)


def _check_shape(name: str, boxes: Tensor, count: int | None) -> None:
    if boxes.dim() != 2 or boxes.shape[1] != 4 or count not in (None, len(boxes)):
        wanted = "(M, 4)," if count is None else f"({count}, 4), one row per box,"
        raise ValueError(f"{name} must be {wanted} got {tuple(boxes.shape)}")


def _check_order(name: str, boxes: Tensor) -> None:
    # On another device, reading values would synchronise it.
    if boxes.device.type != "cpu" or not len(boxes):
        return
    wrong = ~(boxes.isfinite().all(1) & (boxes[:, 2:] >= boxes[:, :2]).all(1))
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"{name} must be finite with x1 <= x2 and y1 <= y2, got {boxes[row].tolist()} in row"
            f" {row}"
        )
