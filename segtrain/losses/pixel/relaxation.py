"""Label relaxation: at a border, any of the classes that meet there is accepted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from segtrain.losses.families.pixel import PixelLoss, check_softmax_channels
from segtrain.losses.registry import register_loss
from segtrain.schema.arguments import check_at_least_one


@register_loss("label_relaxation")
class LabelRelaxation(PixelLoss):
    r"""Cross entropy that accepts any neighbouring class at a border, averaged over valid pixels.

    .. math:: \ell = -\log \sum_{c \in K} p_c, \qquad p = \text{softmax}(z)

    where :math:`K` is the set of target classes in the square of side :math:`2 r + 1` around the
    pixel. Away from borders, :math:`K` is the pixel's own class and the loss is cross entropy.

    Args:
        radius: :math:`r \ge 1`, in pixels of the target. 1, as in the paper, tolerates labels
            that are off by one pixel.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``mining`` of
            :class:`PixelLoss`.

    Note:
        Ignored neighbours and neighbours outside the image add no class, and an ignored pixel stays
        ignored. Class weights and hard-example mining use the pixel's own class.

        The classes around each pixel are computed once per batch and kept until its loss is
        computed. Every pixel stores the largest number of classes that meet anywhere in the batch,
        usually three to five and at most :math:`(2 r + 1)^2`, with one byte each for up to 128
        classes and two bytes above.

        Where all classes meet, the loss is 0 for any prediction, so the number of classes should be
        much larger than the number that meets at a border.

    Example:
        >>> logits = torch.tensor([0.5, 0.25, 0.25]).log().reshape(1, 3, 1, 1).expand(1, 3, 1, 3)
        >>> loss = LabelRelaxation(num_classes=3)
        >>> loss(logits, torch.tensor([[[0, 0, 1]]]))  # (ln 2 + ln 4/3 + ln 4/3) / 3
        tensor(0.4228)

    References:
        Zhu et al., Improving Semantic Segmentation via Video Propagation and Label Relaxation, CVPR
        2019, eq. 3; with any radius in place of 1. The released code weighs a pixel by the mean
        class weight of :math:`K`, and there a neighbour without a class (void) is a class of its
        own, which is accepted, too.
    """

    def __init__(self, *, radius: int = 1, **common: Any) -> None:
        super().__init__(**common)
        check_softmax_channels(self.num_classes)
        self.radius = check_at_least_one("radius", radius)

    def context(self, target: Tensor) -> Tensor:
        """Classes around each pixel, ``(N, K, H, W)``: its own first, then others, then -1."""
        valid = self.valid(target)
        ids = torch.where(valid, target, -1).to(_smallest_dtype(self.num_classes))
        above_and_below: list[Tensor] = [ids]
        for near in _shifted(ids, self.radius, dim=1):
            _add_classes(above_and_below, near)
        around = [ids.clamp(min=0)]
        for column in above_and_below:
            for near in (column, *_shifted(column, self.radius, dim=2)):
                _add_classes(around, near)
        return torch.stack(around, dim=1)

    def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.pixel_loss_in_context(logits, target, self.context(target))

    def mean_pixel_loss(
        self,
        logits: Tensor,
        target: Tensor,
        context: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        # A class alone as target has no neighbours.
        values = -logits.log_softmax(1).mean(1)
        weights = self.class_weight_map(target, values.dtype)
        return values if weights is None else values * weights

    def pixel_loss_in_context(
        self,
        logits: Tensor,
        target: Tensor,  # noqa: ARG002
        context: Tensor,
    ) -> Tensor:
        index = context.long()
        near = logits.log_softmax(1).gather(1, index.clamp(min=0))
        # Rounding may raise a sum over all classes above 1, which would make the loss negative.
        return -near.masked_fill(index < 0, -torch.inf).logsumexp(1).clamp(max=0)


def _shifted(ids: Tensor, radius: int, dim: int) -> Iterator[Tensor]:
    """Yield the `ids` ``(N, H, W)`` of each neighbour along `dim`, with -1 outside the image."""
    sides = (0, 0, radius, radius) if dim == 1 else (radius, radius)
    padded = F.pad(ids, sides, value=-1)
    for start in range(2 * radius + 1):
        if start != radius:
            yield padded.narrow(dim, start, ids.shape[dim])


def _add_classes(found: list[Tensor], near: Tensor) -> None:
    """Add the ids `near` to `found`, at each pixel to the first map that is -1 there.

    Ids that a pixel already has are skipped. A map is appended if any pixel needs it.
    """
    for index, known in enumerate(found):
        free = known < 0
        found[index] = torch.where(free, near, known)
        near = near.masked_fill(free | (near == known), -1)
    if bool((near >= 0).any()):
        found.append(near)


def _smallest_dtype(num_classes: int) -> torch.dtype:
    """Smallest signed integer type that holds every class id and -1."""
    return next(
        dtype
        for dtype in (torch.int8, torch.int16, torch.int32)
        if num_classes - 1 <= torch.iinfo(dtype).max
    )
