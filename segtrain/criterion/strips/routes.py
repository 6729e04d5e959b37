"""The choice of a strip term for a term: the one place that looks at its family."""

from __future__ import annotations

from torch import Tensor

from segtrain.criterion.strips.batch import Batch
from segtrain.criterion.strips.class_map_terms import class_map_term
from segtrain.criterion.strips.pixel_terms import pixel_term
from segtrain.criterion.strips.region_terms import region_term
from segtrain.criterion.strips.strip_term import StripTerm
from segtrain.losses import ClassMapLoss, PixelLoss, RegionLoss, Term


def strip_term(term: Term, weight: Tensor, batch: Batch, *, is_alone: bool) -> StripTerm:
    """Build the strip term for `term`, by its family.

    Args:
        term: A term that runs in strips.
        weight: Its weight, ``()``.
        batch: The batch.
        is_alone: Whether it is the only term of the loss.

    Raises:
        TypeError: If the term belongs to no family.
    """
    if isinstance(term, PixelLoss):
        return pixel_term(term, weight, batch, is_alone=is_alone)
    if isinstance(term, RegionLoss):
        return region_term(term, weight, batch)
    if isinstance(term, ClassMapLoss):
        return class_map_term(term, weight, batch)
    raise TypeError(f"{type(term).__name__} belongs to no family of losses that runs in strips")
