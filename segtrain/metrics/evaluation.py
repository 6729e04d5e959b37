"""The scores of an evaluation, as values that can be stored and compared."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.files import atomic_write
from segtrain.metrics.base import ALIASES, METRICS, Counts, Metric, ratio
from segtrain.metrics.counts import Accuracy, IoU, MeanAccuracy
from segtrain.precision import wide
from segtrain.schema.values import did_you_mean

_CHOICE = re.compile(r"([^\[\]]+)(?:\[(.+)\])?")


@dataclass(frozen=True)
class MetricScore:
    """The values of one metric; NaN where a value is undefined.

    Attributes:
        mean: Mean over the classes that count, or the value of a metric without classes.
        per_class: Value per class, in the order of the class ids; empty for a metric without
            classes.
        per_image: Mean over the images of the value of each image, which is a mean over its
            classes.
        micro: The value of all classes that count together; None if the metric has none.
        error_bound: The largest error of any value, for metrics that are approximated.
        is_share: Whether the values are from 0 to 1.
    """

    mean: float
    per_class: list[float]
    per_image: float
    micro: float | None = None
    error_bound: float | None = None
    is_share: bool = True


@dataclass(frozen=True)
class Evaluation:
    """The scores of a model on one split.

    Attributes:
        class_names: One name per class id.
        scores: The chosen metrics by name.
        confusion: Counts of pairs (target class, predicted class), ``(C, C)``, int64; None for
            multi-label data.
        names: Names of the images, sorted.
        counts: True and false positives, false and true negatives of each image and class,
            ``(images, 4, C)``, int64.
        values: The values of each image for metrics that do not follow from the counts:
            ``(images, C)`` or ``(images,)``, float64.
        exclusive: Whether each pixel has exactly one class.
        classes: The class ids that count in means; None: all.
        predicted_only: The pixels predicted as a class that no target has, by name; each is a false
            negative of its target class.
        per_image: The values of each image by metric, ``(images, C)`` or ``(images,)``, float64;
            NaN where a value is undefined.
    """

    class_names: tuple[str, ...]
    scores: dict[str, MetricScore]
    confusion: Tensor | None
    names: list[str]
    counts: Tensor
    values: dict[str, Tensor]
    exclusive: bool = True
    classes: Tensor | None = None
    predicted_only: Mapping[str, int] = field(default_factory=dict)
    per_image: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def total(self) -> Counts:
        """The counts of all images together."""
        return Counts.of(self.counts.sum(0), exclusive=self.exclusive)

    @property
    def iou(self) -> list[float]:
        """Intersection over union per class; NaN for a class in neither prediction nor target."""
        values: list[float] = IoU().class_values(self.total).tolist()
        return values

    @property
    def miou(self) -> float:
        """Mean of the defined IoUs, over the classes that count."""
        return self._mean(IoU().class_values(self.total))

    @property
    def pixel_accuracy(self) -> float:
        """Share of the valid pixels with the right class."""
        return float(Accuracy().value(self.total))

    @property
    def mean_accuracy(self) -> float:
        """Mean, over the classes that count, of the share of their target pixels that are right."""
        return self._mean(MeanAccuracy().class_values(self.total))

    def _mean(self, values: Tensor) -> float:
        classes = torch.arange(len(self.class_names)) if self.classes is None else self.classes
        return float(mean_of(values, classes))

    @property
    def pixels(self) -> list[int]:
        """Number of target pixels per class."""
        return [int(count) for count in self.total.target]

    @property
    def valid(self) -> int:
        """Number of valid pixels."""
        return int(self.total.valid)

    def score(self, choice: str) -> float:
        """Return one score: ``mIoU``, a metric such as ``dice``, or its class, ``iou[pole]``."""
        name, class_name = split_choice(choice)
        if name == "iou" and class_name is None:
            return self.miou
        found = self.scores[name]
        if class_name is None:
            return found.mean
        return found.per_class[self.class_names.index(class_name)]

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return the scores for JSON, by metric; null where a value is undefined."""
        return {name: _score_dict(score, self.class_names) for name, score in self.scores.items()}

    def save_per_image(self, path: Path) -> None:
        """Write the counts and values of each image to an ``.npz`` file, atomically.

        The arrays are ``names`` (images), ``classes`` (classes), ``tp``, ``fp``, ``fn``, ``tn``
        (images, classes), int64, and one per metric that does not follow from these counts.
        """
        kinds = dict(zip(("tp", "fp", "fn", "tn"), self.counts.unbind(1), strict=True))
        arrays: dict[str, Any] = {
            "names": np.array(self.names, dtype=str),
            "classes": np.array(self.class_names, dtype=str),
            **{key: value.numpy() for key, value in {**kinds, **self.values}.items()},
        }
        with atomic_write(path) as stream:
            np.savez_compressed(stream, **arrays)


def _score_dict(score: MetricScore, class_names: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"mean": defined(score.mean)}
    if score.per_class:
        pairs = zip(class_names, score.per_class, strict=True)
        found["per_class"] = {name: defined(value) for name, value in pairs}
    found["per_image"] = defined(score.per_image)
    if score.micro is not None:
        found["micro"] = defined(score.micro)
    if score.error_bound is not None:
        found["error_bound"] = defined(score.error_bound)
    return found


def defined(value: float) -> float | None:
    """A value for JSON: None if it is undefined."""
    return value if math.isfinite(value) else None


def check_choice(choice: str, metrics: Sequence[Metric], class_names: Sequence[str]) -> None:
    """Check that a score of that name is computed: a metric, or a metric and a class.

    Raises:
        ConfigError: When `choice` is not such a name; the message starts with ``trainer.best``.
    """
    name, class_name = split_choice(choice)
    where = f"trainer.best={choice}"
    known = {metric.name: metric for metric in metrics}
    if name != "iou" and name not in known:  # mIoU is always computed
        hint = f"; add it to evaluation.metrics, which has {', '.join(known) or 'none'}"
        reason = hint if name in METRICS.names() else did_you_mean(name, [*known, "mIoU"])
        raise ConfigError(f"{where}: metric {name!r} is not computed{reason}")
    if class_name is None:
        return
    if name not in known or not known[name].has_classes:
        raise ConfigError(f"{where}: metric {name!r} has no value per class; use {name}")
    if class_name not in class_names:
        suggestion = did_you_mean(class_name, class_names)
        raise ConfigError(f"{where}: unknown class {class_name!r}{suggestion}")


def score_in(scores: Mapping[str, Any], choice: str) -> float | None:
    """Return one score from the JSON of a result, as :meth:`Evaluation.score` does.

    Args:
        scores: A mapping with ``mIoU`` and ``scores``, as in ``results.json``.
        choice: ``mIoU``, a metric such as ``dice``, or its class, ``iou[pole]``.

    Returns:
        The score; None if it is undefined or was not computed.

    Example:
        >>> result = {"mIoU": 0.5, "scores": {"dice": {"mean": 0.6, "per_class": {"pole": 0.7}}}}
        >>> [score_in(result, choice) for choice in ("mIoU", "dice", "dice[pole]", "auc")]
        [0.5, 0.6, 0.7, None]
    """
    name, class_name = split_choice(choice)
    if name == "iou" and class_name is None:
        return scores.get("mIoU")
    found = scores.get("scores", {}).get(name, {})
    value: float | None = (
        found.get("mean") if class_name is None else found.get("per_class", {}).get(class_name)
    )
    return value


def larger_is_better(choice: str) -> bool:
    """Whether a larger value of the score `choice` is better."""
    return bool(getattr(METRICS.get(split_choice(choice)[0]), "larger_is_better", True))


def split_choice(choice: str) -> tuple[str, str | None]:
    """Split ``iou[pole]`` into metric and class; a choice without brackets has no class."""
    match = _CHOICE.fullmatch(choice)
    name, class_name = match.groups() if match else (choice, None)
    return ALIASES.get(name, name), class_name


def mean_of(values: Tensor, classes: Tensor) -> Tensor:
    """The mean of the defined values of the class ids `classes`, ``(...)`` from ``(..., C)``."""
    chosen = values[..., classes]
    defined = ~chosen.isnan()
    return ratio(torch.where(defined, chosen, 0).sum(-1), wide(defined.float()).sum(-1))
