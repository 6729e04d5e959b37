"""A loss over upsampled logits that are never whole: a few rows, or one class, at a time."""

from segtrain.criterion.strips.autograd import strip_total
from segtrain.criterion.strips.routes import can_walk

__all__ = ["can_walk", "strip_total"]
