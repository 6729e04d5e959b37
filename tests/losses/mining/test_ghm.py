from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from segtrain import build_criterion
from segtrain.errors import ConfigError
from segtrain.losses import MININGS, CrossEntropy, GhmMining
from segtrain.losses.mining.ghm import _compare

PROBABILITY = torch.tensor([[[0.95, 0.9, 0.85, 0.8, 0.3, 0.1]]])
VALUES = torch.tensor([[[1.0, 2.0, 3.0, 4.0, 10.0, 99.0]]])
VALID = torch.tensor([[[True, True, True, True, True, False]]])


def ghm(mining: GhmMining, probability: Tensor = PROBABILITY) -> Tensor:
    value = mining(torch.where(VALID, VALUES, 0), VALID.float(), VALID, probability)
    assert isinstance(value, Tensor)
    return value


def plain(values: Tensor, norm: Tensor, valid: Tensor, bins: int) -> float:
    """The authors' rule, one bin at a time."""
    found = 0.0
    occupied = 0
    for number in range(bins):
        last = number == bins - 1
        inside = (norm >= number / bins) & ((norm < (number + 1) / bins) | last) & valid
        if inside.any():
            occupied += 1
            found += float(values[inside].mean())
    return found / occupied


class TestByHand:
    def test_two_bins(self) -> None:
        # four easy pixels of mean 2.5, a hard one of 10: (2.5 + 10) / 2
        assert ghm(GhmMining(bins=2)).item() == pytest.approx(6.25)

    def test_empty_bins_do_not_count(self) -> None:
        # 1 - p: 0.05, 0.1, 0.15, 0.2 and 0.7; bins of 0.125: {1, 2}, {3, 4}, {10}
        assert ghm(GhmMining(bins=8)).item() == pytest.approx((1.5 + 3.5 + 10) / 3)

    def test_one_bin_is_the_mean(self) -> None:
        assert ghm(GhmMining(bins=1)).item() == pytest.approx(20 / 5)

    def test_the_ends_of_the_range(self) -> None:
        probability = torch.tensor([[[1.0, 1.0, 1.0, 0.0, 0.0, 0.5]]])
        # {1, 2, 3}, {4, 10}
        assert ghm(GhmMining(bins=10), probability).item() == pytest.approx((2 + 7) / 2)

    def test_gradient(self) -> None:
        leaf = VALUES.clone().requires_grad_()
        values = torch.where(VALID, leaf, 0)
        GhmMining(bins=2)(values, VALID.float(), VALID, PROBABILITY).backward()
        assert leaf.grad is not None
        torch.testing.assert_close(leaf.grad, torch.tensor([[[1 / 8] * 4 + [1 / 2, 0]]]))


class TestIdentities:
    @pytest.mark.parametrize("bins", [1, 3, 10, 30])
    def test_equals_the_plain_rule(self, bins: int) -> None:
        torch.manual_seed(0)
        logits, target = torch.randn(2, 5, 9, 8) * 3, torch.randint(0, 5, (2, 9, 8))
        target[0, :3] = 255
        values = F.cross_entropy(logits, target, reduction="none", ignore_index=255)
        loss = CrossEntropy(num_classes=5, mining={"name": "ghm", "bins": bins})
        expected = plain(values, 1 - (-values).exp(), target != 255, bins)
        assert loss(logits, target).item() == pytest.approx(expected, rel=1e-5)

    def test_uniform_class_weights_are_none(self) -> None:
        torch.manual_seed(0)
        logits, target = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
        weighted = CrossEntropy(num_classes=3, class_weights=[0.3] * 3, mining="ghm")
        expected = CrossEntropy(num_classes=3, mining="ghm")(logits, target)
        torch.testing.assert_close(weighted(logits, target), expected)

    def test_every_bin_has_the_same_weight(self) -> None:
        # The total weight of each bin's pixels, read from the gradient, is the same.
        torch.manual_seed(0)
        probability, valid = torch.rand(1, 30, 30).square(), torch.rand(1, 30, 30) > 0.2
        leaf = torch.zeros(1, 30, 30, requires_grad=True)
        values = torch.where(valid, leaf, 0)
        GhmMining(bins=5)(values, valid.float(), valid, probability).backward()
        assert leaf.grad is not None
        bins = ((1 - probability) * 5).long().clamp(max=4)
        totals = [float(leaf.grad[bins == number].sum()) for number in range(5)]
        assert totals == pytest.approx([0.2] * 5)

    @pytest.mark.parametrize("loss", ["cross_entropy", "bce"])
    @pytest.mark.parametrize("momentum", [0.0, 0.75])
    def test_strips(self, loss: str, momentum: float) -> None:
        torch.manual_seed(0)
        logits, target = torch.randn(2, 4, 5, 6).double() * 3, torch.randint(0, 4, (2, 17, 13))
        target[0, :3] = 255
        mining = {"name": "ghm", "momentum": momentum}
        both = [
            build_criterion(loss, num_classes=4, mining=mining, strip_rows=rows)
            for rows in (None, 3)
        ]
        for scale in (1.0, 0.2):
            found: list[Any] = []
            for criterion in both:
                leaf = (scale * logits).requires_grad_()
                value = criterion(leaf, target).total
                found.append((value.detach(), *torch.autograd.grad(value, leaf)))
            torch.testing.assert_close(*found, atol=1e-10, rtol=0)
        states = [criterion.state_dict() for criterion in both]
        assert bool(states[0]) == (momentum > 0)
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


class TestMomentum:
    def test_by_hand(self) -> None:
        mining = GhmMining(bins=2, momentum=0.75)
        # The first batch gives the same value as without a momentum.
        assert ghm(mining).item() == pytest.approx(6.25)
        assert mining.running_counts is not None
        assert mining.running_counts.tolist() == [1.0, 0.25]  # 4 and 1, a quarter of each
        # Then 1 easy and 4 hard: counts 0.75 + 0.25 and 0.1875 + 1, together 2.1875. The easy one
        # weighs 2.1875 / 2, the others 2.1875 / 2.375.
        probability = torch.tensor([[[0.9, 0.1, 0.1, 0.1, 0.1, 0.1]]])
        expected = (1 * 2.1875 / 2 + 19 * 2.1875 / 2.375) / 5
        assert ghm(mining, probability).item() == pytest.approx(expected)
        assert mining.running_counts.tolist() == pytest.approx([1.0, 1.1875])

    def test_the_same_batch_again_is_the_same_value(self) -> None:
        mining = GhmMining(bins=4, momentum=0.9)
        values = [float(ghm(mining)) for _ in range(5)]
        assert values == pytest.approx([float(ghm(GhmMining(bins=4)))] * 5)

    def test_evaluation_remembers_nothing(self) -> None:
        mining = GhmMining(bins=2, momentum=0.75)
        ghm(mining)
        before = copy.deepcopy(mining.state_dict())
        mining.eval()
        other = 1 - PROBABILITY
        first, second = ghm(mining, other), ghm(mining, other)
        assert torch.equal(first, second)
        assert torch.equal(mining.state_dict()["running_counts"], before["running_counts"])
        mining.train()
        assert torch.equal(ghm(mining, other), first)
        assert not torch.equal(mining.state_dict()["running_counts"], before["running_counts"])

    def test_resume_is_exact(self) -> None:
        torch.manual_seed(0)
        batches = [(torch.randn(1, 3, 6, 6), torch.randint(0, 3, (1, 6, 6))) for _ in range(4)]
        spec = {"name": "ghm", "bins": 5, "momentum": 0.9}
        whole = CrossEntropy(num_classes=3, mining=spec)
        values = [whole(*batch) for batch in batches]
        first, second = (CrossEntropy(num_classes=3, mining=spec) for _ in range(2))
        for batch in batches[:2]:
            first(*batch)
        assert set(first.state_dict()) == {"mining.running_counts"}
        second.load_state_dict(first.state_dict())
        for batch, expected in zip(batches[2:], values[2:], strict=True):
            assert torch.equal(second(*batch), expected)

    def test_a_batch_with_nothing_valid_leaves_the_rest_as_it_was(self) -> None:
        mining = GhmMining(bins=2, momentum=0.5)
        ghm(mining)
        nothing = torch.zeros_like(VALID)
        assert mining(torch.zeros(1, 1, 6), nothing.float(), nothing, PROBABILITY) == 0
        assert math.isclose(float(ghm(mining)), 6.25, rel_tol=1e-6)

    def test_without_one_there_is_no_state(self) -> None:
        assert not GhmMining().state_dict()
        assert not list(GhmMining().buffers())


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"bins": 0}, "mining.bins must be at least 1, got 0"),
        ({"momentum": 1.0}, "mining.momentum must be at least 0 and below 1, got 1.0"),
        ({"momentum": -0.1}, "mining.momentum must be at least 0 and below 1, got -0.1"),
        ({"bin": 3}, "has no parameter 'bin'; did you mean 'bins'"),
    ],
)
def test_wrong_arguments(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MININGS.build({"name": "ghm", **params})


def test_path_of_the_devices_counts_the_same() -> None:
    index = torch.randint(0, 7, (50,), generator=torch.Generator().manual_seed(0))
    assert torch.equal(_compare(index, 6), torch.bincount(index, minlength=7)[:6])


def test_repr() -> None:
    assert repr(GhmMining()) == "GhmMining(bins=10, momentum=0.0, per_class=False)"
