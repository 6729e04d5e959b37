from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from segtrain import build_criterion
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


def test_terms_may_have_custom_names(batch: tuple[Tensor, Tensor]) -> None:
    loss = build(terms={"easy": {"name": "focal", "gamma": 0.0}, "hard": {"name": "cross_entropy"}})
    assert list(loss.terms()) == ["easy", "hard"]
    torch.testing.assert_close(loss(*batch), 2 * CrossEntropy(num_classes=3)(*batch))


def test_a_term_set_to_null_is_removed(batch: tuple[Tensor, Tensor]) -> None:
    loss = build(terms={"cross_entropy": {}, "dice": None})
    torch.testing.assert_close(loss(*batch), CrossEntropy(num_classes=3)(*batch))


def test_shared_parameters_reach_the_terms_that_accept_them(batch: tuple[Tensor, Tensor]) -> None:
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
        ({"terms": {"dicee": {}}}, "^loss.terms.dicee: unknown loss 'dicee'; did you mean 'd"),
        ({"terms": {"dice": {"smoth": 1.0}}}, "loss.terms.dice.smoth: .*did you mean 'smooth'"),
        ({"terms": {"dice": {"smooth": "x"}}}, "loss.terms.dice.smooth must be a number, got 'x'"),
        (
            {"terms": {"dice": {"weight": -1}}},
            "loss.terms.dice.weight must be a number, finite and",
        ),
        ({"terms": {"dice": {"weight": "1"}}}, "loss.terms.dice.weight must be a number"),
        ({"terms": {"dice": {"weight": True}}}, "loss.terms.dice.weight must be a number"),
        ({"terms": {"dice": {"weight": float("inf")}}}, "loss.terms.dice.weight must be a number"),
        ({"terms": {"dice": {"num_classes": 3}}}, "loss.terms.dice.num_classes is not set here"),
        (
            {"terms": {"dice": {}}, "mining": "ohem"},
            "^loss.mining needs a pixel loss, .*one: dice",
        ),
        ({"terms": {"focal": {"gamma": -1}}}, "^loss.terms.focal.gamma must be finite and not neg"),
        ({"terms": {"focal": {"mining": "ohm"}}}, "^loss.terms.focal: unknown mining 'ohm'"),
        (
            {"terms": {"focal": {}}, "mining": {"name": "ohem", "threshold": 2}},
            r"^loss.mining.threshold must be .*, got 2",
        ),
        (
            {"terms": {"dice": {"weight": {"start": 1, "end": 0}}}},
            "^loss.terms.dice.weight.to_step or to_share is missing: give",
        ),
        (
            {"terms": {"dice": {"weight": {"start": 1, "end": 0, "to_step": 2, "to_share": 0.5}}}},
            "^loss.terms.dice.weight.to_share and to_step are both set; set one of them to null",
        ),
        (
            {"terms": {"dice": {"weight": {"start": 1, "end": 0, "from_step": 2, "to_share": 1}}}},
            "^loss.terms.dice.weight.from_step does not go with to_share; use from_share",
        ),
        (
            {"terms": {"dice": {"weight": {"start": 1, "end": 0, "to_share": 1.5}}}},
            "^loss.terms.dice.weight.to_share must be at most 1, got 1.5",
        ),
        (
            {"terms": {"two": {"name": "sum", "terms": {"dice": {}}}}},
            "loss.terms.two is itself a combination",
        ),
    ],
)
def test_wrong_terms(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(**params)
    # Under another key the message is the same, with that key.
    elsewhere = message.replace("loss.", "criterion.output_losses.aux.")
    with pytest.raises(ConfigError, match=elsewhere):
        build_criterion("dice", num_classes=3, output_losses={"aux": {"name": "sum", **params}})


def test_a_constructor_names_no_section() -> None:
    with pytest.raises(ConfigError, match=r"^terms.focal.gamma must be finite"):
        WeightedSum(terms={"focal": {"gamma": -1.0}}, num_classes=3)


@pytest.mark.parametrize("name", ["sum", "uncertainty"])
def test_any_term_name_is_allowed(name: str, batch: tuple[Tensor, Tensor]) -> None:
    names = ["items", "keys", "forward", "training", "", "a.b", "1", "x y", "5", "dice"]
    terms = {key: {"name": "dice", "smooth": float(i + 1)} for i, key in enumerate(names)}
    loss = LOSSES.build({"name": name, "terms": terms}, num_classes=3)
    assert list(loss.terms()) == names
    expected = sum(Dice(num_classes=3, smooth=float(i + 1))(*batch) for i in range(len(names)))
    torch.testing.assert_close(loss(*batch), expected)


def test_the_keys_of_the_state_are_the_names() -> None:
    mining = {"name": "ghm", "momentum": 0.5}
    terms = {"bce": {"mining": mining}, "items": {"name": "bce", "mining": mining}, "dice": {}}
    loss = LOSSES.build({"name": "uncertainty", "terms": terms}, num_classes=3)
    assert list(loss.state_dict()) == [
        "log_variances",
        "parts.bce.mining.running_counts",
        "parts.1.mining.running_counts",
    ]


def test_a_weight_may_follow_the_share_of_all_steps(batch: tuple[Tensor, Tensor]) -> None:
    ramp = {"start": 0.0, "end": 2.0, "from_share": 0.25, "to_share": 0.75}
    loss = LOSSES.build({"name": "sum", "terms": {"dice": {"weight": ramp}}}, num_classes=3)
    for step, expected in ((0, 0.0), (10, 0.0), (20, 1.0), (25, 1.5), (40, 2.0)):
        loss.at_step(step, total_steps=40)
        torch.testing.assert_close(loss(*batch), expected * Dice(num_classes=3)(*batch))
    with pytest.raises(ConfigError, match="call at_step\\(step, total_steps\\), or use to_step"):
        loss.at_step(1)


@pytest.mark.parametrize("rows", [None, 3])
def test_a_weight_of_0_leaves_its_variance_alone(rows: int | None) -> None:
    """A penalty s / 2 without a loss would have no minimum."""
    ramp = {"start": 0.0, "end": 1.0, "from_step": 1, "to_step": 2}
    terms = {"bce": {}, "dice": {"weight": 0}, "focal": {"weight": ramp}}
    criterion = build_criterion(
        {"name": "uncertainty", "terms": terms}, num_classes=3, strip_rows=rows
    ).double()
    with torch.no_grad():
        criterion.loss.log_variances.fill_(0.6)
    logits, target = torch.randn(2, 3, 4, 3).double(), torch.randint(0, 3, (2, 11, 7))
    for step, counted in ((0, [True, False, False]), (2, [True, False, True])):
        criterion.at_step(step)
        criterion.zero_grad()
        report = criterion(logits, target)
        report.total.backward()
        used = [key for key, counts in zip(terms, counted, strict=True) if counts]
        # e^-0.6 L + 0.6 / 2 of each
        expected = sum(math.exp(-0.6) * report.parts[f"out/{key}"] + 0.3 for key in used)
        torch.testing.assert_close(report.total.detach(), expected, atol=1e-10, rtol=0)
        assert (criterion.loss.log_variances.grad != 0).tolist() == counted
