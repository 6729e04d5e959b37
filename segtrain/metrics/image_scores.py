"""The score of each image, and the class that costs most there."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from segtrain.metrics.base import Counts
from segtrain.metrics.counts import IoU
from segtrain.metrics.evaluation import Evaluation, larger_is_better, mean_of, split_choice
from segtrain.precision import wide


class ImageScore(NamedTuple):
    """The score of one image.

    Attributes:
        name: The name of the image.
        value: The score.
        class_name: The class that costs most: the one of the worst value, or for a score without
            classes, and among equal ones, the one with the most wrong pixels. For a score of one
            class it is that class.
    """

    name: str
    value: float
    class_name: str


def image_scores(evaluation: Evaluation, choice: str) -> list[ImageScore]:
    """Return the score `choice` of each image, best first.

    The value is that of the class for ``iou[pole]``, else the mean over the classes that count.
    Images whose value is undefined are left out.
    """
    name, class_name = split_choice(choice)
    images = Counts.of(evaluation.counts, exclusive=evaluation.exclusive)
    values = (
        evaluation.per_image[name] if name in evaluation.per_image else IoU().class_values(images)
    )
    by_class = values if values.dim() == 2 else torch.zeros(len(values), 0)
    if class_name is not None:
        values = values[:, evaluation.class_names.index(class_name)]
    elif values.dim() == 2:
        counted = (
            torch.arange(values.shape[1]) if evaluation.classes is None else evaluation.classes
        )
        values = mean_of(values, counted)
    sign = 1 if larger_is_better(name) else -1
    worst = _costliest(by_class * sign, evaluation.counts, evaluation.classes)
    found = [
        ImageScore(image, value, class_name or evaluation.class_names[index])
        for image, value, index in zip(evaluation.names, values.tolist(), worst, strict=True)
        if not math.isnan(value)
    ]
    return sorted(found, key=lambda image: -sign * image.value)


def _costliest(goodness: Tensor, counts: Tensor, classes: Tensor | None) -> list[int]:
    """The class of each image that costs most.

    Args:
        goodness: Values by image and class, larger is better, NaN where undefined; ``(images, C)``,
            or ``(images, 0)`` without classes.
        counts: True and false positives, false and true negatives, ``(images, 4, C)``.
        classes: The class ids that count; None: all.
    """
    wrong = wide(counts[:, 1] + counts[:, 2])
    counted = torch.zeros(wrong.shape[1], dtype=torch.bool)
    counted[slice(None) if classes is None else classes] = True
    is_worst = counted.expand_as(wrong)
    if goodness.shape[1]:
        known = goodness.masked_fill(goodness.isnan() | ~counted, math.inf)
        is_worst = known == known.amin(1, keepdim=True)
    found: list[int] = wrong.masked_fill(~is_worst, -1).argmax(1).tolist()
    return found
