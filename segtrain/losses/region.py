"""Losses that are a formula of a few sums per class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.losses.base import Dense, Term, safe_ratio
from segtrain.losses.weights import ClassWeights, check_class_weights
from segtrain.schema import did_you_mean

Classes = Literal["present", "all"] | list[int]
Activation = Literal["softmax", "sigmoid"]


@dataclass(frozen=True)
class RegionSums:
    r"""Sums over the valid pixels of an image, or of the batch, for each class: ``(..., C)``.

    With the probability :math:`p_{ic}` and the target :math:`y_{ic}` of pixel :math:`i`:

    Attributes:
        tp: :math:`\sum_i p_{ic} y_{ic}`, soft true positives.
        predicted: :math:`\sum_i p_{ic}`.
        actual: :math:`\sum_i y_{ic}`.
        count: :math:`\sum_i 1`, ``(..., 1)``.
        tp_squared: :math:`\sum_i p_{ic}^2 y_{ic}`, for losses with ``needs_squares``.
        predicted_squared: :math:`\sum_i p_{ic}^2`, likewise.
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


class ClassMean(Term):
    """A mean over classes, of the batch or of each image: what region and class-map losses share.

    See :class:`RegionLoss` for the arguments.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        ignore_label: int = 255,
        class_weights: ClassWeights = None,
        activation: Activation = "softmax",
        classes: Classes = "present",
        per_image: bool = False,
    ) -> None:
        super().__init__(num_classes=num_classes, ignore_label=ignore_label)
        self.class_weights: Tensor | None
        self.register_buffer(
            "class_weights", check_class_weights(class_weights, num_classes), persistent=False
        )
        _check_word("activation", activation, get_args(Activation))
        self.activation = activation if num_classes > 1 else "sigmoid"
        self.per_image = per_image
        self.present_only = classes == "present"
        self.selected: Tensor
        self.register_buffer("selected", self._choose_classes(classes), persistent=False)

    def _choose_classes(self, classes: Classes) -> Tensor:
        chosen: Sequence[int]
        if isinstance(classes, str):
            _check_word("classes", classes, ("present", "all"), ", or a list of ids")
            chosen = range(self.num_classes)
        else:
            chosen = classes
        if not chosen or not all(0 <= index < self.num_classes for index in chosen):
            raise ConfigError(
                f"classes must be ids from 0 to {self.num_classes - 1}, got {classes}"
            )
        return torch.zeros(self.num_classes).index_fill_(0, torch.tensor(list(chosen)), 1.0)

    def _mean_weights(self, actual: Tensor) -> Tensor:
        """What each class weighs in the mean, ``(..., C)``, from its target pixels `actual`."""
        weight = self.selected.to(actual.dtype)
        if self.class_weights is not None:  # one channel has two weights, and is the second class
            weight = weight * self.class_weights[-self.num_classes :].to(actual.dtype)
        if self.present_only and self.num_classes > 1:
            return weight * (actual > 0)
        return weight.expand_as(actual)

    def term_share(self, target: Tensor) -> Tensor:
        count = count_pixels(self.valid(target))
        return (count.sign() if self.per_image else count).sum().float()


class RegionLoss(ClassMean):
    """A loss per class from sums over the valid pixels, averaged over classes.

    A subclass writes :meth:`class_loss` (or :meth:`class_values`, where true negatives or squares
    are needed); the mean over classes, ignored pixels, class weights and strips come with it.

    Args:
        num_classes: Number of channels of the logits.
        ignore_label: Target value of the pixels that do not count.
        class_weights: One non-negative number per class, or a file that holds them: the mean over
            classes becomes the weighted mean.
        activation: What makes probabilities of logits: ``softmax`` for classes that exclude each
            other, ``sigmoid`` for a yes or no per class. One channel is always a sigmoid.
        classes: Over which classes the mean goes: ``present`` (those with a valid target pixel; a
            class that the batch does not show has no overlap to improve), ``all``, or a list of
            ids.
        per_image: Sum over each image alone and average over the images that have a valid pixel,
            instead of summing over the batch. Only then does a batch equal the mean of its images.
    """

    dense: Dense | None = "probability"  # type: ignore[misc]
    needs_squares: bool = False

    def class_loss(self, tp: Tensor, fp: Tensor, fn: Tensor) -> Tensor:
        """The loss of each class from its soft counts, ``(..., C)`` each, which may all be 0."""
        raise NotImplementedError(f"{type(self).__name__} must write class_loss or class_values")

    def class_values(self, sums: RegionSums) -> Tensor:
        """The loss of each class, ``(..., C)``: :meth:`class_loss` unless overridden."""
        return self.class_loss(sums.tp, sums.fp, sums.fn)

    def mean(self, sums: RegionSums, weight: Tensor) -> Tensor:
        """The loss of each image ``(...,)``: the mean of the classes by `weight` ``(..., C)``."""
        return safe_ratio((weight * self.class_values(sums)).sum(-1), weight.sum(-1))

    def fuses(self, target: Tensor) -> bool:
        """Whether the sums are those of a softmax and of class ids, which strips make in place."""
        return self.activation == "softmax" and target.dim() == 3 and not self.needs_squares

    def sums(self, logits: Tensor, target: Tensor) -> Tensor:
        """``(N, K, C)``: true positives, predicted and actual of these rows; squares if needed."""
        valid = self.valid(target)
        clean = self.clean(target, valid).flatten(-2)
        weight = valid.to(logits.dtype).flatten(1)
        softmax = self.activation == "softmax"
        probability = (logits.softmax(1) if softmax else logits.sigmoid()).flatten(2)
        rows = [probability] if not self.needs_squares else [probability, probability.square()]
        tp = [_overlap(row, clean, weight) for row in rows]
        # Not a matrix product: it adds a million numbers with less care than a sum does.
        predicted = [(row * weight[:, None]).sum(-1) for row in rows]
        actual = class_counts(clean, weight, self.num_classes)
        return torch.stack([tp[0], predicted[0], actual, *tp[1:], *predicted[1:]], dim=1)

    def reduce(self, sums: Tensor, target: Tensor) -> Tensor:
        """The value ``()`` from the sums ``(N, K, C)`` of the whole batch."""
        count = count_pixels(self.valid(target))[:, None]
        if not self.per_image:
            sums, count = sums.sum(0, keepdim=True), count.sum(0, keepdim=True)
        tp, predicted, actual, *squares = sums.unbind(1)
        found = RegionSums(tp, predicted, actual.detach(), count.to(sums.dtype), *squares)
        # An image with no valid pixel leaves the mean rather than scoring as perfect.
        counted = (count > 0).to(sums.dtype)
        weight = self._mean_weights(found.actual) * counted
        return safe_ratio(self.mean(found, weight).sum(), counted.sum())

    def value(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.reduce(self.sums(logits, target), target)


def _check_word(name: str, word: str, known: Sequence[str], also: str = "") -> None:
    """Refuse a `word` that is not `known`, where the schema of a config did not."""
    if word not in known:
        raise ConfigError(f"unknown {name} {word!r}{did_you_mean(str(word), known)}{also}")


def _overlap(values: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """The sums ``(N, C)`` of `values` ``(N, C, P)`` at the target's class, in a clean target."""
    if target.dim() == 3:
        return (values * target * weight[:, None]).sum(-1)
    if values.shape[1] == 1:
        return (values * (weight * target)[:, None]).sum(-1)
    # A scatter adds one after the other, and so many small numbers need more than float32.
    of_target = (values.gather(1, target[:, None])[:, 0] * weight).double()
    total = of_target.new_zeros(values.shape[:2]).scatter_add(1, target, of_target)
    return total.to(values.dtype)


def count_pixels(valid: Tensor) -> Tensor:
    """How many pixels count in each image, ``(N,)`` int64, from ``(N, H, W)`` bool."""
    if not len(valid):
        return valid.new_zeros(0, dtype=torch.long)
    # A sum along an axis would first make an int64 of every pixel.
    return torch.stack([image.count_nonzero() for image in valid])


def class_counts(target: Tensor, weight: Tensor, num_classes: int) -> Tensor:
    """How many pixels each class has in each image, ``(N, C)``.

    Args:
        target: Clean, ``(N, P)`` class ids or ``(N, C, P)`` dense.
        weight: ``(N, P)``, 1 where a pixel counts and 0 elsewhere; its dtype is the result's.
        num_classes: C.
    """
    if target.dim() == 3:
        return (target * weight[:, None]).sum(-1)
    if num_classes == 1:
        return (weight * target).sum(1, keepdim=True)
    total = weight.new_zeros(len(target), num_classes, dtype=torch.long)
    return total.scatter_add(1, target, weight.long()).to(weight.dtype)
