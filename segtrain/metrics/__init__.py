"""Metrics: what an evaluation scores."""

from segtrain.metrics.base import (
    METRICS,
    CountMetric,
    Counts,
    MaskMetric,
    Metric,
    MetricSpec,
    OverallMetric,
    ProbabilityMetric,
    build_metrics,
    list_metrics,
)
from segtrain.metrics.collector import MetricCollector
from segtrain.metrics.confusion import ConfusionMatrix, Scores
from segtrain.metrics.counts import Dice, IoU
from segtrain.metrics.evaluation import (
    Evaluation,
    MetricScore,
    check_choice,
    larger_is_better,
    score_in,
)
from segtrain.metrics.picture import confusion_picture
from segtrain.metrics.probability import RocAuc
from segtrain.metrics.surface import surface_distances
from segtrain.metrics.topology import betti_numbers

__all__ = [
    "METRICS",
    "ConfusionMatrix",
    "CountMetric",
    "Counts",
    "Dice",
    "Evaluation",
    "IoU",
    "MaskMetric",
    "Metric",
    "MetricCollector",
    "MetricScore",
    "MetricSpec",
    "OverallMetric",
    "ProbabilityMetric",
    "RocAuc",
    "Scores",
    "betti_numbers",
    "build_metrics",
    "check_choice",
    "confusion_picture",
    "larger_is_better",
    "list_metrics",
    "score_in",
    "surface_distances",
]
