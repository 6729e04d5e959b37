"""Metrics computed from a confusion matrix."""

from segtrain.metrics.confusion import ConfusionMatrix, Scores

__all__ = ["ConfusionMatrix", "Scores"]
