"""A score of many images as the mean of one value per image: the jackknife.

The score of a split, such as the mean IoU, is not a mean over its images. Its jackknife
pseudo-values are: the value of image i is :math:`n T - (n - 1) T_{-i}`, where T is the score of all
n images and :math:`T_{-i}` that of all but image i. Their mean is the score up to its bias, and
their spread is that of the score (Tukey 1958; Efron, The Jackknife, the Bootstrap and Other
Resampling Plans, 1982).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segtrain.comparison.runs import ImageScores
from segtrain.metrics import CountMetric, Counts, MaskMetric, Metric, OverallMetric
from segtrain.metrics.evaluation import mean_of

Values = NDArray[np.float64]


class ImageMetric:
    """One score, as a function of the counts or values of images.

    Args:
        metric: The metric.
        images: The counts and values of each image.
        classes: Names of the classes that count in the mean; None: all.
        class_name: The class whose value is the score; None: the mean over the classes.
    """

    def __init__(
        self,
        metric: Metric,
        images: ImageScores,
        classes: Sequence[str] | None = None,
        class_name: str | None = None,
    ) -> None:
        self.metric = metric
        self.images = images
        chosen = [class_name] if class_name is not None else classes or images.classes
        self.classes = torch.tensor([images.classes.index(name) for name in chosen])

    @staticmethod
    def exists_for(metric: Metric | None) -> bool:
        """Whether a metric follows from what is stored of each image."""
        return isinstance(metric, (CountMetric, OverallMetric, MaskMetric))

    def score(self) -> float:
        """The score of all images together; NaN if it is undefined."""
        return float(self._mean(self._total()))

    def pseudo_values(self) -> Values:
        """The jackknife pseudo-value of each image, ``(images,)``."""
        number = len(self.images.names)
        total = self._total()
        without = self._without_each()
        # Without the only image that has a class, the class is undefined; it keeps its value, so
        # that the mean is always over the same classes.
        without = torch.where(without.isnan(), total, without)
        score, others = self._mean(total), self._mean(without)
        found: Any = (number * score - (number - 1) * others).numpy()
        return np.asarray(found, dtype=np.float64)

    def _total(self) -> Tensor:
        """The value of each class, ``(C,)``, or of all classes together, ``()``."""
        if isinstance(self.metric, MaskMetric):
            return self.images.values[self.metric.name].nanmean(0)
        return self._from_counts(self.images.counts.sum(0))

    def _without_each(self) -> Tensor:
        """The same without each image, with the images in front."""
        if isinstance(self.metric, MaskMetric):
            values = self.images.values[self.metric.name]
            defined = (~values.isnan()).double()
            sums = values.nan_to_num()
            return (sums.sum(0) - sums) / (defined.sum(0) - defined)  # 0 / 0 is NaN
        counts = self.images.counts
        return self._from_counts(counts.sum(0) - counts)

    def _from_counts(self, counts: Tensor) -> Tensor:
        found = Counts.of(counts, exclusive=self.images.exclusive)
        if isinstance(self.metric, OverallMetric):
            return self.metric.value(found)
        assert isinstance(self.metric, CountMetric)
        return self.metric.class_values(found)

    def _mean(self, values: Tensor) -> Tensor:
        return values if isinstance(self.metric, OverallMetric) else mean_of(values, self.classes)
