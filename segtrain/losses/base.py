"""The base classes of losses: a loss has one or more terms, each a scalar of logits and target.

There are three families of terms. Each can be computed without holding all upsampled logits at
once (see :mod:`segtrain.criterion.strips`):

- :class:`~segtrain.losses.families.pixel.PixelLoss`: a map of pixel losses, reduced by a mining;
- :class:`~segtrain.losses.families.region.RegionLoss`: a formula of a few sums per class;
- :class:`~segtrain.losses.families.class_map.ClassMapLoss`: a function of the map of one class.

A loss computes at the resolution of its target, in float32 or float64. It never resizes its inputs,
changes them or moves them to another device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from segtrain.errors import ConfigError
from segtrain.schema.arguments import check_ignore_label

Dense = Literal["probability", "multi_hot", "regression"]
Reduction = Literal["mean", "sum", "none"]


class Loss(nn.Module, ABC):
    """A scalar of logits and a target at the same resolution, computed from one or more terms.

    Args:
        num_classes: Number of channels of the logits.
        ignore_label: Target value of the pixels that do not count.

    Attributes:
        dense: How the loss reads a dense target, which has a value per channel: as a
            ``probability`` or soft label in [0, 1], as a ``multi_hot`` label in {0, 1}, or as a
            ``regression`` target of any magnitude. None: the loss takes class ids only.
    """

    registered_name: ClassVar[str] = ""
    dense: ClassVar[Dense | None] = None

    def __init__(self, *, num_classes: int, ignore_label: int = 255) -> None:
        super().__init__()
        if num_classes < 1:
            raise ConfigError(f"num_classes must be at least 1, got {num_classes}")
        self.num_classes = num_classes
        self.ignore_label = check_ignore_label(ignore_label, num_classes)

    @property
    def is_multi_label(self) -> bool:
        """Whether a pixel may have several classes: each channel is a yes or no by itself."""
        return all(term.is_multi_label for term in self.terms().values())

    @abstractmethod
    def terms(self) -> dict[str, Term]:
        """The terms by name. A loss that is not a combination has one term, itself."""

    def term_weights(self, like: Tensor) -> Tensor:
        """The weight of each term, ``(T,)``, with the dtype and device of `like`."""
        return like.new_ones(len(self.terms()))

    def term_penalties(self, like: Tensor) -> Tensor | None:  # noqa: ARG002
        """A number to add for each term besides its weighted value, ``(T,)``; None: nothing."""
        return None

    def at_step(self, step: int, total_steps: int | None = None) -> None:
        """Set the number of optimizer steps done so far, for weights that follow a schedule.

        Args:
            step: Number of optimizer steps done so far.
            total_steps: Number of all steps of the training; None: unknown.
        """

    def share(self, target: Tensor) -> Tensor:
        """The share of `target` in the batches of one step, for each term: ``(T,)``.

        A step may see its batch in parts (gradient accumulation, several processes). Scale the
        value of each part by its share divided by the sum of the shares; the scaled values add up
        to the mean over all valid pixels of the step.
        """
        return torch.stack([term.term_share(target) for term in self.terms().values()])

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss.

        Shape:
            - logits: ``(N, C, H, W)``, float, unnormalised. Computed in float32 or float64.
            - target: ``(N, H, W)``, integer, in ``[0, C)`` or ``ignore_label``. A loss whose
              `dense` is not None also takes ``(N, C, H, W)``, float or integer. A pixel of such a
              target is ignored if a channel is NaN or, except for regression, ``ignore_label``.
            - output: ``()``, float32 (float64 for float64 logits).

        Raises:
            TypeError: If a dtype is wrong.
            ValueError: If a shape is wrong, or a target value is neither a class id nor
                ``ignore_label``.
        """
        target = self.check_target(target, logits)
        with torch.autocast(logits.device.type, enabled=False):
            logits = self.usable(at_least_float32(logits), target)
            values = torch.stack(
                [term.checked_value(logits, target) for term in self.terms().values()]
            )
            total = (values * self.term_weights(logits)).sum()
            penalties = self.term_penalties(logits)
            return total if penalties is None else total + self.penalty(penalties, target)

    def usable(self, logits: Tensor, target: Tensor) -> Tensor:
        """`logits` for a checked `target`, without minus infinity, which rules a class out.

        A dense target would multiply it by 0, which is NaN. A large negative number takes its
        place; its probability is 0 as well.
        """
        if target.dim() == 3 or self.dense == "regression":
            return logits
        return logits.clamp(min=torch.finfo(logits.dtype).min / 4)

    def penalty(self, penalties: Tensor, target: Tensor) -> Tensor:
        """The sum of the `penalties` of those terms that have a share in `target`."""
        return torch.where(self.share(target) > 0, penalties, 0).sum()

    def check_target(self, target: Tensor, logits: Tensor, *, resized: bool = False) -> Tensor:
        """Check both tensors as :meth:`forward` does, and return the target, int64 or dense float.

        With `resized` the two may differ in height and width.
        """
        for name, value in (("logits", logits), ("target", target)):
            if not isinstance(value, Tensor):
                raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
        if logits.dim() != 4 or logits.shape[1] != self.num_classes:
            raise ValueError(
                f"logits must be (N, {self.num_classes}, H, W), got {tuple(logits.shape)}"
            )
        if not logits.is_floating_point():
            raise TypeError(f"logits must be a floating point tensor, got {logits.dtype}")
        is_dense = target.dim() == 4 and self.dense is not None
        wanted = logits.shape[:2] if is_dense else logits.shape[:1]
        if target.dim() not in (3, 4 if is_dense else 3) or target.shape[: len(wanted)] != wanted:
            either = f" or (N, {self.num_classes}, H, W)" if self.dense else ""
            raise ValueError(
                f"target must be (N, H, W){either} with N = {logits.shape[0]},"
                f" got {tuple(target.shape)}"
            )
        if not resized and target.shape[-2:] != logits.shape[2:]:
            raise ValueError(
                f"target is {tuple(target.shape[-2:])} but logits are {tuple(logits.shape[2:])}:"
                " a loss does not resize; use segtrain.build_criterion"
            )
        return self._check_dense(target, logits) if is_dense else self._check_ids(target)

    def _check_ids(self, target: Tensor) -> Tensor:
        if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
            raise TypeError(f"target must hold integers, got {target.dtype}")
        target = target.long()
        # Only on the CPU: reading values from another device would wait for it.
        if target.device.type == "cpu" and target.numel():
            largest = max(self.num_classes, 2) - 1  # one logit channel tells two classes apart
            outside = (target > largest) | (target < 0)
            if bool((outside & (target != self.ignore_label)).any()):
                outside &= target != self.ignore_label
                raise ValueError(
                    f"target holds {int(target[outside][0])} at {int(outside.sum())} or fewer"
                    f" pixels; allowed are 0 to {largest} and ignore_label {self.ignore_label}"
                )
        return target

    def _check_dense(self, target: Tensor, logits: Tensor) -> Tensor:
        if target.is_complex():
            raise TypeError(f"a dense target must hold numbers, got {target.dtype}")
        target = target.detach().to(at_least_float32(logits).dtype)
        if self.dense != "regression" and target.device.type == "cpu" and target.numel():
            wrong = ((target < 0) | (target > 1)) & (target != self.ignore_label)
            if bool(wrong.any()):
                raise ValueError(
                    f"a dense target holds {float(target[wrong][0])}; allowed are 0 to 1, and"
                    f" ignore_label {self.ignore_label} or NaN where a pixel does not count"
                )
        return target

    def extra_repr(self) -> str:
        return f"num_classes={self.num_classes}, ignore_label={self.ignore_label}"


class Term(Loss):
    """A single loss, as opposed to a combination of losses.

    Derive a custom loss from one of the families: they compute it in strips, and each lists the
    methods to write and what turns its fast paths off. A direct subclass of `Term` writes
    :meth:`value` and is always computed from all upsampled logits at once.

    Attributes:
        can_strip: Set it to False in a class that needs all logits at once. It is then never
            computed in strips.
    """

    can_strip: ClassVar[bool] = True
    reduction: Reduction = "mean"

    @property
    def runs_in_strips(self) -> bool:
        """Whether strips of rows give the same loss as the whole image. The families answer."""
        return False

    def shares_softmax(self, target: Tensor) -> bool:  # noqa: ARG002
        """Whether strips may compute the loss from a softmax that several terms share."""
        return False

    @property
    def _has_default_valid(self) -> bool:
        """Whether the class keeps :meth:`valid` and :meth:`clean`, on which terms must agree."""
        return type(self).valid is Term.valid and type(self).clean is Term.clean

    @property
    def is_multi_label(self) -> bool:
        activation = getattr(self, "activation", None)  # only region and class-map losses have it
        if activation is not None:
            return bool(activation == "sigmoid") and self.dense in ("multi_hot", "probability")
        return self.dense == "multi_hot"

    def terms(self) -> dict[str, Term]:
        return {self.registered_name or type(self).__name__: self}

    @abstractmethod
    def value(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss ``()``, with a graph, of checked logits and target of the same size."""

    def checked_value(self, logits: Tensor, target: Tensor) -> Tensor:
        """:meth:`value`, on which no number at an ignored pixel has an effect, not even NaN."""
        return self.value(self.counted(logits, target), target)

    def counted(self, logits: Tensor, target: Tensor) -> Tensor:
        """`logits` with 0 at ignored pixels, if there may be numbers that are not finite."""
        # Reading one number from another device would wait for it; a copy does not.
        if logits.device.type == "cpu" and is_finite(logits):
            return logits
        return torch.where(self.valid(target)[:, None], logits, 0)

    def prepared(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Both tensors as :meth:`value` takes them, checked as in :meth:`forward`."""
        target = self.check_target(target, logits)
        return self.counted(self.usable(at_least_float32(logits), target), target), target

    def term_share(self, target: Tensor) -> Tensor:
        """:meth:`Loss.share` of this term, ``()``: by default the number of valid pixels."""
        return self.valid(target).count_nonzero().float()

    def valid(self, target: Tensor) -> Tensor:
        """The mask of the pixels that count: ``(N, H, W)``, bool."""
        if target.dim() == 3:
            return target != self.ignore_label
        missing = target.isnan()
        if self.dense != "regression":
            missing |= target == self.ignore_label
        return ~missing.any(1)

    def clean(self, target: Tensor, valid: Tensor) -> Tensor:
        """`target` with 0 at the ignored pixels."""
        return torch.where(valid if target.dim() == 3 else valid[:, None], target, 0)


def safe_ratio(numerator: Tensor, denominator: Tensor, empty: float = 0.0) -> Tensor:
    """Divide; where `denominator` is 0 the result is `empty`, with a zero gradient.

    Example:
        >>> safe_ratio(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 0.0]), empty=1.0)
        tensor([0.5000, 1.0000])
    """
    exists = denominator > 0
    ratio = numerator / torch.where(exists, denominator, 1)
    return torch.where(exists, ratio, ratio * 0 + empty)


def check_reduction(reduction: str) -> Reduction:
    """Check the name of a reduction.

    Raises:
        ConfigError: When it is not one.
    """
    names = get_args(Reduction)
    if reduction not in names:
        raise ConfigError(f"reduction must be one of {', '.join(names)}, got {reduction!r}")
    return reduction  # type: ignore[return-value]


def check_is_mean(losses: Iterable[Loss]) -> None:
    """Check that every term is reduced to its mean, as training and sums of losses need it.

    Raises:
        ConfigError: When one is not.
    """
    for loss in losses:
        for name, term in loss.terms().items():
            if term.reduction != "mean":
                raise ConfigError(
                    f"loss {name!r} has reduction={term.reduction!r}, which is for direct calls in"
                    " Python; training takes mean alone"
                )


def is_finite(logits: Tensor) -> bool:
    """Whether no number is infinite or NaN. Very large numbers may count as infinite."""
    return bool(logits.detach().sum().isfinite())


def at_least_float32(logits: Tensor) -> Tensor:
    """`logits` as float32; float64 logits stay as they are."""
    return logits if logits.dtype == torch.float64 else logits.float()
