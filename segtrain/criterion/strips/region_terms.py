"""Region losses in strips: their sums add up over strips, and the formula is applied once."""

from __future__ import annotations

import torch
from torch import Tensor

from segtrain.criterion.strips.batch import Batch, Strip
from segtrain.criterion.strips.strip_term import ReducedTerm
from segtrain.losses import RegionLoss
from segtrain.losses.families.class_mean import class_counts


class LogitSums(ReducedTerm):
    """A region loss whose sums are computed from the logits, with autograd."""

    def __init__(self, term: RegionLoss, weight: Tensor, batch: Batch) -> None:
        super().__init__(weight, batch)
        self.term = term

    def look(self, strip: Strip) -> None:
        with torch.no_grad():
            self._pieces.append(self.term.sums(strip.logits, strip.target))

    def _join(self, pieces: list[Tensor]) -> Tensor:
        return torch.stack(pieces).sum(0)

    def _value(self, joined: Tensor) -> Tensor:
        return self.term.reduce(joined, self.batch.target)

    def gradient(self, strip: Strip) -> Tensor | None:
        if self._gradient is None:
            return None
        with torch.enable_grad():
            leaf = strip.logits.detach().requires_grad_()
            sums = self.term.sums(leaf, strip.target)
        return self.batch.gradients.differentiate(sums, leaf, self._gradient)


class SoftmaxSums(LogitSums):
    """A region loss whose sums come from the shared softmax."""

    shares_softmax = True

    def look(self, strip: Strip) -> None:
        self._pieces.append(torch.stack(strip.softmax.sums(), dim=1))

    def _join(self, pieces: list[Tensor]) -> Tensor:
        return torch.cat([super()._join(pieces), self._actual()[:, None]], dim=1)

    def _actual(self) -> Tensor:
        """The number of pixels of each class in each image, ``(N, C)``."""
        term, logits = self.term, self.batch.logits
        total = logits.new_zeros(len(logits), term.num_classes)
        for target in self.batch.targets():
            valid = term.valid(target)
            clean = term.clean(target, valid).flatten(1)
            total += class_counts(clean, valid.to(total.dtype).flatten(1), term.num_classes)
        return total

    def gradient(self, strip: Strip) -> None:
        if self._gradient is not None:
            strip.wanted.add_sums(self._gradient[:, 1], self._gradient[:, 0])


def region_term(term: RegionLoss, weight: Tensor, batch: Batch) -> ReducedTerm:
    """Build the strip term for a region loss."""
    kind = SoftmaxSums if term.shares_softmax(batch.target) else LogitSums
    return kind(term, weight, batch)
