"""Class-map losses: each class is upsampled on its own, between the two passes over the strips."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from segtrain.criterion.strips.batch import Batch, Strip
from segtrain.criterion.strips.strip_term import StripTerm
from segtrain.losses import ClassMapLoss
from segtrain.losses.families.class_map import ClassMap


class _ClassMaps(StripTerm):
    """A class-map loss. Subclasses turn logits into a map, and its gradient into that of logits."""

    is_by_class = True

    def __init__(self, term: ClassMapLoss, weight: Tensor, batch: Batch) -> None:
        super().__init__(weight, batch)
        self.term = term

    @abstractmethod
    def _activate(self, logits: Tensor, item: ClassMap) -> Tensor:
        """Turn the upsampled logits of a class, ``(n, H, W)``, into its map, in place."""

    @abstractmethod
    def _gradient_for_logits(self, gradient: Tensor, values: Tensor, item: ClassMap) -> Tensor:
        """The gradient for the upsampled logits of a class, from that for its map."""

    def reduce(self, *, wants_gradient: bool) -> None:
        for item in self.term.class_maps(self.batch.target):
            with torch.set_grad_enabled(wants_gradient):
                leaf = self._map(item).requires_grad_(wants_gradient)
                value = self.term.map_value(leaf, self.batch.target, item)
            self.value = self.value + value.detach()
            if wants_gradient:
                gradient = self.batch.gradients.differentiate(value, leaf, self.weight)
                if gradient is not None:
                    self._add_gradient(gradient, leaf.detach(), item)

    def _map(self, item: ClassMap) -> Tensor:
        """The map of one class, ``(n, H, W)``, without a graph."""
        channel = self._logits()[item.images, item.index][:, None]
        upsampled = self.batch.upsampling.image(channel, self.batch.strip_rows)[:, 0]
        return self._activate(upsampled, item).detach()

    def _logits(self) -> Tensor:
        return self.batch.logits

    def _add_gradient(self, gradient: Tensor, values: Tensor, item: ClassMap) -> None:
        gradient = self._gradient_for_logits(gradient, values, item)
        total = self.batch.gradients.logits[item.images, item.index][:, None]
        rows = self.batch.strip_rows
        self.batch.upsampling.add_image_adjoint(gradient[:, None], rows, total)

    @property
    def needs_look(self) -> bool:
        return False

    def look(self, strip: Strip) -> None:
        pass

    @property
    def needs_gradient(self) -> bool:
        return False

    def gradient(self, strip: Strip) -> Tensor | None:  # noqa: ARG002
        return None


class LogitMaps(_ClassMaps):
    """A class-map loss that reads the logits."""

    def _activate(self, logits: Tensor, item: ClassMap) -> Tensor:  # noqa: ARG002
        return logits

    def _gradient_for_logits(self, gradient: Tensor, values: Tensor, item: ClassMap) -> Tensor:  # noqa: ARG002
        return gradient


class SigmoidMaps(_ClassMaps):
    """A class-map loss of a sigmoid."""

    def _activate(self, logits: Tensor, item: ClassMap) -> Tensor:  # noqa: ARG002
        return logits.sigmoid_()

    def _gradient_for_logits(self, gradient: Tensor, values: Tensor, item: ClassMap) -> Tensor:  # noqa: ARG002
        return gradient * values * (1 - values)


class SoftmaxMaps(_ClassMaps):
    r"""A class-map loss of a softmax.

    The first pass gives it the normaliser. The gradient for the logits is

    .. math:: p_c \frac{\partial L}{\partial p_c} - p_c \sum_k p_k \frac{\partial L}{\partial p_k}

    It adds the first part for one class at a time. The sum over classes goes to `Batch.offset`, and
    the second pass subtracts the second part.
    """

    shares_softmax = True

    def __init__(self, term: ClassMapLoss, weight: Tensor, batch: Batch) -> None:
        super().__init__(term, weight, batch)
        self._pieces: list[Tensor] = []  # of the normaliser
        self._normaliser = torch.empty(0)

    @property
    def needs_look(self) -> bool:
        return True

    def look(self, strip: Strip) -> None:
        self._pieces.append(strip.softmax.log_normaliser)

    def reduce(self, *, wants_gradient: bool) -> None:
        self._normaliser = torch.cat(self._pieces, dim=-2)
        self._pieces.clear()
        super().reduce(wants_gradient=wants_gradient)
        self._normaliser = torch.empty(0)

    def _logits(self) -> Tensor:
        return self.batch.lowered_logits  # as the normaliser is

    def _activate(self, logits: Tensor, item: ClassMap) -> Tensor:
        return (logits - self._normaliser[item.images]).exp_()

    def _gradient_for_logits(self, gradient: Tensor, values: Tensor, item: ClassMap) -> Tensor:
        gradient = gradient * values
        if self.batch.offset is None:
            num_images, size = len(self.batch.logits), self.batch.upsampling.size
            self.batch.offset = self.batch.logits.new_zeros(num_images, *size)
        self.batch.offset[item.images] += gradient
        return gradient

    @property
    def needs_gradient(self) -> bool:
        return self.batch.offset is not None

    def gradient(self, strip: Strip) -> None:
        if self.batch.offset is not None:
            strip.wanted.offset = self.batch.offset[:, strip.rows]


def class_map_term(term: ClassMapLoss, weight: Tensor, batch: Batch) -> StripTerm:
    """Build the strip term for a class-map loss."""
    if term.shares_softmax(batch.target):
        return SoftmaxMaps(term, weight, batch)
    return (LogitMaps if term.reads_logits else SigmoidMaps)(term, weight, batch)
