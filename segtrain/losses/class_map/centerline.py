"""Losses of connectivity: the centre lines of the shapes of a class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from segtrain.losses.base import safe_ratio
from segtrain.losses.families.class_map import ClassMapLoss
from segtrain.losses.registry import register_loss
from segtrain.schema.arguments import check_at_least_one, check_not_negative

Pick = Callable[..., Tensor]
Index = tuple[slice, ...]


@register_loss("cldice")
class CenterlineDice(ClassMapLoss):
    r"""One minus the soft centre line Dice of each class's map, averaged over classes.

    .. math:: L = 1 - \frac{1}{|K|} \sum_{c \in K} \frac{2\, T_c^p\, T_c^s}{T_c^p + T_c^s}, \qquad
              T^p = \frac{\sum_i S(p)_i\, y_i + s}{\sum_i S(p)_i + s}, \quad
              T^s = \frac{\sum_i S(y)_i\, p_i + s}{\sum_i S(y)_i + s}

    :math:`T^p` is the share of the prediction's centre line that lies in the target, :math:`T^s`
    the share of the target's centre line that lies in the prediction. A gap in a thin vessel or
    lane marking therefore costs as much as a gap in a wide one. The soft skeleton :math:`S`
    collects the pixels that an opening removes from a map that is eroded repeatedly:

    .. math:: S \leftarrow S + (1 - S)\, \max(0,\; e - \text{dilate}(\text{erode}(e))), \qquad
              e \leftarrow \text{erode}(e)

    with the minimum over the five pixels of a cross as erosion and the maximum over the nine pixels
    of a square as dilation.

    Args:
        iterations: Number of erosions, at least 1. Shapes with a larger radius in pixels get no
            centre line; more iterations than the largest radius only cost time.
        smooth: :math:`s \ge 0`, in pixels; it softens the loss of short centre lines. A class
            without a centre line, if ``classes`` includes it, should be predicted nowhere.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``activation``, ``classes``,
            ``per_image`` of :class:`ClassMapLoss`.

    Note:
        This is only the centre line term, which does not determine the width of a shape. The paper
        adds it to Dice, as ``configs/loss/dice_cldice.yaml`` does with the loss ``sum``. Set
        ``classes`` to the thin classes: the centre line of a background has no meaning. Ignored
        pixels are background in both skeletons, so a shape ends where they begin. Pixels outside
        the image are neither shape nor background. Two maps per iteration are kept for backward;
        the rest is recomputed.

    Example:
        >>> loss = CenterlineDice(num_classes=1, smooth=0.0)
        >>> line = torch.tensor([[0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]])
        >>> cut = line.index_fill(1, torch.tensor([2]), 0)  # all of it is right, 4/5 are found
        >>> loss(200.0 * cut[None, None] - 100, line[None])  # 1 - 2 * 0.8 / 1.8
        tensor(0.1111)

    References:
        Shit et al., clDice: a Novel Topology-Preserving Loss Function for Tubular Structure
        Segmentation, CVPR 2021, algorithms 1 and 2, without the Dice term. The shapes of erosion
        and dilation are those of the authors' code, as is :math:`s = 1`. The code adds up all
        classes before the ratio; here each class has its own.
    """

    def __init__(self, *, iterations: int = 10, smooth: float = 1.0, **common: Any) -> None:
        super().__init__(**common)
        self.iterations = check_at_least_one("iterations", iterations)
        self.smooth = check_not_negative("smooth", smooth)

    def class_map_loss(self, probability: Tensor, positive: Tensor, valid: Tensor) -> Tensor:  # noqa: ARG002
        actual = positive.to(probability.dtype)
        precision = self._share_inside(soft_skeleton(probability, self.iterations), actual)
        with torch.no_grad():
            skeleton = soft_skeleton(actual, self.iterations)
        sensitivity = self._share_inside(skeleton, probability)
        return 1 - safe_ratio(2 * precision * sensitivity, precision + sensitivity)

    def _share_inside(self, skeleton: Tensor, shape: Tensor) -> Tensor:
        inside, length = (skeleton * shape).sum(), skeleton.sum()
        return safe_ratio(inside + self.smooth, length + self.smooth, empty=1.0)


def soft_skeleton(maps: Tensor, iterations: int) -> Tensor:
    """Soft skeleton of maps, with a graph.

    Args:
        maps: ``(N, H, W)``, float in [0, 1].
        iterations: Number of erosions.

    Example:
        >>> cross = torch.tensor([[0.0, 1, 0], [1, 1, 1], [0, 1, 0]])
        >>> soft_skeleton(cross[None], 1)
        tensor([[[0., 0., 0.],
                 [0., 1., 0.],
                 [0., 0., 0.]]])
    """
    skeleton = torch.zeros_like(maps)
    # Autograd would keep many maps per step, which can be recomputed from the two inputs.
    has_graph = torch.is_grad_enabled() and maps.requires_grad
    for _ in range(iterations + 1):
        if has_graph:
            skeleton, maps = checkpoint(
                _step, skeleton, maps, use_reentrant=False, preserve_rng_state=False
            )
        else:
            skeleton, maps = _step(skeleton, maps)
    return skeleton


def _step(skeleton: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    eroded = _erode(maps)
    lost = F.relu(maps - _dilate(eroded))
    return skeleton + (1 - skeleton) * lost, eroded


def _erode(maps: Tensor) -> Tensor:
    """Minimum over each pixel and its four direct neighbours."""
    return _neighbours(maps, (1, 2), torch.minimum)


def _dilate(maps: Tensor) -> Tensor:
    """Maximum over each pixel and its eight neighbours."""
    return _neighbours(_neighbours(maps, (1,), torch.maximum), (2,), torch.maximum)


def _neighbours(maps: Tensor, dims: tuple[int, ...], pick: Pick) -> Tensor:
    """Apply `pick` to each entry and its neighbours along `dims`; border entries have fewer."""
    found: Tensor = _Neighbours.apply(maps, dims, pick)
    return found


class _Neighbours(torch.autograd.Function):
    """Finds the picked entries by the result; autograd would store every `pick`."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, dims: tuple[int, ...], pick: Pick) -> Tensor:
        found = maps.clone()
        for here, there in _shifts(dims):
            pick(found[here], maps[there], out=found[here])
        ctx.save_for_backward(maps, found)
        ctx.dims = dims
        return found

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        maps, found = ctx.saved_tensors
        total = _equal(maps, found).mul_(gradient)
        left = gradient - total  # of the pixels whose picked entry is not found yet
        for here, there in _shifts(ctx.dims):
            part = _equal(maps[there], found[here]).mul_(left[here])
            total[there] += part
            left[here] -= part
        return total, None, None


def _shifts(dims: tuple[int, ...]) -> Iterator[tuple[Index, Index]]:
    """Yield the entries with a neighbour, and the neighbours, for both directions of each dim."""
    for dim in dims:
        rest = (slice(None),) * dim
        first, last = (*rest, slice(None, -1)), (*rest, slice(1, None))
        yield first, last
        yield last, first


def _equal(one: Tensor, other: Tensor) -> Tensor:
    """1 where both are equal, else 0, in their dtype, because bools would be converted."""
    return torch.eq(one, other, out=torch.empty_like(one))
