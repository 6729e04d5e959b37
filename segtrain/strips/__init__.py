"""A loss over upsampled logits that are never whole: a few rows, or one class, at a time."""

from segtrain.strips.families import can_walk
from segtrain.strips.total import strip_total

__all__ = ["can_walk", "strip_total"]
