from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.losses import LOSSES, CrossEntropy, Dice, WeightedSum


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    target = torch.randint(0, 3, (2, 5, 4))
    target[0, 0] = 255
    return torch.randn(2, 3, 5, 4), target


def build(**params: Any) -> WeightedSum:
    loss = LOSSES.build({"name": "sum", **params}, num_classes=3, ignore_label=255)
    assert isinstance(loss, WeightedSum)
    return loss


def test_sum_of_terms(batch: tuple[Tensor, Tensor]) -> None:
    loss = build(terms={"cross_entropy": {"weight": 2.0}, "dice": {"weight": 0.5, "smooth": 0.0}})
    expected = 2 * CrossEntropy(num_classes=3)(*batch)
    expected = expected + 0.5 * Dice(num_classes=3, smooth=0.0)(*batch)
    torch.testing.assert_close(loss(*batch), expected)
    assert list(loss.terms()) == ["cross_entropy", "dice"]


def test_terms_may_have_names_of_their_own(batch: tuple[Tensor, Tensor]) -> None:
    loss = build(terms={"easy": {"name": "focal", "gamma": 0.0}, "hard": {"name": "cross_entropy"}})
    assert list(loss.terms()) == ["easy", "hard"]
    torch.testing.assert_close(loss(*batch), 2 * CrossEntropy(num_classes=3)(*batch))


def test_a_term_set_to_null_is_taken_out(batch: tuple[Tensor, Tensor]) -> None:
    loss = build(terms={"cross_entropy": {}, "dice": None})
    torch.testing.assert_close(loss(*batch), CrossEntropy(num_classes=3)(*batch))


def test_shared_parameters_reach_the_terms_that_take_them(batch: tuple[Tensor, Tensor]) -> None:
    weights, mining = [1.0, 2.0, 3.0], {"name": "ohem", "threshold": 0.2, "min_kept": 3}
    loss = build(terms={"cross_entropy": {}, "dice": {}}, class_weights=weights, mining=mining)
    expected = CrossEntropy(num_classes=3, class_weights=weights, mining=mining)(*batch)
    expected = expected + Dice(num_classes=3, class_weights=weights)(*batch)
    torch.testing.assert_close(loss(*batch), expected)


def test_a_term_keeps_what_it_sets_itself(batch: tuple[Tensor, Tensor]) -> None:
    loss = build(
        terms={"cross_entropy": {"class_weights": None, "mining": "none"}, "focal": {"weight": 0}},
        class_weights=[1.0, 2.0, 3.0],
        mining="ohem",
    )
    torch.testing.assert_close(loss(*batch), CrossEntropy(num_classes=3)(*batch))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"terms": {}}, "loss.terms is empty"),
        ({"terms": {"dice": None}}, "loss.terms is empty"),
        ({}, "loss.terms: loss 'sum' needs a value for 'terms'"),
        ({"terms": {"dicee": {}}}, "unknown loss 'dicee'; did you mean 'dice'"),
        ({"terms": {"dice": {"smoth": 1.0}}}, "loss.terms.dice.smoth: .*did you mean 'smooth'"),
        ({"terms": {"dice": {"smooth": "x"}}}, "loss.terms.dice.smooth must be a number, got 'x'"),
        (
            {"terms": {"dice": {"weight": -1}}},
            "loss.terms.dice.weight must be a number that is not",
        ),
        ({"terms": {"dice": {"weight": "1"}}}, "loss.terms.dice.weight must be a number"),
        ({"terms": {"dice": {"weight": True}}}, "loss.terms.dice.weight must be a number"),
        ({"terms": {"dice": {"weight": float("inf")}}}, "loss.terms.dice.weight must be a number"),
        ({"terms": {"dice": {"num_classes": 3}}}, "loss.terms.dice.num_classes is not set here"),
        ({"terms": {"dice": {}}, "mining": "ohem"}, "mining works on pixel losses, .*none: dice"),
        (
            {"terms": {"two": {"name": "sum", "terms": {"dice": {}}}}},
            "loss.terms.two is a combination itself",
        ),
    ],
)
def test_wrong_terms(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(**params)
