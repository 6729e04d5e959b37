"""Collects what the metrics of an evaluation need, image by image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from segtrain.errors import ConfigError
from segtrain.metrics.base import (
    CountMetric,
    Counts,
    MaskMetric,
    Metric,
    OverallMetric,
    ProbabilityMetric,
)
from segtrain.metrics.counting import confusion_of_images, counts_of, multi_label_counts
from segtrain.metrics.evaluation import Evaluation, MetricScore, mean_of
from segtrain.schema.values import did_you_mean


class CollectedState(NamedTuple):
    """What one process has collected, on the CPU."""

    names: list[str]
    counts: Tensor
    confusion: Tensor | None
    values: dict[str, Tensor]
    sums: dict[str, Tensor]


class MetricCollector:
    """Collects counts, values and sums of images, and computes the metrics of all of them.

    The counts stay on the device until :meth:`state` is called.

    Args:
        metrics: The metrics.
        class_names: One name per class id. For data with one logit there are two: the background
            and the class.
        ignore_label: Target value of ignored pixels; with `multi_label` in every channel.
        multi_label: Whether a pixel may have several classes or none.
        classes: Names of the classes that count in means and micro values; None: all.
        predicted_only: Names of the predicted ids after those of `class_names`, which no target
            has. Their pixels are false negatives of the target class; they have no score.

    Raises:
        ConfigError: When a name in `classes` is not one of `class_names`.

    Example:
        >>> from segtrain.metrics import build_metrics
        >>> metrics = build_metrics(["iou", "accuracy"])
        >>> collector = MetricCollector(metrics, class_names=["road", "car", "sky"])
        >>> collector.update(torch.tensor([[[0, 1, 1]]]), torch.tensor([[[0, 0, 1]]]), ["a.png"])
        >>> evaluation = collector.result()
        >>> evaluation.iou, evaluation.miou
        ([0.5, 0.5, nan], 0.5)
    """

    def __init__(
        self,
        metrics: Sequence[Metric],
        *,
        class_names: Sequence[str],
        ignore_label: int = 255,
        multi_label: bool = False,
        classes: Sequence[str] | None = None,
        predicted_only: Sequence[str] = (),
    ) -> None:
        self.metrics = list(metrics)
        self.class_names = tuple(class_names)
        self.ignore_label = ignore_label
        self.multi_label = multi_label
        self.predicted_only = tuple(predicted_only)
        self.classes = _class_ids(classes, self.class_names)
        self._masks = [metric for metric in self.metrics if isinstance(metric, MaskMetric)]
        self._probabilities = [
            metric for metric in self.metrics if isinstance(metric, ProbabilityMetric)
        ]
        self._names: list[str] = []
        self._counts: list[Tensor] = []
        self._confusion: Tensor | None = None
        self._values: dict[str, list[Tensor]] = {
            metric.name: [] for metric in [*self._masks, *self._probabilities]
        }
        self._sums: dict[str, Tensor] = {}

    def update(
        self,
        prediction: Tensor,
        target: Tensor,
        names: Sequence[str],
        logits: Callable[[int], Iterable[tuple[slice, Tensor]]] | None = None,
    ) -> None:
        """Collect a batch of images of one size.

        Args:
            prediction: Class ids, or 0 and 1 per class for multi-label data.
            target: The target.
            names: Names of the images.
            logits: Returns the logits of image i at the size of its target, in strips: rows, and
                their logits ``(C, R, W)`` of all ids, or ``(1, R, W)`` for data with one logit. It
                is called only if a metric needs it, so that the logits of one strip exist at a
                time.

        Shape:
            - prediction, target: ``(N, H, W)``; for multi-label data ``(N, C, H, W)``.

        Raises:
            ValueError: When the shapes differ.
        """
        if prediction.shape != target.shape:
            raise ValueError(
                f"prediction is {tuple(prediction.shape)} but target is {tuple(target.shape)}"
            )
        self._names += names
        if self.multi_label:
            self._counts.append(multi_label_counts(prediction, target, self.ignore_label))
        else:
            num_ids = len(self.class_names) + len(self.predicted_only)
            confusion = confusion_of_images(prediction, target, num_ids, self.ignore_label)
            self._counts.append(counts_of(confusion)[..., : len(self.class_names)])
            total = confusion.sum(0)
            self._confusion = total if self._confusion is None else self._confusion + total
        if self._masks:
            self._compare_masks(prediction.cpu(), target.cpu())
        if self._probabilities:
            assert logits is not None, "a metric needs probabilities"
            for index in range(len(target)):
                self._add_probabilities(logits(index), target[index])

    def _compare_masks(self, prediction: Tensor, target: Tensor) -> None:
        for predicted, actual in zip(prediction.numpy(), target.numpy(), strict=True):
            found = np.full((len(self._masks), len(self.class_names)), np.nan)
            for index in range(len(self.class_names)):
                if self.multi_label:
                    valid = (actual != self.ignore_label).all(0)
                    one, two = (predicted[index] == 1) & valid, (actual[index] == 1) & valid
                else:
                    valid = actual != self.ignore_label
                    one, two = (predicted == index) & valid, (actual == index) & valid
                if not one.any() and not two.any():
                    continue  # undefined
                for row, metric in enumerate(self._masks):
                    found[row, index] = metric.image_value(one, two)
            for values, metric in zip(found, self._masks, strict=True):
                self._values[metric.name].append(torch.from_numpy(values.copy()))

    def _add_probabilities(self, strips: Iterable[tuple[slice, Tensor]], target: Tensor) -> None:
        sums: dict[str, Tensor] = {}
        for rows, logits in strips:
            problems = self._problems(logits, target[..., rows, :])
            for metric in self._probabilities:
                found = torch.stack([_sums(metric, *problem) for problem in problems])
                sums[metric.name] = sums[metric.name] + found if metric.name in sums else found
        for metric in self._probabilities:
            self._values[metric.name].append(self._value(metric, sums[metric.name]))
            known = self._sums.get(metric.name)
            self._sums[metric.name] = (
                sums[metric.name] if known is None else known + sums[metric.name]
            )

    def _problems(self, logits: Tensor, target: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The log-probabilities and targets of the valid pixels; one pair per label."""
        if not self.multi_label:
            valid = target != self.ignore_label
            chosen = logits[:, valid].float()
            if len(chosen) == 1:
                return [(_two_classes(chosen[0]), target[valid].long())]
            return [(chosen.log_softmax(0), target[valid].long())]
        valid = (target != self.ignore_label).all(0)
        return [
            (_two_classes(logits[index][valid].float()), target[index][valid].long())
            for index in range(len(logits))
        ]

    def _value(self, metric: ProbabilityMetric, sums: Tensor) -> Tensor:
        """The values ``(C,)``, or ``()`` without classes, from the sums of all problems."""
        return self._by_class(torch.stack([metric.value(part) for part in sums]))

    def _by_class(self, values: Tensor) -> Tensor:
        if not self.multi_label:
            return values[0, : len(self.class_names)] if values.dim() == 2 else values[0]
        return values[:, 1] if values.dim() == 2 else values  # 1 is the class, 0 the rest

    def state(self) -> CollectedState:
        """Return what was collected, on the CPU, to be merged with that of other processes."""
        num_classes = len(self.class_names)
        counts = [part.cpu() for part in self._counts]
        shapes = {
            metric.name: (num_classes,) if metric.has_classes or self.multi_label else ()
            for metric in [*self._masks, *self._probabilities]
        }
        return CollectedState(
            list(self._names),
            torch.cat(counts) if counts else torch.zeros(0, 4, num_classes, dtype=torch.int64),
            None if self._confusion is None else self._confusion.cpu(),
            {
                name: torch.stack(found).cpu()
                if found
                else torch.zeros(0, *shapes[name], dtype=torch.float64)
                for name, found in self._values.items()
            },
            {name: sums.cpu() for name, sums in self._sums.items()},
        )

    def merge(self, states: Sequence[CollectedState]) -> None:
        """Replace the content by that of all `states`, with the images sorted by name."""
        names = [name for state in states for name in state.names]
        order = sorted(range(len(names)), key=names.__getitem__)
        self._names = [names[index] for index in order]
        self._counts = [torch.cat([state.counts for state in states])[order]]
        confusions = [state.confusion for state in states if state.confusion is not None]
        self._confusion = torch.stack(confusions).sum(0) if confusions else None
        self._values = {
            name: list(torch.cat([state.values[name] for state in states])[order])
            for name in self._values
        }
        self._sums = {}
        for state in states:
            for name, sums in state.sums.items():
                self._sums[name] = self._sums[name] + sums if name in self._sums else sums

    def result(self) -> Evaluation:
        """Compute the metrics of everything that was collected."""
        state = self.state()
        exclusive = not self.multi_label
        confusion, size = state.confusion, len(self.class_names)
        if confusion is None and exclusive:
            all_ids = size + len(self.predicted_only)
            confusion = torch.zeros(all_ids, all_ids, dtype=torch.int64)
        others = [] if confusion is None else confusion[:, size:].sum(0).tolist()
        return Evaluation(
            self.class_names,
            {metric.name: self._score(metric, state) for metric in self.metrics},
            None if confusion is None else confusion[:size, :size],
            state.names,
            state.counts,
            state.values,
            exclusive,
            self.classes,
            dict(zip(self.predicted_only, others, strict=True)),
            {metric.name: self._per_image(metric, state) for metric in self.metrics},
        )

    def _per_image(self, metric: Metric, state: CollectedState) -> Tensor:
        """The values of a metric for each image, ``(images, C)`` or ``(images,)``."""
        images = Counts.of(state.counts, exclusive=not self.multi_label)
        if isinstance(metric, CountMetric):
            return metric.class_values(images)
        return (
            metric.value(images) if isinstance(metric, OverallMetric) else state.values[metric.name]
        )

    def _score(self, metric: Metric, state: CollectedState) -> MetricScore:
        total = Counts.of(state.counts.sum(0), exclusive=not self.multi_label)
        per_image = self._per_image(metric, state)
        if isinstance(metric, CountMetric):
            micro = float(metric.micro(total, self.classes))
            return self._class_score(metric, metric.class_values(total), per_image, micro=micro)
        if isinstance(metric, OverallMetric):
            value, mean = float(metric.value(total)), float(per_image.nanmean())
            return MetricScore(value, [], mean, is_share=metric.is_share)
        if isinstance(metric, MaskMetric):
            return self._class_score(metric, per_image.nanmean(0), per_image)
        assert isinstance(metric, ProbabilityMetric)
        return self._from_sums(metric, per_image, state.sums.get(metric.name))

    def _class_score(
        self, metric: Metric, per_class: Tensor, per_image: Tensor, **more: float | None
    ) -> MetricScore:
        """The score from the values per class ``(C,)``, and per image and class."""
        return MetricScore(
            float(mean_of(per_class, self.classes)),
            per_class.tolist(),
            float(mean_of(per_image, self.classes).nanmean()),
            is_share=metric.is_share,
            **more,
        )

    def _from_sums(
        self, metric: ProbabilityMetric, per_image: Tensor, sums: Tensor | None
    ) -> MetricScore:
        if sums is None:  # there is no image
            nan = float("nan")
            return MetricScore(nan, [], nan, is_share=metric.is_share)
        bounds = [metric.error_bound(part) for part in sums]
        known = [bound for bound in bounds if bound is not None]
        bound = float(torch.stack(known).nan_to_num().max()) if known else None
        value = self._value(metric, sums)
        if value.dim():
            return self._class_score(metric, value, per_image, error_bound=bound)
        return MetricScore(
            float(value), [], float(per_image.nanmean()), None, bound, metric.is_share
        )


def _two_classes(logit: Tensor) -> Tensor:
    """The log-probabilities of 0 and 1, ``(2, P)``, from the logit of 1, ``(P,)``."""
    return torch.stack([F.logsigmoid(-logit), F.logsigmoid(logit)])


def _class_ids(classes: Sequence[str] | None, class_names: Sequence[str]) -> Tensor:
    if classes is None:
        return torch.arange(len(class_names))
    for name in classes:
        if name not in class_names:
            raise ConfigError(
                f"evaluation.classes: unknown class {name!r}{did_you_mean(name, class_names)}"
            )
    if not classes:
        raise ConfigError("evaluation.classes is empty; name at least one class, or set it to null")
    return torch.tensor([class_names.index(name) for name in classes])


def _sums(metric: ProbabilityMetric, log_probability: Tensor, target: Tensor) -> Tensor:
    """The sums of a metric; NaN if a probability is, so that it is not counted as another one."""
    missing = log_probability.isnan()
    sums = metric.sums(log_probability.masked_fill(missing, 0), target)
    return torch.where(missing.any(), torch.nan, sums)
