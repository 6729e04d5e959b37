"""A loss over upsampled logits that are never in memory as a whole: rows or classes at a time."""

from segtrain.criterion.strips.autograd import strip_total

__all__ = ["strip_total"]
