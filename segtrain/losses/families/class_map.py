"""Losses of the whole map of one class at a time: its ranking, distances or structure."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from segtrain.losses.base import Dense, safe_ratio
from segtrain.losses.families.class_mean import ClassMean, class_counts
from segtrain.precision import wide


@dataclass(frozen=True)
class ClassMap:
    """One class in one image or in the batch.

    Attributes:
        images: The images of the map.
        index: The class id.
        weight: Its weight in the mean over classes and images, ``()``.
    """

    images: slice
    index: int
    weight: Tensor


class ClassMapLoss(ClassMean):
    """A loss of the map of one class, averaged over classes.

    A subclass writes :meth:`class_map_loss`. The base class adds the mean over classes, ignored
    pixels, class weights and strips.

    Args:
        num_classes: Number of channels of the logits.
        ignore_label: Target value of the pixels that do not count.
        class_weights: One non-negative number per class, or a file that holds them: the mean over
            classes becomes the weighted mean.
        activation: How logits become probabilities: ``softmax`` for classes that exclude each
            other, ``sigmoid`` for classes that may overlap. One channel always uses a sigmoid.
        classes: The classes in the mean: ``present`` (those with a valid target pixel), ``all``,
            or a list of ids.
        per_image: One value per image and class instead of one per class over the batch, averaged
            over the images that have a valid pixel.
        only_present: Whether classes without a valid target pixel are left out, also those of a
            list. None: only if `classes` is ``present``.

    Attributes:
        reads_logits: Whether the map is that of the logits themselves, without an activation.

    Note:
        With strips one class is upsampled at a time, so only a few maps are in memory at label
        resolution, for any number of classes. A softmax needs a pass over strips of rows before,
        for its normaliser, which terms share, and one after, for the gradient. A subclass that
        overrides :meth:`value` is computed from the whole image.
    """

    dense: Dense | None = "multi_hot"  # type: ignore[misc]
    reads_logits: ClassVar[bool] = False

    @property
    def runs_in_strips(self) -> bool:
        return self.can_strip and type(self).value is ClassMapLoss.value

    def shares_softmax(self, target: Tensor) -> bool:  # noqa: ARG002
        return self.activation == "softmax" and not self.reads_logits

    @abstractmethod
    def class_map_loss(self, probability: Tensor, positive: Tensor, valid: Tensor) -> Tensor:
        """Compute the loss ``()`` of one class.

        Shape:
            - probability: ``(N, H, W)`` of the class, float32 or float64, with a graph; 0 at
              ignored pixels. Logits if `reads_logits` is set.
            - positive: ``(N, H, W)``, bool: the pixels of the class; False at ignored pixels.
            - valid: ``(N, H, W)``, bool: the pixels that count.
        """

    def class_maps(self, target: Tensor) -> Iterator[ClassMap]:
        """The maps to average. Their weights add up to 1, unless there are no maps."""
        valid = self.valid(target)
        clean, weight = self.clean(target, valid), valid.flatten(1).float()
        clean = clean.flatten(-2) if target.dim() == 3 else clean.flatten(-2).float()
        # In float64: a weight such as 1/3 in float32 would make the loss of float64 logits inexact.
        actual = wide(class_counts(clean, weight, self.num_classes))
        counted = wide(weight.sum(1).sign())
        if not self.per_image:
            actual, counted = actual.sum(0, keepdim=True), counted.sum(0, keepdim=True).sign()
        weight = self._mean_weights(actual) * counted[:, None]
        weight = safe_ratio(weight, weight.sum(1, keepdim=True)) / counted.sum().clamp(min=1)
        for group, index in weight.nonzero().tolist():
            images = slice(group, group + 1) if self.per_image else slice(None)
            yield ClassMap(images, index, weight[group, index])

    def positive(self, target: Tensor, index: int) -> Tensor:
        """The mask of the pixels of class `index`, ``(N, H, W)``, bool."""
        if target.dim() == 4:
            return (target[:, index] > 0.5) & self.valid(target)
        return target == (1 if self.num_classes == 1 else index)

    def map_value(self, values: Tensor, target: Tensor, item: ClassMap) -> Tensor:
        """The part of the loss that `item` adds, from the map of its class in its images."""
        target = target[item.images]
        valid = self.valid(target)
        values = torch.where(valid, values, 0)
        found = self.class_map_loss(values, self.positive(target, item.index), valid)
        return found * item.weight.to(found)

    def value(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.reads_logits:
            values = logits
        else:
            values = logits.softmax(1) if self.activation == "softmax" else logits.sigmoid()
        total = logits.flatten()[:0].sum()  # 0 with a graph
        for item in self.class_maps(target):
            total = total + self.map_value(values[item.images, item.index], target, item)
        return total
