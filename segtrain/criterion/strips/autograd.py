"""The walk over the strips as one step of autograd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from segtrain.criterion.strips.walk import Walk, trained_parameters
from segtrain.losses import Term


class _StripTotal(torch.autograd.Function):
    """The weighted sum ``()`` and the values ``(T,)`` of `terms` on upsampled logits."""

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
        *parameters: Tensor,  # noqa: ARG004  so that they get their gradient
    ) -> tuple[Tensor, Tensor]:
        walk = Walk(logits.detach(), target, terms, weights.detach(), rows, align_corners)
        walk.run(wants_gradient=wants_gradient)
        values = torch.stack([state.value for state in walk.states])
        ctx.save_for_backward(walk.total, values, *walk.parameter_totals)
        ctx.mark_non_differentiable(values)
        return (values * weights).sum(), values

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        total, values, *parameters = ctx.saved_tensors
        factor = upstream[0]
        return (
            total * factor,
            values * factor,
            None,
            None,
            None,
            None,
            None,
            *(parameter * factor for parameter in parameters),
        )


def strip_total(
    logits: Tensor,
    target: Tensor,
    terms: Sequence[Term],
    *,
    weights: Tensor,
    rows: int,
    align_corners: bool,
) -> tuple[Tensor, Tensor]:
    """The weighted sum of `terms` on bilinearly upsampled logits, and the value of each.

    Args:
        logits: At any resolution, float32 or float64.
        target: At its own resolution, checked.
        terms: Terms with ``can_strip``; they share each strip.
        weights: What each term counts.
        rows: Rows of the target in a strip.
        align_corners: As in :func:`torch.nn.functional.interpolate`.

    Shape:
        - logits: ``(N, C, h, w)``; target: ``(N, H, W)`` or ``(N, C, H, W)``; weights: ``(T,)``.
        - output: ``()`` with a graph to logits, weights and the terms' parameters, and ``(T,)``
          without one. The gradient is that of first order.
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
        wanted and torch.is_grad_enabled(),  # not so inside of the function
        *parameters,
    )
    return total, values
