"""A subclass that changes what a fast path relies on leaves it; the values stay the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from segtrain.criterion.criterion import Criterion
from segtrain.criterion.strips import strip_total
from segtrain.criterion.strips.class_map_terms import LogitMaps, SigmoidMaps, SoftmaxMaps
from segtrain.criterion.strips.pixel_terms import (
    LoneKeptPixels,
    LoneMeanPixels,
    MeanPixels,
    WholeMaps,
    WholeProbabilities,
)
from segtrain.criterion.strips.region_terms import LogitSums, SoftmaxSums
from segtrain.criterion.strips.routes import strip_term
from segtrain.criterion.strips.strip_term import StripTerm
from segtrain.criterion.strips.walk import Walk
from segtrain.losses import CrossEntropy, Dice, Focal, Loss, LovaszSoftmax, OhemMining, Term
from tests.criterion.cases import build, value_and_gradient


class Doubled(Focal):
    def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return 2 * super().pixel_loss(logits, target)


class Heavy(Focal):
    def weighted_pixel_loss(
        self, logits: Tensor, target: Tensor, context: Tensor | None = None
    ) -> Tensor:
        return 3 * super().weighted_pixel_loss(logits, target, context)


class Sure(Focal):
    def target_probability(self, logits: Tensor, target: Tensor) -> Tensor:
        return super().target_probability(logits, target).sqrt()


class Sharp(Dice):
    def sums(self, logits: Tensor, target: Tensor) -> Tensor:
        return super().sums(2 * logits, target)


class Reduced(CrossEntropy):
    def reduce(self, values: Tensor, probability: Tensor | None, target: Tensor) -> Tensor:
        return super().reduce(values, probability, target).square()


class Narrow(CrossEntropy):
    def valid(self, target: Tensor) -> Tensor:
        return super().valid(target) & (target != 1)


class Whole(CrossEntropy):
    def value(self, logits: Tensor, target: Tensor) -> Tensor:
        return super().value(logits - logits.mean(), target).square()


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        (Doubled, {}),
        (Heavy, {}),
        (Sure, {"mining": {"name": "ohem", "min_kept": 20}}),
        (Sharp, {}),
        (Reduced, {}),
        (Narrow, {}),
        (Whole, {}),
    ],
)
def test_strips_respect_what_a_subclass_changes(kind: type[Loss], params: dict[str, Any]) -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 5, 9, 9).double(), torch.randint(0, 5, (2, 384, 384))
    loss = kind(num_classes=5, **params)
    expected = value_and_gradient(Criterion(loss, strip_rows=None), logits, target)
    found = value_and_gradient(Criterion(loss, strip_rows="auto"), logits, target)
    assert Criterion(loss)._rows(logits, target) == (None if kind is Whole else 16)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


class Mild(OhemMining):
    """Another value for the same kept pixels."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return super().forward(*args, **kwargs).sqrt()


def test_strips_respect_a_changed_mining() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 5, 9, 9).double(), torch.randint(0, 5, (2, 36, 36))
    loss = CrossEntropy(num_classes=5)
    loss.mining = Mild(threshold=0.9, min_kept=20)
    expected = value_and_gradient(Criterion(loss, strip_rows=None), logits, target)
    found = value_and_gradient(Criterion(loss, strip_rows=4), logits, target)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


def test_a_term_with_other_valid_pixels_changes_no_other_term() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 5, 9, 9).double(), torch.randint(0, 5, (2, 36, 36))
    options: dict[str, Any] = {"weights": torch.ones(2).double(), "rows": 4, "align_corners": False}
    terms: list[Term] = [Narrow(num_classes=5), Dice(num_classes=5)]
    _, values = strip_total(logits, target, terms, **options)
    for value, term in zip(values, terms, strict=True):
        expected = Criterion(term, strip_rows=None)(logits, target).total
        torch.testing.assert_close(value, expected, atol=1e-10, rtol=0)


class NarrowMaps(LovaszSoftmax):
    def valid(self, target: Tensor) -> Tensor:
        return super().valid(target) & (target != 1)


def test_a_class_map_loss_may_have_other_valid_pixels() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 5, 9, 9).double(), torch.randint(0, 5, (2, 36, 36))
    loss = NarrowMaps(num_classes=5)
    expected = value_and_gradient(Criterion(loss, strip_rows=None), logits, target)
    found = value_and_gradient(Criterion(loss, strip_rows=4), logits, target)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


LOGITS, TARGET = torch.randn(1, 5, 4, 4), torch.zeros(1, 16, 16, dtype=torch.long)


def route(*terms: Loss) -> StripTerm:
    """The strip term of the first of `terms`."""
    weights = torch.ones(len(terms))
    known = [term for term in terms if isinstance(term, Term)]
    return Walk(LOGITS, TARGET, known, weights, rows=4, align_corners=False).terms[0]


@pytest.mark.parametrize(
    ("loss", "alone", "in_company"),
    [
        (build("cross_entropy"), LoneMeanPixels, MeanPixels),
        (build("bce"), LoneMeanPixels, MeanPixels),
        (build("cross_entropy", "ohem"), LoneKeptPixels, WholeProbabilities),
        (build("bce", "ohem"), LoneKeptPixels, WholeMaps),
        (build("focal", "top_k"), WholeProbabilities, WholeProbabilities),
        (build("bce", "ghm"), WholeMaps, WholeMaps),
        (Reduced(num_classes=5), WholeProbabilities, WholeProbabilities),
        (build("dice"), SoftmaxSums, SoftmaxSums),
        (build("dice", activation="sigmoid"), LogitSums, LogitSums),
        (Sharp(num_classes=5), LogitSums, LogitSums),
        (build("lovasz_softmax"), SoftmaxMaps, SoftmaxMaps),
        (build("lovasz_hinge"), LogitMaps, LogitMaps),
        (build("rmi"), SigmoidMaps, SigmoidMaps),
    ],
    ids=lambda part: "" if isinstance(part, type) else type(part).__name__,
)
def test_the_class_for_a_term(
    loss: Loss, alone: type[StripTerm], in_company: type[StripTerm]
) -> None:
    assert type(route(loss)) is alone
    assert type(route(loss, build("dice"))) is in_company


@pytest.mark.parametrize("kind", [Doubled, Heavy, Narrow])
def test_what_changes_the_map_reads_the_logits(kind: type[Loss]) -> None:
    assert route(CrossEntropy(num_classes=5)).shares_softmax
    assert not route(kind(num_classes=5)).shares_softmax


def test_a_term_without_a_family_has_no_class() -> None:
    class Free(Term):
        def value(self, logits: Tensor, target: Tensor) -> Tensor:
            return logits.sum()

    with pytest.raises(TypeError, match="Free belongs to no family of losses that runs in strips"):
        strip_term(Free(num_classes=5), torch.ones(()), None, is_alone=True)  # type: ignore[arg-type]
