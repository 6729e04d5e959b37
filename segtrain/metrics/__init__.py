"""Scores computed from counts of right and wrong pixels."""

from segtrain.metrics.confusion import ConfusionMatrix, MultiLabelMatrix, Scores

__all__ = ["ConfusionMatrix", "MultiLabelMatrix", "Scores"]
