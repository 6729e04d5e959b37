"""One batch on its way through the strips: its tensors, a strip of it, its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from segtrain.criterion.strips.softmax import SoftmaxGradient, SoftmaxStrip
from segtrain.criterion.strips.upsampling import Block, Upsampling
from segtrain.losses import Term


class Gradients:
    """The gradients of a batch, summed over strips, classes and terms.

    Args:
        logits: ``(N, C, h, w)``.
        terms: The terms, whose parameters may be trained.

    Attributes:
        logits: The gradient for the logits, ``(N, C, h, w)``.
        parameters: The gradient for each of :func:`trained_parameters`.
    """

    def __init__(self, logits: Tensor, terms: Sequence[Term]) -> None:
        self._trained = trained_parameters(terms)
        self.logits = torch.zeros_like(logits)
        self.parameters = [torch.zeros_like(parameter) for parameter in self._trained]

    def differentiate(
        self, value: Tensor, leaf: Tensor, weight: Tensor | None = None
    ) -> Tensor | None:
        """Return the gradient of `value` times `weight` for `leaf`; add those for the parameters.

        The result is None if `value` depends on neither, as the loss of a class that costs nothing.
        """
        if not value.requires_grad:
            return None
        found = torch.autograd.grad(value, [leaf, *self._trained], weight, allow_unused=True)
        for total, part in zip(self.parameters, found[1:], strict=True):
            if part is not None:
                total.add_(part)
        return found[0]

    def scale(self, factor: Tensor) -> None:
        """Multiply all gradients by `factor`, ``()``."""
        for total in (self.logits, *self.parameters):
            total.mul_(factor)

    def clear(self) -> None:
        """Set all gradients to 0."""
        for total in (self.logits, *self.parameters):
            total.zero_()


def trained_parameters(terms: Sequence[Term]) -> list[Tensor]:
    """The trained parameters of `terms`, each once: two terms may share one."""
    return list(
        dict.fromkeys(
            parameter
            for term in terms
            for parameter in term.parameters()
            if parameter.requires_grad
        )
    )


@dataclass
class Batch:
    """What all terms of a walk read, and where they add their gradients.

    Attributes:
        logits: ``(N, C, h, w)``, without a graph.
        target: ``(N, H, W)`` or ``(N, C, H, W)``, checked.
        strip_rows: Rows of the target in a strip.
        upsampling: From the size of the logits to the size of the target.
        gradients: The sums of the gradients.
        lowered: Whether all terms read the logits through a softmax, so that the strips may hold
            them less the largest class.
        offset: ``(N, H, W)``: what class-map losses of a softmax leave to the gradient of the
            strips, see :class:`~segtrain.criterion.strips.softmax.SoftmaxGradient`. None: nothing.
    """

    logits: Tensor
    target: Tensor
    strip_rows: int
    upsampling: Upsampling
    gradients: Gradients
    lowered: bool
    offset: Tensor | None = None

    @cached_property
    def lowered_logits(self) -> Tensor:
        """The logits less the largest class, if the strips hold them so; ``(N, C, h, w)``."""
        return self.logits - self.logits.amax(1, keepdim=True) if self.lowered else self.logits

    def blocks(self) -> tuple[Block, ...]:
        """The places of the strips, from the top."""
        return self.upsampling.strips(self.strip_rows)

    def targets(self) -> list[Tensor]:
        """The target of each strip."""
        return [self.target[..., block.rows, :] for block in self.blocks()]

    def strip(self, block: Block) -> Strip:
        """Upsample one strip, in memory that the next strip uses again."""
        logits = self.upsampling.rows(self.logits, block, lowered=self.lowered)
        return Strip(block.rows, logits, self.target[..., block.rows, :])


@dataclass
class Strip:
    """A few rows of the batch at the resolution of the target.

    Attributes:
        rows: Which rows.
        logits: ``(N, C, R, W)``. The softmax overwrites them.
        target: ``(N, R, W)`` or ``(N, C, R, W)``.
        softmax: Set for the terms that share it, after all other terms have seen the strip.
        wanted: The gradient that these terms ask of the softmax.
    """

    rows: slice
    logits: Tensor
    target: Tensor
    softmax: SoftmaxStrip = field(init=False)
    wanted: SoftmaxGradient = field(default_factory=SoftmaxGradient)
