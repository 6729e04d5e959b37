"""What a loss is: a map of pixels that a mining reduces, or a few sums that a formula reduces.

Both halves are separate methods so that whoever holds the logits may walk them in strips of rows:
    `statistics` of a strip,
`join` of all strips, `finish` once (see :mod:`segtrain.strips`). A loss computes at the resolution
of its target, in float32 or better, and never resizes, moves or changes what it is given.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from segtrain.errors import ConfigError
from segtrain.losses.mining import MeanMining, Mining, build_mining

ClassWeights = Sequence[float] | None
MiningSpec = str | Mapping[str, object] | None


class Loss(nn.Module, ABC):
    """A scalar from logits and target of one resolution, made of one or several terms.

    Args:
        num_classes: Number of channels of the logits.
        ignore_label: Target value of the pixels that do not count.
    """

    registered_name: ClassVar[str] = ""

    def __init__(self, *, num_classes: int, ignore_label: int = 255) -> None:
        super().__init__()
        if num_classes < 1:
            raise ConfigError(f"num_classes must be at least 1, got {num_classes}")
        if 0 <= ignore_label < num_classes:
            raise ConfigError(
                f"ignore_label {ignore_label} is also a class id: num_classes is {num_classes}"
            )
        self.num_classes = num_classes
        self.ignore_label = ignore_label

    @abstractmethod
    def terms(self) -> dict[str, Term]:
        """The terms by name; a loss that is no combination has one, itself."""

    def combine(self, values: Tensor) -> Tensor:
        """The scalar that is trained, from the values ``(T,)`` of the terms: their sum."""
        return values.sum()

    def share(self, target: Tensor) -> Tensor:
        """How much `target` counts among the batches of one step, for each term: ``(T,)``.

        A step may see its batch in parts (accumulation, several processes). Each part's value,
        scaled by its share over the step's share, adds up to the mean over all valid pixels of the
        step.
        """
        return torch.stack([term.term_share(target) for term in self.terms().values()])

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss.

        Shape:
            - logits: ``(N, C, H, W)``, float, unnormalised. Computed in float32 or better.
            - target: ``(N, H, W)``, integer, in ``[0, C)`` or ``ignore_label``.
            - output: ``()``, float32 (float64 for float64 logits).

        Raises:
            TypeError: When a dtype is wrong.
            ValueError: When a shape is wrong or a target value is neither a class id nor
                ``ignore_label``.
        """
        target = self.check_target(target, logits)
        with torch.autocast(logits.device.type, enabled=False):
            logits = at_least_float32(logits)
            values = [
                term.finish(term.statistics(logits, target), target)
                for term in self.terms().values()
            ]
            return self.combine(torch.stack(values))

    def check_target(self, target: Tensor, logits: Tensor, *, resized: bool = False) -> Tensor:
        """`target` as int64 after the checks of :meth:`forward`, size left out when `resized`."""
        if logits.dim() != 4 or logits.shape[1] != self.num_classes:
            raise ValueError(
                f"logits must be (N, {self.num_classes}, H, W), got {tuple(logits.shape)}"
            )
        if not logits.is_floating_point():
            raise TypeError(f"logits must be a floating point tensor, got {logits.dtype}")
        if target.dim() != 3 or target.shape[0] != logits.shape[0]:
            raise ValueError(
                f"target must be (N, H, W) with N = {logits.shape[0]}, got {tuple(target.shape)}"
            )
        if not resized and target.shape[1:] != logits.shape[2:]:
            raise ValueError(
                f"target is {tuple(target.shape[1:])} but logits are {tuple(logits.shape[2:])}:"
                " a loss does not resize; use segtrain.build_criterion"
            )
        if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
            raise TypeError(f"target must hold integers, got {target.dtype}")
        target = target.long()
        if (
            target.device.type == "cpu" and target.numel()
        ):  # elsewhere a look at the values would wait for the device
            self._check_values(target)
        return target

    def _check_values(self, target: Tensor) -> None:
        largest = max(self.num_classes, 2) - 1  # one logit channel tells two classes apart
        outside = (target > largest) | (target < 0)
        if bool(outside.any()) and bool((outside := outside & (target != self.ignore_label)).any()):
            wrong = int(target[outside][0])
            raise ValueError(
                f"target holds {wrong} at {int(outside.sum())} or fewer pixels; allowed are 0 to"
                f" {largest} and ignore_label {self.ignore_label}"
            )

    def extra_repr(self) -> str:
        return f"num_classes={self.num_classes}, ignore_label={self.ignore_label}"


class Term(Loss):
    """A loss that is no combination of others, in three parts so that it can run in strips."""

    can_strip: ClassVar[bool] = True

    def terms(self) -> dict[str, Term]:
        return {self.registered_name or type(self).__name__: self}

    @abstractmethod
    def statistics(self, logits: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        """What the loss needs to know of these rows, ``(N, C, R, W)`` and ``(N, R, W)``."""

    @abstractmethod
    def join(self, parts: list[Tensor]) -> Tensor:
        """One statistic of the whole image from those of its strips, in the order of the rows."""

    @abstractmethod
    def part(self, gradient: Tensor, rows: slice) -> Tensor:
        """The inverse of :meth:`join` for gradients: what of `gradient` belongs to `rows`."""

    @abstractmethod
    def finish(self, statistics: tuple[Tensor, ...], target: Tensor) -> Tensor:
        """The value ``()`` from the statistics of the whole batch."""

    @abstractmethod
    def term_share(self, target: Tensor) -> Tensor:
        """:meth:`Loss.share` of this term, ``()``."""

    def valid(self, target: Tensor) -> Tensor:
        """Where a pixel counts: ``(N, H, W)`` bool."""
        return target != self.ignore_label


class PixelLoss(Term):
    """A loss per pixel, averaged over the valid pixels or reduced by a mining.

    A subclass writes :meth:`pixel_loss`; ignored pixels, class weights, mining and strips come with
    it.

    Args:
        num_classes: Number of channels of the logits.
        ignore_label: Target value of the pixels that do not count.
        class_weights: One non-negative number per class; the mean becomes the weighted mean, as in
            :class:`torch.nn.CrossEntropyLoss`.
        mining: Which pixels count how much: the name of a mining, or a mapping with its name and
            parameters.

    Example:
        >>> class Squared(PixelLoss):
        ...     def __init__(self, power: float = 2.0, **common):
        ...         super().__init__(**common)
        ...         self.power = power
        ...     def pixel_loss(self, logits, target):
        ...         return (1 - self.target_probability(logits, target)) ** self.power
        >>> loss = Squared(num_classes=2, ignore_label=255)
        >>> loss(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 255]]]))
        tensor(0.2500)
    """

    def __init__(
        self,
        *,
        num_classes: int,
        ignore_label: int = 255,
        class_weights: ClassWeights = None,
        mining: MiningSpec = None,
    ) -> None:
        super().__init__(num_classes=num_classes, ignore_label=ignore_label)
        self.class_weights: Tensor | None
        self.register_buffer(
            "class_weights", check_class_weights(class_weights, num_classes), persistent=False
        )
        self.mining: Mining = build_mining(mining) if mining is not None else MeanMining()

    @abstractmethod
    def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of each pixel.

        Shape:
            - logits: ``(N, C, R, W)``, float32 or float64; R rows of the image, which may be a part
              of it.
            - target: ``(N, R, W)``, int64, class ids only: ignored pixels come as class 0 and are
              dropped afterwards.
            - output: ``(N, R, W)``.
        """

    def target_probability(self, logits: Tensor, target: Tensor) -> Tensor:
        """Probability of the target's class ``(N, R, W)``: minings tell hard pixels by it."""
        if self.num_classes == 1:
            return ((2 * target - 1) * logits[:, 0]).sigmoid()
        return logits.log_softmax(1).gather(1, target[:, None])[:, 0].exp()

    def weighted_pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """:meth:`pixel_loss` times the weight of the target's class."""
        values = self.pixel_loss(logits, target)
        return (
            values
            if self.class_weights is None
            else values * self.class_weights.to(values.dtype)[target]
        )

    def statistics(self, logits: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        valid = self.valid(target)
        ids = torch.where(valid, target, 0)
        values = self.weighted_pixel_loss(logits, ids)
        if values.shape != ids.shape:
            raise ConfigError(
                f"pixel_loss of {type(self).__name__} must return a map of {tuple(ids.shape)},"
                f" got {tuple(values.shape)}"
            )
        values = torch.where(valid, values, 0)
        if not self.mining.needs_probability:
            return (values,)
        with torch.no_grad():
            return values, self.target_probability(logits, ids)

    def join(self, parts: list[Tensor]) -> Tensor:
        return torch.cat(parts, dim=-2)

    def part(self, gradient: Tensor, rows: slice) -> Tensor:
        return gradient[..., rows, :]

    def finish(self, statistics: tuple[Tensor, ...], target: Tensor) -> Tensor:
        values, *probability = statistics
        weights = self.pixel_weights(target, values.dtype)
        value: Tensor = self.mining(values, weights, self.valid(target), *probability)
        return value

    def term_share(self, target: Tensor) -> Tensor:
        return self.mining.share(self.pixel_weights(target, torch.float32), self.valid(target))

    def pixel_weights(self, target: Tensor, dtype: torch.dtype) -> Tensor:
        """Weight of each pixel in the mean, ``(N, H, W)``: its class's, 0 where it is ignored."""
        valid = self.valid(target)
        if self.class_weights is None:
            return valid.to(dtype)
        return torch.where(valid, self.class_weights.to(dtype)[torch.where(valid, target, 0)], 0)


class RegionLoss(Term):
    """A loss per class from sums over the valid pixels: true and false positives, false negatives.

    A subclass writes :meth:`class_loss`; the mean over classes, ignored pixels, class weights and
    strips come with it. Probabilities are the softmax of the logits (their sigmoid for one
    channel).

    Args:
        num_classes: Number of channels of the logits.
        ignore_label: Target value of the pixels that do not count.
        class_weights: One non-negative number per class: the mean over classes becomes the weighted
            mean.
        classes: Over which classes the mean goes: ``present`` (those with a valid target pixel; a
            class that the batch does not show has no overlap to improve), ``all``, or a list of
            ids.
        per_image: Sum over each image alone and average over the images that have a valid pixel,
            instead of summing over the batch. Only then does a batch equal the mean of its images.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        ignore_label: int = 255,
        class_weights: ClassWeights = None,
        classes: Literal["present", "all"] | list[int] = "present",
        per_image: bool = False,
    ) -> None:
        super().__init__(num_classes=num_classes, ignore_label=ignore_label)
        self.class_weights: Tensor | None
        self.register_buffer(
            "class_weights", check_class_weights(class_weights, num_classes), persistent=False
        )
        self.per_image = per_image
        self.present_only = classes == "present"
        chosen = range(num_classes) if isinstance(classes, str) else classes
        if not chosen or not all(0 <= index < num_classes for index in chosen):
            raise ConfigError(f"classes must be ids from 0 to {num_classes - 1}, got {classes}")
        selected = torch.zeros(num_classes).index_fill_(0, torch.tensor(list(chosen)), 1.0)
        self.selected: Tensor
        self.register_buffer("selected", selected, persistent=False)

    @abstractmethod
    def class_loss(self, tp: Tensor, fp: Tensor, fn: Tensor) -> Tensor:
        """The loss of each class from its soft counts, ``(..., C)`` each, which may all be 0."""

    def statistics(self, logits: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        # Sums, not maps: a matrix product with the mask of valid pixels needs no copy of the
        # probabilities.
        valid = self.valid(target)
        ids = torch.where(valid, target, 0).flatten(1)
        weight = valid.to(logits.dtype).flatten(1)
        if self.num_classes == 1:
            probability = logits.sigmoid().flatten(2)
            positive = weight * ids
            tp = torch.einsum("ncp,np->nc", probability, positive)
            actual = positive.sum(1, keepdim=True)
        else:
            probability = logits.softmax(1).flatten(2)
            of_target = probability.gather(1, ids[:, None])[:, 0] * weight
            zeros = logits.new_zeros(logits.shape[0], self.num_classes)
            tp = zeros.scatter_add(1, ids, of_target)
            actual = zeros.scatter_add(1, ids, weight)
        predicted = torch.einsum("ncp,np->nc", probability, weight)
        return (torch.stack([tp, predicted - tp, actual - tp], dim=1),)

    def join(self, parts: list[Tensor]) -> Tensor:
        return torch.stack(parts).sum(0)

    def part(self, gradient: Tensor, rows: slice) -> Tensor:  # noqa: ARG002
        return gradient  # every strip adds to the same sums

    def finish(self, statistics: tuple[Tensor, ...], target: Tensor) -> Tensor:
        (sums,) = statistics
        sums = sums if self.per_image else sums.sum(0, keepdim=True)
        tp, fp, fn = sums.unbind(1)
        weight = self.selected.to(tp.dtype) * (
            1.0
            if self.class_weights is None
            else self.class_weights[-self.num_classes :].to(tp.dtype)
        )
        actual = (tp + fn).detach()
        if self.present_only and self.num_classes > 1:
            weight = weight * (actual > 0.5)
        # An image with no valid pixel leaves the mean rather than scoring as perfect.
        counted = self.valid(target).flatten(1).any(1)
        counted = counted if self.per_image else counted.any(0, keepdim=True)
        weight = weight * counted[:, None]
        per_image = safe_ratio((weight * self.class_loss(tp, fp, fn)).sum(1), weight.sum(1))
        return safe_ratio(per_image.sum(), counted.to(tp.dtype).sum())

    def term_share(self, target: Tensor) -> Tensor:
        valid = self.valid(target)
        return (valid.flatten(1).any(1) if self.per_image else valid).sum().float()


def safe_ratio(numerator: Tensor, denominator: Tensor, empty: float = 0.0) -> Tensor:
    """`numerator` / `denominator`, and `empty` with a zero gradient where the denominator is 0.

    Example:
        >>> safe_ratio(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 0.0]), empty=1.0)
        tensor([0.5000, 1.0000])
    """
    exists = denominator > 0
    ratio = numerator / torch.where(exists, denominator, 1)
    return torch.where(exists, ratio, ratio * 0 + empty)


def at_least_float32(logits: Tensor) -> Tensor:
    """`logits` in float64 if they are, else in float32."""
    return logits if logits.dtype == torch.float64 else logits.float()


def check_class_weights(weights: ClassWeights, num_classes: int) -> Tensor | None:
    """`weights` as a float32 tensor ``(C,)``, or None; two for one channel, which has two classes.

    Raises:
        ConfigError: When the length is wrong, or a weight is negative or not finite, or all are 0.
    """
    if weights is None:
        return None
    values = torch.as_tensor(weights, dtype=torch.float32)
    if values.shape != (max(num_classes, 2),):
        raise ConfigError(
            f"class_weights has {values.numel()} values, but num_classes is {num_classes}"
            f" and {max(num_classes, 2)} are needed"
        )
    if not bool(torch.isfinite(values).all()) or bool((values < 0).any()) or not bool(values.any()):
        raise ConfigError(
            f"class_weights must be finite, not negative and not all 0, got {list(weights)}"
        )
    return values
