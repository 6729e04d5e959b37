"""The walk over the strips as one autograd function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from segtrain.criterion.strips.batch import trained_parameters
from segtrain.criterion.strips.walk import Walk
from segtrain.losses import Term

_NUM_OPTIONS = 5  # of the arguments of forward: target to wants_gradient, which have no gradient


class _StripTotal(torch.autograd.Function):
    """The weighted sum ``()`` and the values ``(T,)`` of `terms` on upsampled logits.

    The forward computes the gradients, too; the backward only scales them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        weights: Tensor,
        target: Tensor,
        terms: Sequence[Term],
        rows: int,
        align_corners: bool,
        wants_gradient: bool,
        *parameters: Tensor,  # noqa: ARG004  arguments, so that autograd gives them a gradient
    ) -> tuple[Tensor, Tensor]:
        walk = Walk(logits.detach(), target, terms, weights.detach(), rows, align_corners)
        walk.run(wants_gradient=wants_gradient)
        values = torch.stack([term.value for term in walk.terms])
        ctx.save_for_backward(walk.gradients.logits, values, *walk.gradients.parameters)
        ctx.mark_non_differentiable(values)
        return (values * weights).sum(), values

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        logits, values, *parameters = ctx.saved_tensors
        factor = upstream[0]
        of_parameters = (parameter * factor for parameter in parameters)
        return logits * factor, values * factor, *(None,) * _NUM_OPTIONS, *of_parameters


def strip_total(
    logits: Tensor,
    target: Tensor,
    terms: Sequence[Term],
    *,
    weights: Tensor,
    rows: int,
    align_corners: bool,
) -> tuple[Tensor, Tensor]:
    """Compute the weighted sum of `terms` on bilinearly upsampled logits, and the value of each.

    Args:
        logits: At any resolution, float32 or float64.
        target: At the resolution to upsample to, checked.
        terms: Terms that run in strips; they share each strip.
        weights: The weight of each term.
        rows: Rows of the target in a strip.
        align_corners: As in :func:`torch.nn.functional.interpolate`.

    Shape:
        - logits: ``(N, C, h, w)``; target: ``(N, H, W)`` or ``(N, C, H, W)``; weights: ``(T,)``.
        - output: ``()``, with a graph to logits, weights and the terms' parameters, and ``(T,)``,
          without a graph. It can be differentiated once.
    """
    parameters = trained_parameters(terms)
    wanted = logits.requires_grad or bool(parameters)
    total, values = _StripTotal.apply(
        logits,
        weights,
        target,
        terms,
        rows,
        align_corners,
        wanted and torch.is_grad_enabled(),  # inside the function it is always disabled
        *parameters,
    )
    return total, values
