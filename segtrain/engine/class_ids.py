"""The class of each pixel from logits of a lower resolution, which are never upsampled as a whole.

Bilinear values lie between the values at the four corners of a cell of the logits. A class that is
the largest at all four corners is therefore the largest in the whole cell, which needs no
upsampling. In the other cells, a class can win only if its largest corner reaches the smallest
corner of every other class; these candidates are few where logits are smooth, and only they are
upsampled. Where most cells are undecided, as with random logits, all classes are upsampled in
strips of rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from segtrain.criterion.strips.axis import Axis, linear_axis
from segtrain.criterion.strips.upsampling import Upsampling
from segtrain.metrics.thresholds import limits_of

_VALUES = 1 << 20  # upsampled values that exist at a time: 4 MB
_CANDIDATES = (2, 3, 4, 6, 8)  # cells are upsampled in groups with at most that many candidates
_MOST_UNDECIDED = 0.5  # above this share of the cells, strips are faster


def predict_ids(
    logits: Tensor,
    size: tuple[int, int],
    align_corners: bool,
    *,
    multi_label: bool = False,
    thresholds: Sequence[float] | None = None,
    part: Axis | None = None,
) -> Tensor:
    """Predict the class of each pixel at `size`; logits are upsampled before they are compared.

    A single logit stands for the probability of class 1, which is compared with its threshold.
    With `multi_label` every logit is.

    Args:
        logits: The logits, of any resolution.
        size: Height and width of the result.
        align_corners: How logits are upsampled.
        multi_label: Whether a pixel may have several classes or none.
        thresholds: One probability per logit; None: one half. They have no effect on several
            exclusive classes.
        part: Some rows of the result, for logits that hold only the source rows that these lie
            between; None: all rows.

    Shape:
        - logits: ``(N, C, h, w)``.
        - output: ``(N, H, W)``, int64; with `multi_label` ``(N, C, H, W)``, uint8, 0 or 1. With
          `part` H is the number of these rows.

    Example:
        >>> predict_ids(torch.tensor([[[[0.0, 3.0]], [[1.0, 0.0]]]]), (1, 4), False)
        tensor([[[1, 0, 0, 0]]])
    """
    num_images, num_classes = logits.shape[:2]
    rows = linear_axis(logits.shape[2], size[0], align_corners) if part is None else part
    shape = (len(rows.low), size[1])
    if not multi_label and num_classes > 1:
        ids = logits.new_empty(num_images, *shape, dtype=torch.int64)
        columns = linear_axis(logits.shape[3], size[1], align_corners)
        strips = partial(strips_of, size=size, align_corners=align_corners, part=part)
        for image, found in zip(logits.float(), ids, strict=True):
            _write_largest(image, rows.to(image), columns.to(image), strips, found)
        return ids
    limits = limits_of(thresholds or [0.5] * num_classes).to(logits.device)[:, None, None]
    labels = logits.new_empty(num_images, num_classes, *shape, dtype=torch.uint8)
    for strip_rows, strip in strips_of(logits, size, align_corners, part):
        labels[:, :, strip_rows] = strip > limits
    return labels if multi_label else labels[:, 0].long()


def strips_of(
    logits: Tensor, size: tuple[int, int], align_corners: bool, part: Axis | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """Upsample logits in float32, in strips of rows from the top.

    Args:
        logits: ``(N, C, h, w)``.
        size: Height and width of the result.
        align_corners: Whether the corners are aligned.
        part: Some rows of the result, as for :func:`predict_ids`.

    Yields:
        The rows, and their logits ``(N, C, R, W)``, whose memory the next strip uses again.

    Example:
        >>> [rows for rows, _ in strips_of(torch.zeros(1, 2, 2, 2**18), (4, 2**18), False)]
        [slice(0, 2, None), slice(2, 4, None)]
    """
    logits = logits.float()
    num_rows = max(_VALUES // max(logits.shape[0] * logits.shape[1] * size[1], 1), 1)
    if part is None and logits.shape[-2:] == size:
        for first in range(0, size[0], num_rows):
            rows = slice(first, min(first + num_rows, size[0]))
            yield rows, logits[:, :, rows]
        return
    upsampling = Upsampling(logits, size, align_corners, part)
    for strip in upsampling.strips(num_rows):
        yield strip.rows, upsampling.rows(logits, strip)


def _write_largest(
    logits: Tensor,
    rows: Axis,
    columns: Axis,
    strips: Callable[[Tensor], Iterable[tuple[slice, Tensor]]],
    ids: Tensor,
) -> None:
    """Write the class of the largest logit ``(C, h, w)`` of each pixel to `ids` ``(H, W)``."""
    height, width = logits.shape[1:]
    at_corners = logits.max(0).indices  # faster than argmax on a CPU
    torch.index_select(at_corners.index_select(0, rows.low), 1, columns.low, out=ids)
    if not (rows.weight.any() or columns.weight.any()):
        return
    down, across = _Entries.of(rows, height), _Entries.of(columns, width)
    undecided = _differ(at_corners) & (down.number > 0)[:, None] & (across.number > 0)
    cells = undecided.flatten().nonzero()[:, 0]
    if len(cells) > _MOST_UNDECIDED * undecided.numel():
        for part, strip in strips(logits[None]):
            ids[part] = strip[0].max(0).indices
        return
    flat = logits.reshape(len(logits), -1)
    for some in torch.split(cells, max(_VALUES // (4 * len(logits)), 1)):
        top, left = some // width, some % width
        bottom, right = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
        corners = [
            flat.index_select(1, line * width + column)
            for line in (top, bottom)
            for column in (left, right)
        ]
        for chosen, classes, values in _candidates(corners):
            _write_cells(values, classes, down, top[chosen], across, left[chosen], ids)


class _Entries(NamedTuple):
    """The entries of the result along one axis, by the source entry before them.

    Attributes:
        first: The first entry of the result after each source entry, ``(s,)``, int64.
        number: The number of entries of the result, ``(s,)``, int64.
        most: The largest number.
        weight: The weight of the next source entry, by entry of the result.
    """

    first: Tensor
    number: Tensor
    most: int
    weight: Tensor

    @classmethod
    def of(cls, axis: Axis, source: int) -> _Entries:
        number = torch.bincount(axis.low, minlength=source)
        return cls(number.cumsum(0) - number, number, int(number.max()), axis.weight)

    def after(self, source: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield entry after entry behind the entries `source`, with its weight, until all are.

        A source entry with fewer entries behind it has its last one yielded again.
        """
        first, last = self.first[source], (self.first + self.number)[source] - 1
        for step in range(self.most):
            entry = torch.minimum(first + step, last)
            yield entry, self.weight[entry]


def _differ(ids: Tensor) -> Tensor:
    """Whether the ids ``(h, w)`` at the corners of each cell differ; a cell has its top left id."""
    down = torch.cat([ids[1:], ids[-1:]])
    equal = ids == torch.cat([ids[:, 1:], ids[:, -1:]], 1)
    return ~(equal & torch.cat([equal[1:], equal[-1:]]) & (ids == down))


def _candidates(
    corners: Sequence[Tensor],
) -> Iterator[tuple[Tensor, Tensor | None, list[Tensor]]]:
    """Yield the cells in groups, with the classes that can win there and their values.

    Args:
        corners: The logits at the four corners of the cells, ``(C, K)`` each.

    Yields:
        The indices of some cells ``(k,)``; the candidates of each ``(m, k)``, None for all
        classes; their logits at the four corners ``(m, k)``.
    """
    num_classes, num_cells = corners[0].shape
    upper = torch.stack([*corners]).amax(0)
    lower = torch.stack([*corners]).amin(0).amax(0)
    number = (upper >= lower).sum(0)
    order = number.argsort()
    up_to = torch.bincount(number, minlength=num_classes + 1).cumsum(0).tolist()
    done = 0
    for most in (*(most for most in _CANDIDATES if most < num_classes), num_classes):
        chosen = order[done : up_to[most]]
        done = up_to[most]
        if not len(chosen):
            continue
        if most == num_classes:
            yield chosen, None, [values[:, chosen] for values in corners]
            continue
        classes = _largest(upper[:, chosen], most)
        places = classes * num_cells + chosen
        yield chosen, classes, [values.take(places) for values in corners]


def _largest(values: Tensor, number: int) -> Tensor:
    """The indices of the `number` largest of ``(C, K)``, ``(number, K)``; overwrites `values`.

    For a few, this is faster than topk along the first dimension.
    """
    found = []
    for _ in range(number):
        index = values.max(0).indices[None]
        values.scatter_(0, index, -math.inf)
        found.append(index)
    return torch.cat(found)


def _write_cells(
    corners: Sequence[Tensor],
    classes: Tensor | None,
    down: _Entries,
    top: Tensor,
    across: _Entries,
    left: Tensor,
    ids: Tensor,
) -> None:
    """Write the classes of the largest values in some cells to `ids` ``(H, W)``.

    Args:
        corners: The values of m classes at the corners of K cells, ``(m, K)`` each.
        classes: The ids of the classes of each cell ``(m, K)``; None: their indices.
        down: The rows of `ids`.
        top: The row of each cell in the logits, ``(K,)``.
        across: The columns of `ids`.
        left: The column of each cell in the logits, ``(K,)``.
        ids: Written at the pixels of the cells.
    """
    top_left, top_right, bottom_left, bottom_right = corners
    flat, width = ids.view(-1), ids.shape[1]
    columns = list(across.after(left))
    for row, below in down.after(top):
        start = torch.lerp(top_left, bottom_left, below)
        slope = torch.lerp(top_right, bottom_right, below) - start
        for column, right in columns:
            best = torch.addcmul(start, slope, right).max(0).indices
            if classes is not None:
                best = classes.gather(0, best[None])[0]
            flat.scatter_(0, row * width + column, best)
