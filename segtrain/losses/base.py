"""What a loss is: one term or several, each a scalar from logits and a target of one resolution.

There are three families of terms, and each is defined so that whoever holds the logits need not
hold all of them upsampled (see :mod:`segtrain.criterion.strips`):

- :class:`~segtrain.losses.families.pixel.PixelLoss`, a map of pixel losses that a mining reduces;
- :class:`~segtrain.losses.families.region.RegionLoss`, a few sums per class and a formula of them;
- :class:`~segtrain.losses.families.class_map.ClassMapLoss`, a function of one class's map.

A loss computes at the resolution of its target, in float32 or better, and never resizes, moves or
changes what it is given.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from segtrain.errors import ConfigError

Dense = Literal["probability", "multi_hot", "regression"]


class Loss(nn.Module, ABC):
    """A scalar from logits and target of one resolution, made of one or several terms.

    Args:
        num_classes: Number of channels of the logits.
        ignore_label: Target value of the pixels that do not count.

    Attributes:
        dense: What a target with a value per channel means to this loss: a ``probability`` or soft
            label in [0, 1], a ``multi_hot`` label in {0, 1}, or a ``regression`` target of any
            size; None where the loss takes class ids only.
    """

    registered_name: ClassVar[str] = ""
    dense: ClassVar[Dense | None] = None

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

    @property
    def is_multi_label(self) -> bool:
        """Whether each channel answers yes or no for itself, so that a pixel may have several."""
        return all(term.is_multi_label for term in self.terms().values())

    @abstractmethod
    def terms(self) -> dict[str, Term]:
        """The terms by name; a loss that is no combination has one, itself."""

    def term_weights(self, like: Tensor) -> Tensor:
        """The weight of each term ``(T,)``, of the dtype and on the device of `like`."""
        return like.new_ones(len(self.terms()))

    def term_penalties(self, like: Tensor) -> Tensor | None:  # noqa: ARG002
        """What is added for each term beside its weighted value, ``(T,)``; None: nothing."""
        return None

    def at_step(self, step: int) -> None:
        """Tell the loss that `step` optimizer steps are done, for weights that follow a plan."""

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
            - target: ``(N, H, W)``, integer, in ``[0, C)`` or ``ignore_label``. A loss that has
              `dense` also takes ``(N, C, H, W)``, float or integer; a pixel is ignored there where
              a channel is NaN or, but for regression, ``ignore_label``.
            - output: ``()``, float32 (float64 for float64 logits).

        Raises:
            TypeError: When a dtype is wrong.
            ValueError: When a shape is wrong or a target value is neither a class id nor
                ``ignore_label``.
        """
        target = self.check_target(target, logits)
        with torch.autocast(logits.device.type, enabled=False):
            logits = at_least_float32(logits)
            values = torch.stack([term.value(logits, target) for term in self.terms().values()])
            total = (values * self.term_weights(logits)).sum()
            penalties = self.term_penalties(logits)
            return total if penalties is None else total + self.penalty(penalties, target)

    def penalty(self, penalties: Tensor, target: Tensor) -> Tensor:
        """The sum of `penalties` of the terms that count for something in `target`."""
        return torch.where(self.share(target) > 0, penalties, 0).sum()

    def check_target(self, target: Tensor, logits: Tensor, *, resized: bool = False) -> Tensor:
        """`target` as int64 after the checks of :meth:`forward`, size left out when `resized`."""
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
        # On another device a look at the values would wait for it.
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
    """A loss that is no combination of others."""

    can_strip: ClassVar[bool] = True

    @property
    def is_multi_label(self) -> bool:
        activation = getattr(self, "activation", None)  # of the losses that leave the choice
        if activation is not None:
            return bool(activation == "sigmoid") and self.dense in ("multi_hot", "probability")
        return self.dense == "multi_hot"

    def terms(self) -> dict[str, Term]:
        return {self.registered_name or type(self).__name__: self}

    @abstractmethod
    def value(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss ``()`` of logits and target of one size, both checked, with a graph."""

    def term_share(self, target: Tensor) -> Tensor:
        """:meth:`Loss.share` of this term, ``()``: its valid pixels unless it says otherwise."""
        return self.valid(target).count_nonzero().float()

    def valid(self, target: Tensor) -> Tensor:
        """Where a pixel counts: ``(N, H, W)`` bool."""
        if target.dim() == 3:
            return target != self.ignore_label
        missing = target.isnan()
        if self.dense != "regression":
            missing |= target == self.ignore_label
        return ~missing.any(1)

    def clean(self, target: Tensor, valid: Tensor) -> Tensor:
        """`target` with 0 at the pixels that do not count."""
        return torch.where(valid if target.dim() == 3 else valid[:, None], target, 0)


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
