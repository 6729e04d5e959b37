"""Label relaxation: at a border any of the classes that meet there will do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from segtrain.errors import ConfigError
from segtrain.losses.families.pixel import PixelLoss, check_softmax_channels
from segtrain.losses.registry import register_loss


@register_loss("label_relaxation")
class LabelRelaxation(PixelLoss):
    r"""Cross entropy that lets a pixel near a border be any class there, averaged over pixels.

    .. math:: \ell = -\log \sum_{c \in K} p_c, \qquad p = \text{softmax}(z)

    where :math:`K` are the classes of the target within the square of :math:`2 r + 1` pixels a side
    around the pixel. Away from borders :math:`K` is the pixel's own class, and the loss is cross
    entropy.

    Args:
        radius: :math:`r \ge 1`, in pixels of the target. 1, as in the paper, forgives labels that
            are off by a pixel.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``mining`` of
            :class:`PixelLoss`.

    Note:
        Ignored neighbours and those outside the image add no class; an ignored pixel stays ignored
        whatever is around it. A pixel's class weight is that of its own class, and so is the
        probability by which a mining takes it for hard.

        The classes around each pixel are found once for a batch and kept while it lasts, as small
        integers: for every pixel as many of them as classes meet anywhere in the batch, at most
        :math:`(2 r + 1)^2`, of one byte for up to 128 classes and two above. Three to five are
        usual.

        Where all classes meet, the loss is 0 whatever is predicted; use it where the classes are
        many more than meet at a border.

    Example:
        >>> logits = torch.tensor([0.5, 0.25, 0.25]).log().reshape(1, 3, 1, 1).expand(1, 3, 1, 3)
        >>> loss = LabelRelaxation(num_classes=3)
        >>> loss(logits, torch.tensor([[[0, 0, 1]]]))  # (ln 2 + ln 4/3 + ln 4/3) / 3
        tensor(0.4228)

    References:
        Zhu et al., Improving Semantic Segmentation via Video Propagation and Label Relaxation, CVPR
        2019, eq. 3; with any radius in place of 1. The released code weighs a pixel by the mean
        class weight of :math:`K`.
    """

    def __init__(self, *, radius: int = 1, **common: Any) -> None:
        super().__init__(**common)
        check_softmax_channels(self.num_classes)
        if radius < 1:
            raise ConfigError(f"radius must be at least 1, got {radius}")
        self.radius = radius

    def context(self, target: Tensor) -> Tensor:
        """The classes around each pixel, ``(N, K, H, W)``, its own first, and -1 for no more."""
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

    def pixel_loss_in_context(
        self,
        logits: Tensor,
        target: Tensor,  # noqa: ARG002
        context: Tensor,
    ) -> Tensor:
        index = context.long()
        near = logits.log_softmax(1).gather(1, index.clamp(min=0))
        # Rounding may lift a sum over all classes above 1, but no loss is below 0.
        return -near.masked_fill(index < 0, -torch.inf).logsumexp(1).clamp(max=0)


def _shifted(ids: Tensor, radius: int, dim: int) -> Iterator[Tensor]:
    """`ids` ``(N, H, W)`` of the neighbours along `dim` on both sides, -1 outside the image."""
    sides = (0, 0, radius, radius) if dim == 1 else (radius, radius)
    padded = F.pad(ids, sides, value=-1)
    for start in range(2 * radius + 1):
        if start != radius:
            yield padded.narrow(dim, start, ids.shape[dim])


def _add_classes(found: list[Tensor], near: Tensor) -> None:
    """Take the ids of `near` into `found`, at each pixel into the first map that is -1 there.

    An id that a pixel has already is left out, and a map is added when some pixel needs it.
    """
    for index, known in enumerate(found):
        free = known < 0
        found[index] = torch.where(free, near, known)
        near = near.masked_fill(free | (near == known), -1)
    if bool((near >= 0).any()):
        found.append(near)


def _smallest_dtype(num_classes: int) -> torch.dtype:
    """A signed integer that holds every class id, and -1."""
    return next(
        dtype
        for dtype in (torch.int8, torch.int16, torch.int32)
        if num_classes - 1 <= torch.iinfo(dtype).max
    )
