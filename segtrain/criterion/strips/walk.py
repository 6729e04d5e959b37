"""The weighted sum of terms on logits that are upsampled a strip, or a class, at a time.

The gradient is made while the value is, and kept at the resolution of the logits. What that takes
depends on the terms:

- pixel losses whose mining needs no second look: one pass over the strips;
- region losses, and minings that rank or count pixels: one pass for the sums and maps, one for the
  gradient;
- class-map losses: between these two, each class alone.

Terms that read the logits through a softmax share it, and their gradient is written in its memory
(:mod:`segtrain.criterion.strips.softmax`); all others, a user's included, go through autograd strip
by strip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from segtrain.criterion.strips.routes import is_fused, streams
from segtrain.criterion.strips.softmax import SoftmaxGradient, SoftmaxStrip
from segtrain.criterion.strips.upsampling import Block, Upsampling, is_safe_lowered
from segtrain.losses import ClassMapLoss, PixelLoss, RegionLoss, TargetProbabilityLoss, Term
from segtrain.losses.families.class_mean import class_counts


@dataclass
class TermState:
    """A term on its way through the strips."""

    term: Term
    weight: Tensor
    value: Tensor
    fused: bool  # reads the logits through the shared softmax
    streams: bool = False  # a pixel loss whose pixels count or not by themselves
    context: Tensor | None = None
    pieces: list[Tensor] = field(default_factory=list)
    probabilities: list[Tensor] = field(default_factory=list)
    denominator: Tensor | None = None
    gradient: Tensor | None = None  # for the joined pieces

    def context_rows(self, rows: slice) -> Tensor | None:
        return None if self.context is None else self.context[..., rows, :]


@dataclass
class _Rows:
    """One strip on its way through the terms."""

    strip: Block
    logits: Tensor
    target: Tensor
    softmax: SoftmaxStrip | None = None


class Walk:
    """One batch: see the module."""

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
        self.logits, self.target, self.rows = logits, target, rows
        self.upsampling = Upsampling(logits, size, align_corners)
        self.states = [
            TermState(term, weight, logits.new_zeros(()), fused=is_fused(term, target))
            for term, weight in zip(terms, weights, strict=True)
        ]
        on_cpu = logits.device.type == "cpu"
        for state in self.states:
            if isinstance(state.term, PixelLoss):
                state.context = state.term.context(target)
                streaming = streams(state.term)
                state.streams = streaming == "always" or (
                    streaming == "mostly" and on_cpu and len(terms) == 1
                )
        self.parameters = trained_parameters(terms)
        self.total = torch.zeros_like(logits)
        self.parameter_totals = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.lowered = all(state.fused for state in self.states)
        self.safe = self.lowered and is_safe_lowered(logits)
        self._needs_normaliser = any(
            state.fused and isinstance(state.term, ClassMapLoss) for state in self.states
        )
        self.offset: Tensor | None = None  # of the class maps, (N, H, W)
        self._log_normaliser: list[Tensor] = []

    def run(self, *, wants_gradient: bool) -> None:
        """Find every value and, if wanted, the gradients."""
        if all(state.streams for state in self.states):
            self._set_denominators(known=len(self.states) > 1)
            self._pass(values=True, gradient=wants_gradient)
            if self._settle():
                return
            self.total.zero_()  # the mining needs a look at the whole batch after all
            for total in self.parameter_totals:
                total.zero_()
        self._set_denominators(known=True)
        if any(state.fused or not isinstance(state.term, ClassMapLoss) for state in self.states):
            self._pass(values=True, gradient=False)
        self._reduce(wants_gradient=wants_gradient)
        self._walk_classes(wants_gradient=wants_gradient)
        if wants_gradient and not self._is_done():
            self._pass(values=False, gradient=True)

    # ------------------------------------------------------------------ the passes

    def _pass(self, *, values: bool, gradient: bool) -> None:
        for strip in self.upsampling.strips(self.rows):
            rows = self._strip(strip)
            found = None
            for state in self.states:
                if state.fused:
                    continue
                if gradient:
                    found = _add(found, self._autograd(state, rows, values=values))
                elif values:
                    self._look(state, rows)
            if any(state.fused for state in self.states):
                found = _add(found, self._fused(rows, values=values, gradient=gradient))
            if found is not None:
                self.upsampling.add_adjoint(found, strip, self.total)

    def _strip(self, strip: Block) -> _Rows:
        logits = self.upsampling.rows(self.logits, strip, lowered=self.lowered)
        return _Rows(strip, logits, self.target[..., strip.rows, :])

    def _fused(self, rows: _Rows, *, values: bool, gradient: bool) -> Tensor | None:
        """All terms that share the softmax; it takes the memory of the strip's logits."""
        valid = self.states[0].term.valid(rows.target)
        # Of a dense target only the normaliser is read, which knows no class.
        is_dense = rows.target.dim() == 4
        ids = valid.long() if is_dense else torch.where(valid, rows.target, 0)
        softmax = SoftmaxStrip(rows.logits, ids, valid, safe=self.safe)
        rows.softmax = softmax
        wanted = SoftmaxGradient()
        for state in self.states:
            if not state.fused:
                continue
            if isinstance(state.term, TargetProbabilityLoss):
                self._fused_pixels(state, rows, wanted, values=values, gradient=gradient)
            elif isinstance(state.term, RegionLoss):
                if values:
                    state.pieces.append(torch.stack(softmax.sums(), dim=1))
                if gradient and state.gradient is not None:
                    wanted.add_sums(state.gradient[:, 1], state.gradient[:, 0])
        if values and self._needs_normaliser:
            self._log_normaliser.append(softmax.log_normaliser)
        if not gradient:
            return None
        if self.offset is not None:
            wanted.offset = self.offset[:, rows.strip.rows]
        return softmax.gradient(wanted)

    def _fused_pixels(
        self,
        state: TermState,
        rows: _Rows,
        wanted: SoftmaxGradient,
        *,
        values: bool,
        gradient: bool,
    ) -> None:
        term, softmax = state.term, rows.softmax
        assert isinstance(term, TargetProbabilityLoss)
        assert softmax is not None
        if not state.streams:
            if values:
                state.pieces.append(softmax.log_probability)
            if gradient and state.gradient is not None:
                wanted.add_slope(state.gradient[:, rows.strip.rows])
            return
        with torch.enable_grad():
            leaf = softmax.log_probability.detach().requires_grad_(gradient)
            total = self._streamed(state, *term.maps_of(leaf, rows.target), rows, values=values)
        slope = self._differentiate(total, leaf) if gradient else None
        if slope is not None:
            wanted.add_slope(slope)

    def _look(self, state: TermState, rows: _Rows) -> None:
        """What a term that is not fused has to know of this strip, without a gradient."""
        with torch.no_grad():
            if isinstance(state.term, RegionLoss):
                state.pieces.append(state.term.sums(rows.logits, rows.target))
            elif isinstance(state.term, PixelLoss):
                maps = state.term.maps(
                    rows.logits, rows.target, state.context_rows(rows.strip.rows)
                )
                if state.streams:
                    self._streamed(state, *maps, rows, values=True)
                    return
                state.pieces.append(maps[0])
                if maps[1] is not None:
                    state.probabilities.append(maps[1])

    def _autograd(self, state: TermState, rows: _Rows, *, values: bool) -> Tensor | None:
        """The gradient of a term that is not fused for the logits of this strip."""
        with torch.enable_grad():
            leaf = rows.logits.detach().requires_grad_()
            if isinstance(state.term, RegionLoss):
                outputs, weights = state.term.sums(leaf, rows.target), state.gradient
            elif isinstance(state.term, PixelLoss):
                maps = state.term.maps(leaf, rows.target, state.context_rows(rows.strip.rows))
                if state.streams:
                    outputs = self._streamed(state, *maps, rows, values=values)
                    weights = torch.ones_like(outputs)
                else:
                    outputs, weights = maps[0], state.gradient
                    weights = None if weights is None else weights[:, rows.strip.rows]
            else:
                return None
        return None if weights is None else self._differentiate(outputs, leaf, weights)

    def _differentiate(
        self, value: Tensor, leaf: Tensor, weight: Tensor | None = None
    ) -> Tensor | None:
        """The gradient of `value`, times `weight`, for `leaf`; that for the parameters is added up.

        A value that does not depend on either, such as a class that costs nothing, has none.
        """
        if not value.requires_grad:
            return None
        found = torch.autograd.grad(value, [leaf, *self.parameters], weight, allow_unused=True)
        for total, part in zip(self.parameter_totals, found[1:], strict=True):
            if part is not None:
                total.add_(part)
        return found[0]

    # ------------------------------------------------------------------ minings that stream

    def _set_denominators(self, *, known: bool) -> None:
        """Known beforehand where several terms share a gradient; else found with the value."""
        for state in self.states:
            state.pieces, state.probabilities = [], []
            state.value = torch.zeros_like(state.value)
            if not isinstance(state.term, PixelLoss):
                continue
            if state.term.mining.streaming == "mostly" and known:
                state.streams = False
            if state.streams:
                state.denominator = self._count(state.term) if known else None

    def _count(self, term: PixelLoss) -> Tensor:
        """The denominator of a mean, from the target, a strip at a time."""
        total = self.logits.new_zeros(())
        for strip in self.upsampling.strips(self.rows):
            target = self.target[..., strip.rows, :]
            total += term.mining.denominator(
                term.pixel_weights(target, total.dtype), term.valid(target)
            )
        return torch.where(total > 0, total, 1)

    def _streamed(
        self,
        state: TermState,
        losses: Tensor,
        probability: Tensor | None,
        rows: _Rows,
        *,
        values: bool,
    ) -> Tensor:
        """What this strip adds to the value, with a graph; divided, if it is known by what."""
        term = state.term
        assert isinstance(term, PixelLoss)
        if term.mining.streaming == "mostly":
            kept = term.mining.kept(term.valid(rows.target), probability)
            added = torch.where(kept, losses, 0).sum()
        else:
            kept, added = term.valid(rows.target), losses.sum()
        if state.denominator is not None:
            if values:
                state.value = state.value + added.detach() / state.denominator
            return added * (state.weight / state.denominator)
        if values:
            state.value = state.value + added.detach()
            weights = term.pixel_weights(rows.target, losses.dtype)
            state.pieces.append(term.mining.denominator(weights, kept))
        return added

    def _settle(self) -> bool:
        """Divide the one term whose denominator was not known; False: it has to start again."""
        (state, *others) = self.states
        if others or state.denominator is not None:
            return True
        assert isinstance(state.term, PixelLoss)
        denominator = torch.stack(state.pieces).sum()
        mining = state.term.mining
        if mining.streaming == "mostly" and not mining.decided(
            denominator, int(state.term.valid(self.target).count_nonzero())
        ):
            return False
        denominator = torch.where(denominator > 0, denominator, 1)
        state.value = state.value / denominator
        for total in (self.total, *self.parameter_totals):
            total.mul_(state.weight / denominator)
        return True

    # ------------------------------------------------------------------ from strips to values

    def _reduce(self, *, wants_gradient: bool) -> None:
        """The values of the terms that had to see the whole batch, and what they ask of it."""
        for state in self.states:
            if state.streams or isinstance(state.term, ClassMapLoss):
                continue
            with torch.set_grad_enabled(wants_gradient):
                leaf = self._joined(state).requires_grad_(wants_gradient)
                value = self._value(state, leaf)
            state.value = value.detach()
            state.pieces, state.probabilities = [], []
            if wants_gradient:
                state.gradient = self._differentiate(value, leaf, state.weight)

    def _joined(self, state: TermState) -> Tensor:
        if not isinstance(state.term, RegionLoss):
            return torch.cat(state.pieces, dim=-2)
        sums = torch.stack(state.pieces).sum(0)
        if not state.fused:
            return sums
        actual = self._actual(state.term)
        return torch.cat([sums, actual[:, None]], dim=1)

    def _actual(self, term: RegionLoss) -> Tensor:
        """How many pixels of each class each image has, ``(N, C)``."""
        total = self.logits.new_zeros(len(self.logits), term.num_classes)
        for strip in self.upsampling.strips(self.rows):
            target = self.target[:, strip.rows]
            valid = term.valid(target)
            clean = term.clean(target, valid).flatten(1)
            total += class_counts(clean, valid.to(total.dtype).flatten(1), term.num_classes)
        return total

    def _value(self, state: TermState, leaf: Tensor) -> Tensor:
        term = state.term
        if isinstance(term, RegionLoss):
            return term.reduce(leaf, self.target)
        assert isinstance(term, PixelLoss)
        if state.fused:
            assert isinstance(term, TargetProbabilityLoss)
            return term.reduce(*term.maps_of(leaf, self.target), self.target)
        probability = torch.cat(state.probabilities, dim=-2) if state.probabilities else None
        return term.reduce(leaf, probability, self.target)

    # ------------------------------------------------------------------ class maps

    def _walk_classes(self, *, wants_gradient: bool) -> None:
        states = [state for state in self.states if isinstance(state.term, ClassMapLoss)]
        if not states:
            return
        normaliser = torch.cat(self._log_normaliser, dim=-2) if self._log_normaliser else None
        self._log_normaliser = []
        for state in states:
            assert isinstance(state.term, ClassMapLoss)
            for item in state.term.class_maps(self.target):
                with torch.set_grad_enabled(wants_gradient):
                    leaf = self._class_map(state, item, normaliser)
                    value = state.term.map_value(leaf, self.target, item)
                state.value = state.value + value.detach()
                found = self._differentiate(value, leaf, state.weight) if wants_gradient else None
                if found is not None:
                    self._add_class(state, item, leaf.detach(), found)

    def _class_map(self, state: TermState, item: Any, normaliser: Tensor | None) -> Tensor:
        """The map of one class, ``(n, H, W)``, as a leaf."""
        logits = self.logits
        if self.lowered and state.fused:  # as the normaliser is
            logits = self._lowered_logits
        channel = logits[item.images, item.index][:, None]
        found = self.upsampling.image(channel, self.rows)[:, 0]
        if state.fused:
            assert normaliser is not None
            found = (found - normaliser[item.images]).exp_()
        elif not state.term.reads_logits:
            found = found.sigmoid_()
        return found.detach().requires_grad_(torch.is_grad_enabled())

    @cached_property
    def _lowered_logits(self) -> Tensor:
        return self.logits - self.logits.amax(1, keepdim=True)

    def _add_class(self, state: TermState, item: Any, values: Tensor, gradient: Tensor) -> None:
        """Take the gradient for a class's map to the logits; leave the offset to the strips."""
        if state.fused:
            gradient = gradient * values
            if self.offset is None:
                self.offset = self.logits.new_zeros(len(self.logits), *self.upsampling.size)
            self.offset[item.images] += gradient
        elif not state.term.reads_logits:
            gradient = gradient * values * (1 - values)
        total = self.total[item.images, item.index][:, None]
        self.upsampling.add_image_adjoint(gradient[:, None], self.rows, total)

    def _is_done(self) -> bool:
        """Whether no gradient is left for a second pass."""
        waiting = any(
            state.streams or state.gradient is not None
            for state in self.states
            if not isinstance(state.term, ClassMapLoss)
        )
        return not waiting and self.offset is None


def trained_parameters(terms: Sequence[Term]) -> list[Tensor]:
    """What the terms train, once each: two may share a parameter."""
    return list(
        dict.fromkeys(
            parameter
            for term in terms
            for parameter in term.parameters()
            if parameter.requires_grad
        )
    )


def _add(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return other if one is None else one if other is None else one + other
