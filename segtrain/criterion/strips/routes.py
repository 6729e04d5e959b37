"""What the walk may do with a term: only what a subclass has not changed behind its back."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from segtrain.losses import (
    ClassMapLoss,
    MeanMining,
    PixelLoss,
    RegionLoss,
    TargetProbabilityLoss,
    Term,
)

_FAMILIES = (PixelLoss, RegionLoss, ClassMapLoss)
# What a class that writes `loss_of` answers for: a subclass that changes one of these and leaves
# `loss_of` as it is means something that `loss_of` does not say.
_OF_LOSS_OF = (
    "pixel_loss",
    "weighted_pixel_loss",
    "context",
    "pixel_loss_in_context",
    "target_probability",
    "maps",
)


def can_walk(term: Term) -> bool:
    """Whether the parts of the term that the walk calls make its value."""
    return term.can_strip and any(
        isinstance(term, family) and type(term).value is family.value for family in _FAMILIES
    )


def is_fused(term: Term, target: Tensor) -> bool:
    """Whether the term reads the logits through the softmax that the terms share."""
    if type(term).valid is not Term.valid or type(term).clean is not Term.clean:
        return False
    if isinstance(term, TargetProbabilityLoss):
        return term.reads_target_probability(target) and _answers(term, "loss_of", _OF_LOSS_OF)
    if isinstance(term, RegionLoss):
        return term.fuses(target) and type(term).sums is RegionLoss.sums
    return isinstance(term, ClassMapLoss) and term.activation == "softmax" and not term.reads_logits


def streams(term: PixelLoss) -> Literal["always", "mostly", "never"]:
    """Whether the term's pixels count or not by themselves: see :class:`Mining`."""
    mining = term.mining
    if type(term).reduce is not PixelLoss.reduce or not _answers(mining, "streaming", ("forward",)):
        return "never"
    if mining.streaming == "always" and type(mining).denominator is not MeanMining.denominator:
        return "never"
    return mining.streaming


def _answers(part: object, anchor: str, others: tuple[str, ...]) -> bool:
    """Whether no class below the one that has `anchor` changes one of `others`."""
    for cls in type(part).__mro__:
        if anchor in cls.__dict__:
            return True
        if any(name in cls.__dict__ for name in others):
            return False
    return False
