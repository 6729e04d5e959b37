"""One term on its way through the strips: the methods that the walk calls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from segtrain.criterion.strips.batch import Batch, Strip


class StripTerm(ABC):
    """The value and the gradient of one term, from strips of the batch.

    The walk calls :meth:`look` with every strip, then :meth:`reduce`, then :meth:`gradient` with
    every strip again. If `is_one_pass` is true for all terms, it calls :meth:`value_and_gradient`
    with every strip and then :meth:`settle`.

    Args:
        weight: The weight of the term, ``()``.
        batch: The batch.

    Attributes:
        value: The value of the term, ``()``, before its weight.
        shares_softmax: Whether it reads `Strip.softmax` and writes to `Strip.wanted`, instead of
            reading `Strip.logits`.
        is_one_pass: Whether the strips give their gradients before the whole batch has been seen.
        is_by_class: Whether it upsamples the classes one by one in :meth:`reduce`.
    """

    shares_softmax: bool = False
    is_one_pass: ClassVar[bool] = False
    is_by_class: ClassVar[bool] = False

    def __init__(self, weight: Tensor, batch: Batch) -> None:
        self.weight, self.batch = weight, batch
        self.value = batch.logits.new_zeros(())

    @property
    def needs_look(self) -> bool:
        """Whether :meth:`look` does anything."""
        return True

    @abstractmethod
    def look(self, strip: Strip) -> None:
        """Take from the strip what the value needs, without a graph."""

    def reduce(self, *, wants_gradient: bool) -> None:  # noqa: B027  not every term needs it
        """Compute the value once all strips have been seen, and what the gradient needs."""

    @property
    @abstractmethod
    def needs_gradient(self) -> bool:
        """Whether :meth:`gradient` has anything to add after :meth:`reduce`."""

    @abstractmethod
    def gradient(self, strip: Strip) -> Tensor | None:
        """Return the gradient for the strip's logits, ``(N, C, R, W)``; None: zero.

        A term that shares the softmax adds its gradient to `Strip.wanted` and returns None.
        """

    def value_and_gradient(self, strip: Strip) -> Tensor | None:
        """:meth:`look` and :meth:`gradient` at once."""
        self.look(strip)
        return self.gradient(strip)

    def settle(self) -> bool:
        """Complete value and gradients after one pass; False: the pass was in vain."""
        return True

    def in_two_passes(self) -> StripTerm:
        """The term that takes the place of this one if :meth:`settle` returns False."""
        return self


class ReducedTerm(StripTerm):
    """A term whose gradient depends on the whole batch.

    :meth:`look` collects pieces of the strips. :meth:`reduce` joins them, computes the value and
    differentiates it for the joined pieces.
    """

    def __init__(self, weight: Tensor, batch: Batch) -> None:
        super().__init__(weight, batch)
        self._pieces: list[Tensor] = []
        self._gradient: Tensor | None = None  # for the joined pieces

    @abstractmethod
    def _join(self, pieces: list[Tensor]) -> Tensor:
        """Join the pieces of all strips."""

    @abstractmethod
    def _value(self, joined: Tensor) -> Tensor:
        """Compute the value ``()`` from the joined pieces."""

    def reduce(self, *, wants_gradient: bool) -> None:
        joined = self._join(self._pieces)
        self._pieces.clear()
        with torch.set_grad_enabled(wants_gradient):
            leaf = joined.requires_grad_(wants_gradient)
            value = self._value(leaf)
        self.value = value.detach()
        if wants_gradient:
            self._gradient = self.batch.gradients.differentiate(value, leaf, self.weight)

    @property
    def needs_gradient(self) -> bool:
        return self._gradient is not None
