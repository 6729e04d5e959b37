"""Comparison of runs: which loss is better, by how much, and how sure that is."""

from segtrain.comparison.comparison import Comparison, compare

__all__ = ["Comparison", "compare"]
