"""The mean over classes, shared by region and class-map losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.losses.base import Term
from segtrain.losses.class_weights import ClassWeights, check_class_weights
from segtrain.schema.arguments import check_one_of

Classes = Literal["present", "all"] | list[int]
Activation = Literal["softmax", "sigmoid"]


class ClassMean(Term):
    """The base of losses that are a mean over classes, of the batch or of each image.

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
        only_present: bool | None = None,
    ) -> None:
        super().__init__(num_classes=num_classes, ignore_label=ignore_label)
        self.class_weights: Tensor | None
        self.register_buffer(
            "class_weights", check_class_weights(class_weights, num_classes), persistent=False
        )
        check_one_of("activation", activation, get_args(Activation))
        self.activation = activation if num_classes > 1 else "sigmoid"
        self.per_image = per_image
        if classes == "present" and only_present is False:
            raise ConfigError("classes=present and only_present=false contradict; use classes=all")
        # One channel is a class of its own: without an object, it has to learn that there is none.
        by_default = classes == "present" and num_classes > 1
        self.present_only = by_default if only_present is None else only_present
        self.selected: Tensor
        self.register_buffer("selected", self._choose_classes(classes), persistent=False)

    def _choose_classes(self, classes: Classes) -> Tensor:
        chosen: Sequence[int]
        if isinstance(classes, str):
            check_one_of("classes", classes, ("present", "all"), also="a list of ids")
            chosen = range(self.num_classes)
        else:
            chosen = classes
        if not chosen or not all(0 <= index < self.num_classes for index in chosen):
            raise ConfigError(
                f"classes must be ids from 0 to {self.num_classes - 1}, got {classes}"
            )
        return torch.zeros(self.num_classes).index_fill_(0, torch.tensor(list(chosen)), 1.0)

    def _mean_weights(self, actual: Tensor) -> Tensor:
        """The weight of each class in the mean, ``(..., C)``; `actual` counts its target pixels."""
        weight = self.selected.to(actual)
        if self.class_weights is not None:  # one channel has two weights; it stands for class 1
            weight = weight * self.class_weights[-self.num_classes :].to(actual)
        if self.present_only:
            return weight * (actual > 0)
        return weight.expand_as(actual)

    def term_share(self, target: Tensor) -> Tensor:
        count = count_pixels(self.valid(target))
        return (count.sign() if self.per_image else count).sum().float()


def count_pixels(valid: Tensor) -> Tensor:
    """The number of valid pixels of each image, ``(N,)`` int64, from ``(N, H, W)`` bool."""
    if not len(valid):
        return valid.new_zeros(0, dtype=torch.long)
    # A sum along an axis would first convert every pixel to int64.
    return torch.stack([image.count_nonzero() for image in valid])


def class_counts(target: Tensor, weight: Tensor, num_classes: int) -> Tensor:
    """The number of pixels of each class in each image, ``(N, C)``.

    Args:
        target: Clean, ``(N, P)`` class ids or ``(N, C, P)`` dense.
        weight: ``(N, P)``, 1 where a pixel counts, else 0. The result has its dtype.
        num_classes: C.
    """
    if target.dim() == 3:
        return (target * weight[:, None]).sum(-1)
    if num_classes == 1:
        return (weight * target).sum(1, keepdim=True)
    total = weight.new_zeros(len(target), num_classes, dtype=torch.long)
    return total.scatter_add(1, target, weight.long()).to(weight.dtype)
