"""A loss over upsampled logits that are never whole: a few rows at a time, both ways.

Bilinear upsampling is two small linear maps, one along the rows and one along the columns, so a
strip of R rows of the upsampled logits is ``vertical[rows] @ logits @ horizontal``, and its adjoint
is the same product transposed. A strip is made, turned into the statistics of the loss
(:meth:`segtrain.losses.Term.statistics`) and dropped; the backward pass makes it once more. What is
kept at label resolution has no class dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from segtrain.losses import Term


@dataclass(frozen=True)
class _Strip:
    """Some rows of the target, the logit rows they come from, and the two maps between them."""

    rows: slice
    source: slice
    vertical: Tensor
    horizontal: Tensor

    def upsample(self, logits: Tensor) -> Tensor:
        """``(N, C, h, w)`` to the ``(N, C, R, W)`` of this strip."""
        return (self.vertical @ logits[:, :, self.source]) @ self.horizontal

    def add_adjoint(self, gradient: Tensor, total: Tensor) -> None:
        """Add to `total` ``(N, C, h, w)`` what the strip's `gradient` means for the logits."""
        total[:, :, self.source] += self.vertical.mT @ (gradient @ self.horizontal.mT)


@lru_cache(maxsize=32)
def _interpolation(
    source: int, size: int, align_corners: bool, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """The matrix ``(source, size)`` of linear interpolation, made by ``F.interpolate`` itself."""
    identity = torch.eye(source, dtype=dtype)[None]
    return F.interpolate(identity, size=size, mode="linear", align_corners=align_corners)[0].to(
        device
    )


def _strips(
    logits: Tensor, size: tuple[int, int], rows: int, align_corners: bool
) -> Iterator[_Strip]:
    (height, width), (source_height, source_width) = size, logits.shape[-2:]
    options = (align_corners, logits.dtype, logits.device)
    horizontal = _interpolation(source_width, width, *options)
    vertical = _interpolation(source_height, height, *options)
    for first in range(0, height, rows):
        stop = min(first + rows, height)
        source = _source_rows(source_height, height, first, stop, align_corners)
        yield _Strip(slice(first, stop), source, vertical[source, first:stop].mT, horizontal)


def _source_rows(source: int, size: int, first: int, stop: int, align_corners: bool) -> slice:
    """The source rows that result rows `first` to `stop` come from, with one to spare."""
    if align_corners:
        low, high = ((row * (source - 1) / max(size - 1, 1)) for row in (first, stop - 1))
    else:
        low, high = (((row + 0.5) * source / size - 0.5) for row in (first, stop - 1))
    return slice(max(int(low) - 1, 0), min(int(high) + 3, source))


class _StripWalk(torch.autograd.Function):
    """The values ``(T,)`` of `terms` on upsampled logits."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        terms: Sequence[Term],
        rows: int,
        align_corners: bool,
        *parameters: Tensor,
    ) -> Tensor:
        size = (target.shape[-2], target.shape[-1])
        parts: list[list[tuple[Tensor, ...]]] = [[] for _ in terms]
        for strip in _strips(logits, size, rows, align_corners):
            upsampled = strip.upsample(logits)
            for term, found in zip(terms, parts, strict=True):
                found.append(term.statistics(upsampled, target[:, strip.rows]))
        values, gradients = [], []
        for term, found in zip(terms, parts, strict=True):
            statistics = tuple(term.join(list(pieces)) for pieces in zip(*found, strict=True))
            value, gradient = _finish(term, statistics, target)
            values.append(value)
            gradients.append(gradient)
        # What a term's value asks of its statistics is kept, not the statistics: finish runs once
        # per step, so that a mining may keep running averages.
        ctx.gradients, ctx.terms, ctx.rows, ctx.align_corners = (
            gradients,
            terms,
            rows,
            align_corners,
        )
        ctx.parameters = parameters
        ctx.save_for_backward(logits, target)
        return torch.stack(values)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        logits, target = ctx.saved_tensors
        with torch.autocast(logits.device.type, enabled=False):  # backward may be called under one
            return _StripWalk._gradients(ctx, logits, target, upstream[0])

    @staticmethod
    def _gradients(
        ctx: Any, logits: Tensor, target: Tensor, upstream: Tensor
    ) -> tuple[Tensor | None, ...]:
        size = (target.shape[-2], target.shape[-1])
        total = torch.zeros_like(logits)
        totals = [torch.zeros_like(parameter) for parameter in ctx.parameters]
        for strip in _strips(logits, size, ctx.rows, ctx.align_corners):
            upsampled = strip.upsample(logits).requires_grad_()
            outputs, weights = _strip_outputs(
                ctx, upsampled, target[:, strip.rows], strip.rows, upstream
            )
            if not outputs:
                continue
            found = torch.autograd.grad(
                outputs, [upsampled, *ctx.parameters], weights, allow_unused=True
            )
            if found[0] is not None:
                strip.add_adjoint(found[0], total)
            for parameter_total, gradient in zip(totals, found[1:], strict=True):
                if gradient is not None:
                    parameter_total.add_(gradient)
        return (total, None, None, None, None, *totals)


def _finish(
    term: Term, statistics: tuple[Tensor, ...], target: Tensor
) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """A term's value, and its gradient for each statistic."""
    with torch.enable_grad():
        leaves = tuple(statistic.detach().requires_grad_() for statistic in statistics)
        value = term.finish(leaves, target)
        gradients = torch.autograd.grad(value, leaves, allow_unused=True)
    return value.detach(), gradients


def _strip_outputs(
    ctx: Any, upsampled: Tensor, target: Tensor, rows: slice, upstream: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """The statistics of a strip that the loss depends on, and the gradients that arrive at them."""
    outputs, weights = [], []
    with torch.enable_grad():
        for index, (term, gradients) in enumerate(zip(ctx.terms, ctx.gradients, strict=True)):
            for statistic, gradient in zip(
                term.statistics(upsampled, target), gradients, strict=True
            ):
                if gradient is not None and statistic.requires_grad:
                    outputs.append(statistic)
                    weights.append(term.part(gradient, rows) * upstream[index])
    return outputs, weights


def strip_values(
    logits: Tensor, target: Tensor, terms: Sequence[Term], *, rows: int, align_corners: bool
) -> Tensor:
    """The values of `terms` on bilinearly upsampled logits, in strips of `rows` rows of the target.

    Args:
        logits: At any resolution, float32 or float64.
        target: At its own resolution.
        terms: Terms with ``can_strip``; they share each strip.
        rows: Rows of the target in a strip.
        align_corners: As in :func:`torch.nn.functional.interpolate`.

    Shape:
        - logits: ``(N, C, h, w)``; target: ``(N, H, W)``, int64; output: ``(T,)``.
    """
    # Two terms may share a parameter, whose gradient is asked for once.
    parameters = dict.fromkeys(
        parameter for term in terms for parameter in term.parameters() if parameter.requires_grad
    )
    values: Tensor = _StripWalk.apply(logits, target, terms, rows, align_corners, *parameters)
    return values
