"""The base classes of metrics, and their registry.

A metric is one of three kinds, by what it needs of an image:

- :class:`CountMetric`: a formula of the counts of right and wrong pixels of each class.
  :class:`OverallMetric` is the same for a score without classes.
- :class:`MaskMetric`: a comparison of two binary masks, on the CPU.
- :class:`ProbabilityMetric`: sums over pixels of functions of the predicted probabilities.

Register a subclass with ``segtrain.register_metric``. Its keyword parameters are the keys of its
configuration.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.precision import wide
from segtrain.schema.registry import Registry

ALIASES = {"mIoU": "iou"}
MetricSpec = str | Mapping[str, Any]


class Metric(ABC):  # noqa: B024  its kinds have the abstract methods
    """A score of a segmentation.

    Attributes:
        larger_is_better: Whether a larger value is a better one.
        is_share: Whether the values are from 0 to 1, so that tables show them as percentages.
        has_classes: Whether there is a value per class.
        name: The name in the registry.
    """

    larger_is_better: ClassVar[bool] = True
    is_share: ClassVar[bool] = True
    has_classes: ClassVar[bool] = True
    name: str = ""


@dataclass(frozen=True)
class Counts:
    """The counts of right and wrong pixels, per class.

    Shape:
        - tp, fp, fn, tn: ``(..., C)``, float64: true and false positives, false and true negatives.

    Attributes:
        exclusive: Whether each pixel has exactly one class; False for multi-label data.
    """

    tp: Tensor
    fp: Tensor
    fn: Tensor
    tn: Tensor
    exclusive: bool = True

    @classmethod
    def of(cls, counts: Tensor, *, exclusive: bool = True) -> Counts:
        """The counts in a tensor ``(..., 4, C)``."""
        tp, fp, fn, tn = wide(counts).unbind(-2)
        return cls(tp, fp, fn, tn, exclusive)

    def over(self, classes: Tensor) -> Counts:
        """The sums over the class ids `classes`, as if they were one class, ``(..., 1)``."""
        tp, fp, fn, tn = (
            part[..., classes].sum(-1, keepdim=True)
            for part in (self.tp, self.fp, self.fn, self.tn)
        )
        return Counts(tp, fp, fn, tn, self.exclusive)

    @property
    def target(self) -> Tensor:
        """The number of target pixels of each class."""
        return self.tp + self.fn

    @property
    def predicted(self) -> Tensor:
        """The number of predicted pixels of each class."""
        return self.tp + self.fp

    @property
    def valid(self) -> Tensor:
        """The number of valid pixels, ``(...)``."""
        return (self.tp + self.fp + self.fn + self.tn)[..., 0]


class CountMetric(Metric):
    """A formula of the counts of each class."""

    @abstractmethod
    def class_values(self, counts: Counts) -> Tensor:
        """Compute the value of each class, ``(..., C)``; NaN where it is undefined."""

    def micro(self, counts: Counts, classes: Tensor) -> Tensor:
        """Compute one value from the sums over the class ids `classes`, ``(...)``."""
        return self.class_values(counts.over(classes))[..., 0]


class OverallMetric(Metric):
    """A formula of the counts of all classes together."""

    has_classes = False

    @abstractmethod
    def value(self, counts: Counts) -> Tensor:
        """Compute the value, ``(...)``; NaN where it is undefined."""


class MaskMetric(Metric):
    """A comparison of the predicted and the target mask of one class in one image.

    The value of a class is its mean over the images in which it is defined.
    """

    @abstractmethod
    def image_value(self, prediction: NDArray[np.bool_], target: NDArray[np.bool_]) -> float:
        """Compute the value of one class in one image; NaN where it is undefined.

        Shape:
            - prediction, target: ``(H, W)``. Ignored pixels are False in both.
        """


class ProbabilityMetric(Metric):
    """A function of sums over the pixels, which are computed from the predicted probabilities.

    With multi-label data, each class is a problem of two classes: the class, and the rest.
    """

    @abstractmethod
    def sums(self, log_probability: Tensor, target: Tensor) -> Tensor:
        """Compute what is added up over the pixels, and over images; float64, of any shape.

        Shape:
            - log_probability: ``(C, P)``, float32, of the P valid pixels.
            - target: ``(P,)``, int64, class ids.
        """

    @abstractmethod
    def value(self, sums: Tensor) -> Tensor:
        """Compute the value from the sums: ``(C,)`` if the metric has classes, else ``()``."""

    def error_bound(self, sums: Tensor) -> Tensor | None:  # noqa: ARG002
        """The largest error of :meth:`value`, of the same shape; None if it is exact."""
        return None


METRICS: Registry[Metric] = Registry("metric")


def build_metrics(specs: Sequence[MetricSpec], where: str = "evaluation.metrics") -> list[Metric]:
    """Build metrics from names, or from mappings with a ``name`` and parameters.

    Args:
        specs: The names or mappings; ``mIoU`` stands for ``iou``.
        where: The key in the configuration, for messages.

    Raises:
        ConfigError: When a name or a parameter is unknown, or a metric is named twice.

    Example:
        >>> [metric.name for metric in build_metrics(["mIoU", {"name": "nsd", "tolerance": 2}])]
        ['iou', 'nsd']
    """
    found: dict[str, Metric] = {}
    for index, spec in enumerate(specs):
        place = f"{where}[{index}]"
        given = METRICS.named(spec, where=place)
        name = given["name"] = ALIASES.get(given["name"], given["name"])
        if name in found:
            raise ConfigError(f"{place}: metric {name!r} is named twice; remove one")
        factory = METRICS.get(name, where=place)
        if not (inspect.isclass(factory) and issubclass(factory, Metric)):
            raise ConfigError(
                f"{place}: metric {name!r} is registered as {factory.__name__}, which is not a"
                " subclass of CountMetric, OverallMetric, MaskMetric or ProbabilityMetric"
            )
        metric = METRICS.build(given, where=place)
        metric.name = name
        found[name] = metric
    return list(found.values())


def list_metrics() -> list[str]:
    """Return the names that ``evaluation.metrics`` accepts."""
    return METRICS.names()


def ratio(above: Tensor, below: Tensor) -> Tensor:
    """``above / below``, and NaN where `below` is 0."""
    return torch.where(below == 0, torch.nan, above / below)
