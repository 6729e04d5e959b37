"""Losses that are a formula of a few sums over pixels per class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.losses.base import Dense, Reduction, check_reduction, safe_ratio
from segtrain.losses.families.class_mean import ClassMean, class_counts, count_pixels
from segtrain.losses.scope import Scope, averaged, summed, world_size
from segtrain.precision import sums_by_class
from segtrain.schema.arguments import check_one_of


@dataclass(frozen=True)
class RegionSums:
    r"""The sums over the valid pixels of an image, or of the batch, for each class: ``(..., C)``.

    With the probability :math:`p_{ic}` and the target :math:`y_{ic}` of pixel :math:`i`:

    Attributes:
        tp: :math:`\sum_i p_{ic} y_{ic}`, soft true positives.
        predicted: :math:`\sum_i p_{ic}`.
        actual: :math:`\sum_i y_{ic}`.
        count: :math:`\sum_i 1`, ``(..., 1)``.
        tp_squared: :math:`\sum_i p_{ic}^2 y_{ic}`; None unless the loss has `needs_squares`.
        predicted_squared: :math:`\sum_i p_{ic}^2`; None unless the loss has `needs_squares`.
    """

    tp: Tensor
    predicted: Tensor
    actual: Tensor
    count: Tensor
    tp_squared: Tensor | None = None
    predicted_squared: Tensor | None = None

    @property
    def fp(self) -> Tensor:
        """Soft false positives."""
        return self.predicted - self.tp

    @property
    def fn(self) -> Tensor:
        """Soft false negatives."""
        return self.actual - self.tp

    @property
    def tn(self) -> Tensor:
        """Soft true negatives."""
        return self.count - self.predicted - self.fn


class RegionLoss(ClassMean):
    """A loss per class from sums over the valid pixels, averaged over classes.

    A subclass writes :meth:`class_loss`, or :meth:`class_values` if it needs true negatives or
    squares. The base class adds the mean over classes, ignored pixels, class weights and strips.

    Args:
        num_classes: Number of channels of the logits.
        ignore_label: Target value of the pixels that do not count.
        class_weights: One non-negative number per class, or a file that holds them: the mean over
            classes becomes the weighted mean.
        activation: How logits become probabilities: ``softmax`` for classes that exclude each
            other, ``sigmoid`` for classes that may overlap. One channel always uses a sigmoid.
        classes: The classes in the mean: ``present`` (those with a valid target pixel, because
            absent classes have no overlap to improve), ``all``, or a list of ids. One channel
            always counts.
        per_image: Sum over each image alone and average over the images that have a valid pixel,
            instead of summing over the batch. Only then does a batch equal the mean of its images.
        only_present: Whether classes without a valid target pixel are left out, also those of a
            list. None: only if `classes` is ``present``.
        reduction: ``mean``; ``none``, the loss of each class ``(C,)``, or of each image and class
            ``(N, C)`` with `per_image`, times its class weight, and 0 where it is left out of the
            mean; or ``sum``, their sum. Only ``mean`` can be trained with.

        scope: Without `per_image`, whether a training step sums over the batch of each ``process``,
            or over the batches of all processes (``global``).

    Attributes:
        needs_squares: Whether :meth:`class_values` reads the sums of squares.

    Note:
        Strips add up :meth:`sums` over the rows and call :meth:`reduce` once. With class ids and a
        softmax they take the sums from the softmax that terms share, and write the gradient into
        its memory. A subclass that overrides :meth:`sums`, `valid` or `clean`, or that sets
        `needs_squares`, is computed through autograd, strip by strip. A subclass that overrides
        :meth:`value` is computed from the whole image.
    """

    dense: Dense | None = "probability"  # type: ignore[misc]
    needs_squares: bool = False

    def __init__(
        self, *, reduction: Reduction = "mean", scope: Scope = "process", **common: Any
    ) -> None:
        super().__init__(**common)
        check_one_of("scope", scope, get_args(Scope))
        if scope == "global" and self.per_image:
            raise ConfigError("scope=global sums over all images, so it needs per_image=false")
        self.scope = scope
        self.reduction = check_reduction(reduction)

    @property
    def runs_in_strips(self) -> bool:
        return self.can_strip and type(self).value is RegionLoss.value

    def shares_softmax(self, target: Tensor) -> bool:
        is_softmax_of_ids = self.activation == "softmax" and target.dim() == 3
        has_default_sums = type(self).sums is RegionLoss.sums and not self.needs_squares
        return self._has_default_valid and has_default_sums and is_softmax_of_ids

    def class_loss(self, tp: Tensor, fp: Tensor, fn: Tensor) -> Tensor:
        """Compute the loss of each class from its soft counts, ``(..., C)`` each; all may be 0."""
        raise NotImplementedError(f"{type(self).__name__} must write class_loss or class_values")

    def class_values(self, sums: RegionSums) -> Tensor:
        """Compute the loss of each class, ``(..., C)``: by default with :meth:`class_loss`."""
        return self.class_loss(sums.tp, sums.fp, sums.fn)

    def mean(self, sums: RegionSums, weight: Tensor) -> Tensor:
        """The loss of each image, ``(...,)``: the mean over classes, weighted by ``(..., C)``."""
        return safe_ratio((weight * self.class_values(sums)).sum(-1), weight.sum(-1))

    def sums(self, logits: Tensor, target: Tensor) -> Tensor:
        """The sums of some rows, ``(N, K, C)``: tp, predicted, actual, and squares if needed."""
        valid = self.valid(target)
        clean = self.clean(target, valid).flatten(-2)
        weight = valid.to(logits.dtype).flatten(1)
        softmax = self.activation == "softmax"
        probability = (logits.softmax(1) if softmax else logits.sigmoid()).flatten(2)
        rows = [probability] if not self.needs_squares else [probability, probability.square()]
        tp = [_overlap(row, clean, weight) for row in rows]
        # Not a matrix product, which rounds more than a sum does over a million numbers.
        predicted = [(row * weight[:, None]).sum(-1) for row in rows]
        actual = class_counts(clean, weight, self.num_classes)
        return torch.stack([tp[0], predicted[0], actual, *tp[1:], *predicted[1:]], dim=1)

    def each(self, sums: RegionSums, weight: Tensor) -> Tensor:
        """The loss of each image and class times its weight, ``(..., C)``."""
        return torch.where(weight > 0, weight * self.class_values(sums), 0)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.reduction == "mean":
            return super().forward(logits, target)
        with torch.autocast(logits.device.type, enabled=False):
            logits, target = self.prepared(logits, target)
            found, counted = self._found(self.sums(logits, target), target)
            each = self.each(found, self._mean_weights(found.actual) * counted)
        if self.reduction == "sum":
            return each.sum()
        return each if self.per_image else each[0]

    def reduce(self, sums: Tensor, target: Tensor) -> Tensor:
        """Reduce the sums of the whole batch, ``(N, K, C)``, to the value ``()``."""
        found, counted = self._found(sums, target)
        weight = self._mean_weights(found.actual) * counted
        return safe_ratio(self.mean(found, weight).sum(), counted.sum())

    @property
    def _is_global(self) -> bool:
        """Whether this is a training step that sums over all processes."""
        return self.scope == "global" and self.training and world_size() > 1

    def term_share(self, target: Tensor) -> Tensor:
        share = super().term_share(target)
        return averaged(share) if self._is_global else share  # all processes have the same value

    def _found(self, sums: Tensor, target: Tensor) -> tuple[RegionSums, Tensor]:
        """The sums by name, and 1 for each image that counts, ``(..., 1)``."""
        count = count_pixels(self.valid(target))[:, None]
        if not self.per_image:
            sums, count = sums.sum(0, keepdim=True), count.sum(0, keepdim=True)
        if self._is_global:
            sums, count = summed(sums), summed(count)
        tp, predicted, actual, *squares = sums.unbind(1)
        found = RegionSums(tp, predicted, actual.detach(), count.to(sums.dtype), *squares)
        # An image without a valid pixel is left out of the mean; it would score as perfect.
        return found, (count > 0).to(sums.dtype)

    def value(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.reduce(self.sums(logits, target), target)


def _overlap(values: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Sum `values` ``(N, C, P)`` at the class of a clean target, ``(N, C)``."""
    if target.dim() == 3:
        return (values * target * weight[:, None]).sum(-1)
    if values.shape[1] == 1:
        return (values * (weight * target)[:, None]).sum(-1)
    of_target = values.gather(1, target[:, None])[:, 0] * weight
    return sums_by_class(of_target, target, values.shape[1])
