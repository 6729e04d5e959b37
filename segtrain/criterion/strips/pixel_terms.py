"""Pixel losses in strips.

A pixel loss reads a strip in one of two ways: through the shared softmax (:class:`SoftmaxReader`)
or from the logits, with autograd (:class:`LogitReader`). Its mining decides how the maps of the
strips become a value:

- :class:`MeanPixels`, :class:`LoneMeanPixels`: the mean over valid pixels, added up over strips.
- :class:`LoneKeptPixels`: a :class:`~segtrain.losses.mining.base.StreamingMining`, likewise.
- :class:`WholeMaps`, :class:`WholeProbabilities`: any other mining reduces the maps of the whole
  batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from segtrain.criterion.strips.batch import Batch, Strip
from segtrain.criterion.strips.strip_term import ReducedTerm, StripTerm
from segtrain.losses import MeanMining, PixelLoss, TargetProbabilityLoss
from segtrain.losses.mining.base import StreamingMining

Maps = tuple[Tensor, Tensor | None]


class Reader(ABC):
    """How a pixel loss reads a strip, and where its gradient for what it read goes."""

    shares_softmax: ClassVar[bool]

    @abstractmethod
    def read(self, strip: Strip) -> Tensor:
        """The tensor that the losses of the strip are computed from, without a graph."""

    @abstractmethod
    def maps(self, read: Tensor, strip: Strip) -> Maps:
        """:meth:`PixelLoss.maps` of the strip, ``(N, R, W)`` each."""

    @abstractmethod
    def add_gradient(self, gradient: Tensor | None, strip: Strip) -> Tensor | None:
        """Pass on the gradient for what was read, as :meth:`StripTerm.gradient` returns it."""


class LogitReader(Reader):
    """Reads the logits."""

    shares_softmax = False

    def __init__(self, term: PixelLoss, target: Tensor) -> None:
        self._term, self._context = term, term.context(target)

    def read(self, strip: Strip) -> Tensor:
        return strip.logits.detach()

    def maps(self, read: Tensor, strip: Strip) -> Maps:
        context = None if self._context is None else self._context[..., strip.rows, :]
        return self._term.maps(read, strip.target, context)

    def add_gradient(self, gradient: Tensor | None, strip: Strip) -> Tensor | None:  # noqa: ARG002
        return gradient


class SoftmaxReader(Reader):
    """Reads the log-probability of the target's class."""

    shares_softmax = True

    def __init__(self, term: TargetProbabilityLoss) -> None:
        self._term = term

    def read(self, strip: Strip) -> Tensor:
        return strip.softmax.log_probability.detach()

    def maps(self, read: Tensor, strip: Strip) -> Maps:
        return self._term.maps_of(read, strip.target)

    def add_gradient(self, gradient: Tensor | None, strip: Strip) -> None:
        if gradient is not None:
            strip.wanted.add_slope(gradient)


class _SummedPixels(StripTerm):
    """A sum over pixels, divided by a number: strips add up, so one pass is enough."""

    is_one_pass = True

    def __init__(self, term: PixelLoss, reader: Reader, weight: Tensor, batch: Batch) -> None:
        super().__init__(weight, batch)
        self.term, self._reader = term, reader
        self.shares_softmax = reader.shares_softmax

    @abstractmethod
    def _sum(self, maps: Maps, strip: Strip, *, values: bool) -> Tensor:
        """The sum whose gradient the strip adds, ``()``; with `values`, add it to the value."""

    def look(self, strip: Strip) -> None:
        with torch.no_grad():
            self._sum(self._reader.maps(self._reader.read(strip), strip), strip, values=True)

    def gradient(self, strip: Strip) -> Tensor | None:
        return self._differentiate(strip, values=False)

    def value_and_gradient(self, strip: Strip) -> Tensor | None:
        return self._differentiate(strip, values=True)

    def _differentiate(self, strip: Strip, *, values: bool) -> Tensor | None:
        with torch.enable_grad():
            leaf = self._reader.read(strip).requires_grad_()
            total = self._sum(self._reader.maps(leaf, strip), strip, values=values)
        gradient = self.batch.gradients.differentiate(total, leaf)
        return self._reader.add_gradient(gradient, strip)

    @property
    def needs_gradient(self) -> bool:
        return True


class MeanPixels(_SummedPixels):
    """The mean, beside other terms: it counts its denominator from the target beforehand."""

    def __init__(self, term: PixelLoss, reader: Reader, weight: Tensor, batch: Batch) -> None:
        super().__init__(term, reader, weight, batch)
        total = batch.logits.new_zeros(())
        for target in batch.targets():
            total += term.pixel_weights(target, total.dtype).sum()
        self._denominator = torch.where(total > 0, total, 1)

    def _sum(self, maps: Maps, strip: Strip, *, values: bool) -> Tensor:  # noqa: ARG002
        total = maps[0].sum()
        if values:
            self.value = self.value + total.detach() / self._denominator
        return total * (self.weight / self._denominator)


class LoneMeanPixels(_SummedPixels):
    """The mean as the only term: it finds the denominator in the same pass, and divides last."""

    def __init__(self, term: PixelLoss, reader: Reader, weight: Tensor, batch: Batch) -> None:
        super().__init__(term, reader, weight, batch)
        self._denominators: list[Tensor] = []  # of each strip

    def _sum(self, maps: Maps, strip: Strip, *, values: bool) -> Tensor:
        total = maps[0].sum()
        if values:
            weights = self.term.pixel_weights(strip.target, total.dtype)
            self._add_value(total, weights.sum())
        return total

    def _add_value(self, total: Tensor, denominator: Tensor) -> None:
        self.value = self.value + total.detach()
        self._denominators.append(denominator)

    def settle(self) -> bool:
        denominator = torch.stack(self._denominators).sum()
        if not self._is_decided(denominator):
            return False
        denominator = torch.where(denominator > 0, denominator, 1)
        self.value = self.value / denominator
        self.batch.gradients.scale(self.weight / denominator)
        return True

    def _is_decided(self, denominator: Tensor) -> bool:  # noqa: ARG002
        return True


class LoneKeptPixels(LoneMeanPixels):
    """The mean over the pixels that a streaming mining keeps, as the only term.

    Args:
        mining: The mining of `term`.
        whole: The term that reduces the whole batch, if the mining does not decide by strips.
    """

    def __init__(
        self,
        term: PixelLoss,
        reader: Reader,
        weight: Tensor,
        batch: Batch,
        *,
        mining: StreamingMining,
        whole: StripTerm,
    ) -> None:
        super().__init__(term, reader, weight, batch)
        self._mining, self._whole = mining, whole

    def _sum(self, maps: Maps, strip: Strip, *, values: bool) -> Tensor:
        losses, probability = maps
        kept = self._mining.kept(self.term.valid(strip.target), probability)
        total = torch.where(kept, losses, 0).sum()
        if values:
            weights = self.term.pixel_weights(strip.target, losses.dtype)
            self._add_value(total, self._mining.denominator(weights, kept))
        return total

    def _is_decided(self, denominator: Tensor) -> bool:
        num_valid = int(self.term.valid(self.batch.target).count_nonzero())
        return self._mining.decided(denominator, num_valid)

    def in_two_passes(self) -> StripTerm:
        return self._whole


class WholeMaps(ReducedTerm):
    """A pixel loss that reads the logits, and a mining that sees its maps of the whole batch."""

    def __init__(self, term: PixelLoss, reader: Reader, weight: Tensor, batch: Batch) -> None:
        super().__init__(weight, batch)
        self.term, self._reader = term, reader
        self._probabilities: list[Tensor] = []

    def look(self, strip: Strip) -> None:
        with torch.no_grad():
            losses, probability = self._reader.maps(self._reader.read(strip), strip)
        self._pieces.append(losses)
        if probability is not None:
            self._probabilities.append(probability)

    def _join(self, pieces: list[Tensor]) -> Tensor:
        return torch.cat(pieces, dim=-2)

    def _value(self, joined: Tensor) -> Tensor:
        pieces, self._probabilities = self._probabilities, []
        probability = torch.cat(pieces, dim=-2) if pieces else None
        return self.term.reduce(joined, probability, self.batch.target)

    def gradient(self, strip: Strip) -> Tensor | None:
        if self._gradient is None:
            return None
        with torch.enable_grad():
            leaf = self._reader.read(strip).requires_grad_()
            losses, _ = self._reader.maps(leaf, strip)
        weight = self._gradient[:, strip.rows]
        return self.batch.gradients.differentiate(losses, leaf, weight)


class WholeProbabilities(ReducedTerm):
    """A pixel loss of the shared softmax, and a mining that sees its maps of the whole batch.

    It keeps the log-probabilities of the target's class, so the second pass computes no loss again.
    """

    shares_softmax = True

    def __init__(self, term: TargetProbabilityLoss, weight: Tensor, batch: Batch) -> None:
        super().__init__(weight, batch)
        self.term = term

    def look(self, strip: Strip) -> None:
        self._pieces.append(strip.softmax.log_probability)

    def _join(self, pieces: list[Tensor]) -> Tensor:
        return torch.cat(pieces, dim=-2)

    def _value(self, joined: Tensor) -> Tensor:
        return self.term.reduce(*self.term.maps_of(joined, self.batch.target), self.batch.target)

    def gradient(self, strip: Strip) -> None:
        if self._gradient is not None:
            strip.wanted.add_slope(self._gradient[:, strip.rows])


def pixel_term(term: PixelLoss, weight: Tensor, batch: Batch, *, is_alone: bool) -> StripTerm:
    """Build the strip term for a pixel loss.

    Args:
        term: The term.
        weight: Its weight, ``()``.
        batch: The batch.
        is_alone: Whether it is the only term of the loss.
    """
    reader: Reader
    whole: StripTerm
    if isinstance(term, TargetProbabilityLoss) and term.shares_softmax(batch.target):
        reader, whole = SoftmaxReader(term), WholeProbabilities(term, weight, batch)
    else:
        reader = LogitReader(term, batch.target)
        whole = WholeMaps(term, reader, weight, batch)
    mining = term.mining
    if not term.is_reduced_by_mining:
        return whole
    if isinstance(mining, MeanMining) and mining.streams:
        return (LoneMeanPixels if is_alone else MeanPixels)(term, reader, weight, batch)
    # Only on the CPU: another device would have to wait for the number that decides.
    on_cpu = batch.logits.device.type == "cpu"
    if isinstance(mining, StreamingMining) and mining.streams and is_alone and on_cpu:
        return LoneKeptPixels(term, reader, weight, batch, mining=mining, whole=whole)
    return whole
