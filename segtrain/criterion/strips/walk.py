"""The walk through a batch: the weighted sum of terms on logits that are upsampled by strips.

The gradient is computed together with the value and kept at the resolution of the logits. The terms
decide how many passes over the strips that takes:

- pixel losses with the mean, or one of them with a streaming mining: one pass;
- region losses and any other mining: a pass for the sums and maps, and one for the gradient;
- class-map losses: between these two passes, class by class.

Terms that read the logits through a softmax share it, and their gradient is written into its memory
(:mod:`segtrain.criterion.strips.softmax`). All other terms, custom ones included, go through
autograd strip by strip.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from segtrain.criterion.strips.batch import Batch, Gradients, Strip
from segtrain.criterion.strips.routes import strip_term
from segtrain.criterion.strips.softmax import SoftmaxStrip
from segtrain.criterion.strips.strip_term import StripTerm
from segtrain.criterion.strips.upsampling import Upsampling, is_safe_lowered
from segtrain.losses import Term


class Walk:
    """The values and gradients of some terms for one batch.

    Args:
        logits: ``(N, C, h, w)``, float32 or float64, without a graph.
        target: ``(N, H, W)`` or ``(N, C, H, W)``, checked.
        terms: Terms that run in strips.
        weights: The weight of each term, ``(T,)``.
        rows: Rows of the target in a strip.
        align_corners: As in :func:`torch.nn.functional.interpolate`.

    Attributes:
        terms: The terms with their values, in the given order.
        gradients: The gradients of the weighted sum.
    """

    def __init__(
        self,
        logits: Tensor,
        target: Tensor,
        terms: Sequence[Term],
        weights: Tensor,
        rows: int,
        align_corners: bool,
    ) -> None:
        size = (target.shape[-2], target.shape[-1])
        self.gradients = Gradients(logits, terms)
        self._batch = Batch(
            logits,
            target,
            rows,
            Upsampling(logits, size, align_corners),
            self.gradients,
            lowered=all(term.shares_softmax(target) for term in terms),
        )
        self.terms = [
            strip_term(term, weight, self._batch, is_alone=len(terms) == 1)
            for term, weight in zip(terms, weights, strict=True)
        ]
        self._sharing = [term for term in terms if term.shares_softmax(target)]
        self._is_safe = self._batch.lowered and is_safe_lowered(logits)

    def run(self, *, wants_gradient: bool) -> None:
        """Compute every value and, if wanted, the gradients."""
        if all(term.is_one_pass for term in self.terms):
            self._pass(values=True, gradient=wants_gradient)
            if all(term.settle() for term in self.terms):
                return
            self.gradients.clear()
            self.terms = [term.in_two_passes() for term in self.terms]
        if any(term.needs_look for term in self.terms):
            self._pass(values=True, gradient=False)
        # Class maps come last, when the other terms have freed their maps.
        for term in sorted(self.terms, key=lambda term: term.is_by_class):
            term.reduce(wants_gradient=wants_gradient)
        if wants_gradient and any(term.needs_gradient for term in self.terms):
            self._pass(values=False, gradient=True)

    def _pass(self, *, values: bool, gradient: bool) -> None:
        """Visit every strip, first with the terms that read its logits before the softmax does."""
        separate = [term for term in self.terms if not term.shares_softmax]
        sharing = [term for term in self.terms if term.shares_softmax]
        for block in self._batch.blocks():
            strip = self._batch.strip(block)
            found = _visit(separate, strip, values=values, gradient=gradient)
            if sharing:
                strip.softmax = self._softmax(strip)
                _visit(sharing, strip, values=values, gradient=gradient)
                if gradient:
                    found = _add(found, strip.softmax.gradient(strip.wanted))
            if found is not None:
                self._batch.upsampling.add_adjoint(found, block, self.gradients.logits)

    def _softmax(self, strip: Strip) -> SoftmaxStrip:
        """The softmax of a strip, in the memory of its logits."""
        # The terms that share it agree on the valid pixels, or read only its normaliser.
        valid = Term.valid(self._sharing[0], strip.target)
        # With a dense target all of them read only the normaliser, so the ids do not matter.
        is_dense = strip.target.dim() == 4
        ids = valid.long() if is_dense else torch.where(valid, strip.target, 0)
        return SoftmaxStrip(strip.logits, ids, valid, safe=self._is_safe)


def _visit(
    terms: Sequence[StripTerm], strip: Strip, *, values: bool, gradient: bool
) -> Tensor | None:
    """Visit a strip with some terms; return the sum of their gradients for its logits."""
    found = None
    for term in terms:
        if not gradient:
            term.look(strip)
        else:
            found = _add(found, term.value_and_gradient(strip) if values else term.gradient(strip))
    return found


def _add(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return other if one is None else one if other is None else one + other
