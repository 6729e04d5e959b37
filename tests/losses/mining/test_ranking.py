from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from segtrain import build_criterion
from segtrain.errors import ConfigError
from segtrain.losses import (
    LOSSES,
    MININGS,
    BinaryCrossEntropy,
    CrossEntropy,
    Focal,
    HardNegativeMining,
    OhemMining,
    PixelLoss,
    TopKMining,
)
from segtrain.losses.mining.base import Mining
from segtrain.losses.mining.ranking import portion, ranked, share_of_largest

PROBABILITY = torch.tensor([[[0.1, 0.9, 0.4, 0.8, 0.6, 0.2]]])
VALUES = torch.tensor([[[2.0, 0.1, 1.0, 0.2, 0.5, 9.0]]])
VALID = torch.tensor([[[True, True, True, True, True, False]]])


def ohem(threshold: float, min_kept: int, ratio: float | None = None) -> float:
    values = torch.where(VALID, VALUES, 0)
    mining = OhemMining(threshold=threshold, min_kept=min_kept, ratio=ratio)
    return float(mining(values, VALID.float(), VALID, PROBABILITY))


@pytest.mark.parametrize(
    ("threshold", "min_kept", "kept"),
    [
        (0.7, 1, [2.0, 1.0, 0.5]),  # three below the threshold
        (0.05, 1, [2.0]),  # the threshold keeps none: p < p_(1) = 0.4
        (0.05, 3, [2.0, 1.0, 0.5]),  # p < p_(3) = 0.8
        (0.7, 4, [2.0, 1.0, 0.5, 0.2]),  # p < p_(4) = 0.9
        (0.7, 100, [2.0, 1.0, 0.5, 0.2]),  # fewer valid: the easiest is left out
        (0.95, 100, [2.0, 1.0, 0.5, 0.2, 0.1]),  # unless it is below the threshold
        (0.6, 1, [2.0, 1.0]),  # strictly below
    ],
)
def test_kept_pixels_by_hand(threshold: float, min_kept: int, kept: list[float]) -> None:
    assert ohem(threshold, min_kept) == pytest.approx(sum(kept) / len(kept))


@pytest.mark.parametrize(
    ("threshold", "min_kept", "ratio", "kept"),
    [
        (0.05, 1, 0.4, [2.0, 1.0]),  # 2 of 5
        (0.05, 1, 0.41, [2.0, 1.0, 0.5]),  # the next whole number
        (0.05, 3, 0.4, [2.0, 1.0, 0.5]),  # min_kept is more
        (0.7, 1, 0.4, [2.0, 1.0, 0.5]),  # the threshold keeps more than either
        (0.05, 1, 1.0, [2.0, 1.0, 0.5, 0.2, 0.1]),  # all, the easiest too
        (0.05, 100, 1.0, [2.0, 1.0, 0.5, 0.2, 0.1]),
    ],
)
def test_ratio_by_hand(threshold: float, min_kept: int, ratio: float, kept: list[float]) -> None:
    assert ohem(threshold, min_kept, ratio) == pytest.approx(sum(kept) / len(kept))


def test_ratio_is_reached_in_spite_of_ties() -> None:
    valid = torch.ones(1, 1, 4, dtype=torch.bool)
    values, probability = torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]], [[[0.9, 0.9, 0.9, 0.9]]]])
    assert OhemMining(min_kept=2)(values, valid.float(), valid, probability) == 0
    ratio = OhemMining(min_kept=2, ratio=0.5)
    assert ratio(values, valid.float(), valid, probability) == 2.5


def test_enough_hard_pixels_decide_without_the_whole_batch() -> None:
    def decided(num_kept: int, **params: Any) -> bool:
        return OhemMining(**params).decided(torch.tensor(float(num_kept)), 10)

    assert not decided(4, min_kept=4)  # the threshold may have to be p_(4)
    assert decided(5, min_kept=4)
    assert not decided(5, min_kept=4, ratio=0.6)
    assert decided(6, min_kept=4, ratio=0.6)
    assert decided(6, min_kept=1, ratio=0.6)
    assert not decided(9, min_kept=100)
    assert decided(10, min_kept=100, ratio=1.0)


def test_class_weights_do_not_divide_under_ohem() -> None:
    logits, target = torch.zeros(1, 2, 1, 3), torch.tensor([[[0, 1, 1]]])
    mining = {"name": "ohem", "threshold": 0.7, "min_kept": 1}
    loss = CrossEntropy(num_classes=2, class_weights=[1.0, 4.0], mining=mining)
    assert loss(logits, target).item() == pytest.approx(3 * 0.6931472)


def test_ohem_equals_a_sort() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 5, 9, 8) * 2, torch.randint(0, 5, (2, 9, 8))
    target[0, :3] = 255
    valid = target != 255
    for min_kept in (1, 20, 60, 500):
        for threshold in (0.01, 0.3, 0.9):
            mining = {"name": "ohem", "threshold": threshold, "min_kept": min_kept}
            log_p = logits.log_softmax(1).gather(1, torch.where(valid, target, 0)[:, None])[:, 0]
            log_p = log_p[valid].sort().values
            limit = max(float(log_p.exp()[min(min_kept, len(log_p) - 1)]), threshold)
            expected = -log_p[log_p.exp() < limit].mean()
            value = CrossEntropy(num_classes=5, mining=mining)(logits, target)
            torch.testing.assert_close(value, expected)


def test_path_of_the_devices_agrees_with_the_path_of_the_cpu() -> None:
    mining = OhemMining(threshold=0.3, min_kept=2)
    hardness = torch.where(VALID, PROBABILITY, torch.inf).flatten()
    rank = (VALID.sum() - 1).clamp(0, 2)
    sorted_limit = hardness.sort().values.gather(0, rank[None])[0].clamp(min=0.3)
    assert torch.equal(mining._limit(hardness, VALID), sorted_limit)


def test_no_gradient_through_the_choice() -> None:
    leaf = torch.randn(1, 3, 4, 4, dtype=torch.float64).requires_grad_()
    target = torch.zeros(1, 4, 4, dtype=torch.long)
    loss = CrossEntropy(num_classes=3, mining={"name": "ohem", "threshold": 0.2, "min_kept": 4})
    loss(leaf, target).backward()
    assert leaf.grad is not None
    assert int((leaf.grad != 0).any(1).sum()) == 4


@pytest.mark.parametrize("loss", [CrossEntropy, Focal, BinaryCrossEntropy])
def test_any_pixel_loss_composes(loss: type[PixelLoss]) -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 4, 4))
    hard = loss(num_classes=3, mining={"name": "ohem", "threshold": 0.01, "min_kept": 4})
    values = loss(num_classes=3).pixel_loss(logits, target)
    probability = loss(num_classes=3).target_probability(logits, target)
    order = probability.flatten().argsort()[:4]
    torch.testing.assert_close(hard(logits, target), values.flatten()[order].mean())


def test_one_channel_is_mined_by_its_sigmoid() -> None:
    logits = torch.tensor([3.0, -3.0, 0.5]).reshape(1, 1, 1, 3)
    target = torch.tensor([[[1, 1, 0]]])
    mining = {"name": "ohem", "threshold": 0.01, "min_kept": 1}
    loss = BinaryCrossEntropy(num_classes=1, mining=mining)
    expected = torch.nn.functional.softplus(torch.tensor(3.0))  # the second pixel
    torch.testing.assert_close(loss(logits, target), expected)

    class Plain(PixelLoss):
        def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
            return (logits[:, 0] - target).abs()

    assert Plain(num_classes=1, mining=mining)(logits, target).item() == pytest.approx(4.0)


VALUES_OF_TEN = torch.tensor([[[5.0, 1.0, 4.0, 2.0, 3.0], [9.0, 0.5, 2.5, 8.0, 7.0]]])
NINE_VALID = torch.ones(1, 2, 5, dtype=torch.bool)
NINE_VALID[0, 1, 0] = False  # the 9


def reduce(mining: Mining, values: Tensor, valid: Tensor, target: Tensor | None = None) -> Tensor:
    values = torch.where(valid, values, 0)
    value = mining(values, valid.to(values.dtype), valid, target=target)
    assert isinstance(value, Tensor)
    return value


class TestTopK:
    @pytest.mark.parametrize(
        ("params", "kept"),
        [
            ({"ratio": 0.1}, [8.0]),  # 0.9, and so 1
            ({"ratio": 1 / 3}, [8.0, 7.0, 5.0]),
            ({"ratio": 0.34}, [8.0, 7.0, 5.0, 4.0]),
            ({"k": 2}, [8.0, 7.0]),
            ({"k": 2, "ratio": 1.0}, [8.0, 7.0]),  # k comes first
            ({"ratio": 1.0}, [8.0, 7.0, 5.0, 4.0, 3.0, 2.5, 2.0, 1.0, 0.5]),
            ({"k": 50}, [8.0, 7.0, 5.0, 4.0, 3.0, 2.5, 2.0, 1.0, 0.5]),
        ],
    )
    def test_by_hand(self, params: dict[str, Any], kept: list[float]) -> None:
        found = reduce(TopKMining(**params), VALUES_OF_TEN, NINE_VALID)
        assert found.item() == pytest.approx(sum(kept) / len(kept))

    def test_the_gradient_is_that_of_the_mean_of_the_kept(self) -> None:
        leaf = VALUES_OF_TEN.clone().requires_grad_()
        reduce(TopKMining(k=2), leaf, NINE_VALID).backward()
        expected = torch.zeros(1, 2, 5)
        expected[0, 1, 3:] = 0.5  # 8 and 7
        assert leaf.grad is not None
        assert torch.equal(leaf.grad, expected)

    def test_ties_share_the_last_places(self) -> None:
        leaf = torch.tensor([[[1.0, 3.0, 1.0, 1.0, 0.0]]], requires_grad=True)
        value = reduce(TopKMining(k=2), leaf, torch.ones(1, 1, 5, dtype=torch.bool))
        value.backward()
        assert value.item() == pytest.approx(2.0)
        assert leaf.grad is not None
        third = 1 / 6  # a half, shared by three
        torch.testing.assert_close(leaf.grad, torch.tensor([[[third, 0.5, third, third, 0.0]]]))

    def test_weights_rank_and_do_not_divide(self) -> None:
        logits, target = torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 1, 1, 255]]])
        mining = {"name": "top_k", "k": 2}
        loss = CrossEntropy(num_classes=2, class_weights=[1.0, 4.0], mining=mining)
        assert loss(logits, target).item() == pytest.approx(4 * 0.6931472)

    def test_equals_a_sort(self) -> None:
        torch.manual_seed(0)
        logits, target = torch.randn(2, 5, 9, 8) * 2, torch.randint(0, 5, (2, 9, 8))
        target[0, :3] = 255
        losses = torch.nn.functional.cross_entropy(
            logits, target, reduction="none", ignore_index=255
        )
        ordered = losses[target != 255].sort(descending=True).values
        assert len(ordered) == 120
        for ratio, count in ((0.1, 12), (0.25, 30), (0.3, 36), (0.99, 119), (1.0, 120)):
            loss = CrossEntropy(num_classes=5, mining={"name": "top_k", "ratio": ratio})
            torch.testing.assert_close(loss(logits, target), ordered[:count].mean())


class TestHardNegative:
    TARGET = torch.tensor([[[1, 0, 0, 0, 2], [255, 0, 0, 0, 0]]])  # losses 5 and 3 are positive

    @pytest.mark.parametrize(
        ("params", "negatives"),
        [
            ({"ratio": 1.0}, [8.0, 7.0]),
            ({"ratio": 2.0}, [8.0, 7.0, 4.0, 2.5]),
            ({"ratio": 1.3}, [8.0, 7.0, 4.0]),  # 2.6
            ({"ratio": 0.0}, [8.0]),
            ({"ratio": 0.0, "min_negatives": 0}, []),
            ({"ratio": 1.0, "min_negatives": 3}, [8.0, 7.0, 4.0]),
            ({}, [8.0, 7.0, 4.0, 2.5, 2.0, 1.0]),
            ({"ratio": 100.0}, [8.0, 7.0, 4.0, 2.5, 2.0, 1.0, 0.5]),
            ({"ratio": float("inf")}, [8.0, 7.0, 4.0, 2.5, 2.0, 1.0, 0.5]),
        ],
    )
    def test_by_hand(self, params: dict[str, Any], negatives: list[float]) -> None:
        kept = [5.0, 3.0, *negatives]
        found = reduce(HardNegativeMining(**params), VALUES_OF_TEN, NINE_VALID, self.TARGET)
        assert found.item() == pytest.approx(sum(kept) / len(kept))

    def test_another_background(self) -> None:
        # All pixels but the 5 are positive: eight, and one negative.
        mining = HardNegativeMining(ratio=0.1, background=1)
        expected = (5 + 33 - 5) / 9
        found = reduce(mining, VALUES_OF_TEN, NINE_VALID, self.TARGET)
        assert found.item() == pytest.approx(expected)

    def test_multi_hot(self) -> None:
        target = torch.zeros(1, 2, 2, 5)
        target[0, 0, 0, 0] = target[0, 1, 0, 4] = 1.0
        target[0, 0, 0, 1] = 0.4  # below 0.5, so not positive
        target[0, :, 1, 0] = torch.nan
        mining = HardNegativeMining(ratio=1.0, background=1)
        found = reduce(mining, VALUES_OF_TEN, NINE_VALID, target)
        assert found.item() == pytest.approx((5 + 3 + 8 + 7) / 4)

    def test_no_positive(self) -> None:
        target = torch.zeros_like(self.TARGET)
        assert reduce(HardNegativeMining(), VALUES_OF_TEN, NINE_VALID, target) == 8
        some = HardNegativeMining(min_negatives=2)
        assert reduce(some, VALUES_OF_TEN, NINE_VALID, target) == 7.5
        leaf = VALUES_OF_TEN.clone().requires_grad_()
        value = reduce(HardNegativeMining(min_negatives=0), leaf, NINE_VALID, target)
        value.backward()
        assert value == 0
        assert leaf.grad is not None
        assert leaf.grad.eq(0).all()

    def test_no_negative(self) -> None:
        target = torch.ones_like(self.TARGET)
        found = reduce(HardNegativeMining(), VALUES_OF_TEN, NINE_VALID, target)
        assert found.item() == pytest.approx(33 / 9)

    def test_one_channel(self) -> None:
        logits = torch.tensor([0.0, 3.0, 2.0, -1.0]).reshape(1, 1, 1, 4)
        mining = {"name": "hard_negative", "ratio": 2.0}
        loss = BinaryCrossEntropy(num_classes=1, mining=mining)
        expected = torch.nn.functional.softplus(torch.tensor([0.0, 3.0, 2.0])).mean()
        for target in (torch.tensor([[[1, 0, 0, 0]]]), torch.tensor([[[[1.0, 0, 0, 0]]]])):
            torch.testing.assert_close(loss(logits, target), expected)

    IDS = torch.tensor([[[1, 0, 0, 0, 2], [255, 0, 0, 0, 1]]])

    @pytest.mark.parametrize("background", [0, 1])
    @pytest.mark.parametrize("name", ["cross_entropy", "focal", "kl_divergence"])
    def test_a_one_hot_target_gives_what_its_ids_give(self, name: str, background: int) -> None:
        torch.manual_seed(0)
        logits = torch.randn(1, 3, 2, 5).double()
        valid = self.IDS != 255
        one_hot = torch.nn.functional.one_hot(torch.where(valid, self.IDS, 0), 3).movedim(3, 1)
        dense = torch.where(valid[:, None], one_hot.double(), torch.nan)
        # one negative of six, or of two
        mining = {"name": "hard_negative", "ratio": 0.1, "background": background}
        loss = LOSSES.build({"name": name, "mining": mining}, num_classes=3)
        mean = LOSSES.build(name, num_classes=3)
        expected = loss(logits, self.IDS)
        torch.testing.assert_close(loss(logits, dense), expected, rtol=1e-12, atol=0)
        assert abs(expected - mean(logits, dense)) > 1e-2

    def test_probabilities_have_the_class_of_the_largest_channel(self) -> None:
        # (.4, .35, .25) has class 0 although no channel is above .5, and (.2, .6, .2) has class 1:
        # one positive, and the one of the three negatives with the largest loss.
        logits = torch.tensor([[0.0, 2, 1, 4], [0.0, 0, 0, 0], [0.0, 0, 0, 0]]).reshape(1, 3, 1, 4)
        target = torch.tensor([[0.2, 0.6, 0.2], *[[0.4, 0.35, 0.25]] * 3]).T.reshape(1, 3, 1, 4)
        loss = CrossEntropy(num_classes=3, mining={"name": "hard_negative", "ratio": 1.0})
        each = torch.nn.functional.cross_entropy(logits, target, reduction="none").flatten()
        assert each[1:].argmax() == 2  # its log-sum-exp is 4.04, and .6 of 4 is lost
        torch.testing.assert_close(loss(logits, target), (each[0] + each[3]) / 2)

    @pytest.mark.parametrize("name", ["cross_entropy", "bce", "quality_focal"])
    def test_strips_of_a_dense_target(self, name: str) -> None:
        torch.manual_seed(0)
        logits, target = torch.randn(2, 4, 5, 6).double() * 3, torch.rand(2, 4, 17, 13).double()
        target = (target * 4).softmax(1)
        target[0, 0, :3] = torch.nan
        found = []
        for rows in (None, 3):
            mining = {"name": "hard_negative", "ratio": 0.5}
            leaf = logits.clone().requires_grad_()
            criterion = build_criterion(name, num_classes=4, mining=mining, strip_rows=rows)
            total = criterion(leaf, target).total
            found.append((total, *torch.autograd.grad(total, leaf)))
        torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-10)

    def test_one_channel_has_a_background_too(self) -> None:
        # The negatives are the ones. Class ids and a dense target of one channel agree.
        logits = torch.tensor([0.0, 3.0, 2.0, -1.0]).reshape(1, 1, 1, 4)
        mining = {"name": "hard_negative", "ratio": 1.0, "background": 1}
        expected = torch.nn.functional.softplus(torch.tensor([0.0, -2.0])).mean()
        for name in ("bce", "quality_focal"):
            parameters = {"beta": 0.0} if name == "quality_focal" else {}
            spec = {"name": name, "mining": mining, **parameters}
            loss = LOSSES.build(spec, num_classes=1)
            for target in (torch.tensor([[[0, 1, 1, 1]]]), torch.tensor([[[[0.0, 1, 1, 1]]]])):
                target[..., 3] = 255  # ignored
                torch.testing.assert_close(loss(logits, target), expected)

    @pytest.mark.parametrize(("num_classes", "last"), [(1, 1), (2, 1), (5, 4)])
    def test_the_background_is_a_class(self, num_classes: int, last: int) -> None:
        spec: dict[str, Any] = {"name": "hard_negative", "background": last}
        BinaryCrossEntropy(num_classes=num_classes, mining=spec)
        message = f"mining.background must be a class id from 0 to {last}, got {last + 1}"
        with pytest.raises(ConfigError, match=message):
            BinaryCrossEntropy(num_classes=num_classes, mining=spec | {"background": last + 1})


WHOLE: list[dict[str, Any]] = [
    {"name": "ohem", "threshold": 1.0, "min_kept": 1},
    {"name": "ohem", "threshold": 0.01, "min_kept": 1, "ratio": 1.0},
    {"name": "top_k", "ratio": 1.0},
    {"name": "hard_negative", "ratio": float("inf")},
]


PART: list[dict[str, Any]] = [
    {"name": "ohem", "threshold": 0.2, "min_kept": 1},
    {"name": "ohem", "threshold": 0.01, "min_kept": 1, "ratio": 0.3},
    {"name": "ohem", "threshold": 0.9, "min_kept": 1, "ratio": 0.3},
    {"name": "top_k"},
    {"name": "top_k", "k": 7},
    {"name": "hard_negative", "ratio": 1.0},
    {"name": "hard_negative", "ratio": 0.1, "background": 3, "min_negatives": 20},
]


@pytest.mark.parametrize("spec", PART, ids=str)
@pytest.mark.parametrize("loss", ["cross_entropy", "bce"])
def test_strips(loss: str, spec: dict[str, Any]) -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 4, 5, 6).double() * 3, torch.randint(0, 4, (2, 17, 13))
    target[0, :3] = 255
    found = []
    for rows in (None, 3):
        criterion = build_criterion(loss, num_classes=4, mining=spec, strip_rows=rows)
        leaf = logits.clone().requires_grad_()
        value = criterion(leaf, target).total
        found.append((value.detach(), *torch.autograd.grad(value, leaf)))
    assert found[0][0] > 0
    torch.testing.assert_close(*found, atol=1e-10, rtol=0)


@pytest.mark.parametrize("spec", PART + WHOLE + [{"name": "ghm"}], ids=str)
class TestEdges:
    def test_nothing_valid(self, spec: dict[str, Any]) -> None:
        for shape in ((2, 3, 4), (0, 3, 4), (1, 0, 4)):
            mining = MININGS.build(spec)
            leaf = torch.zeros(shape, requires_grad=True)
            valid, target = torch.zeros(shape).bool(), torch.full(shape, 255)
            probability = torch.rand(shape)
            value = mining(leaf, valid.float(), valid, probability, target)
            value.backward()
            assert value == 0
            assert leaf.grad is not None
            assert leaf.grad.eq(0).all()

    def test_a_broken_loss_is_not_hidden(self, spec: dict[str, Any]) -> None:
        torch.manual_seed(0)
        values, target = torch.rand(1, 4, 5), torch.arange(20).reshape(1, 4, 5) % 2
        probability, valid = torch.rand(1, 4, 5), torch.ones(1, 4, 5, dtype=torch.bool)
        mining = MININGS.build(spec)
        for number in range(2):  # a positive and a negative, for hard_negative
            broken = values.clone(), probability.clone()
            broken[0][0, 0, number] = broken[1][0, 0, number] = torch.nan
            assert mining(broken[0], valid.float(), valid, broken[1], target).isnan()


@pytest.mark.parametrize("spec", [*PART, *WHOLE, "none", {"name": "ghm", "momentum": 0.5}], ids=str)
def test_a_device_is_not_waited_for(spec: str | dict[str, Any]) -> None:
    # A tensor on "meta" has no numbers: to ask for one is an error.
    mining = MININGS.build(spec).to("meta")
    values, probability = torch.rand(2, 1, 4, 5, device="meta")
    valid = torch.ones(1, 4, 5, dtype=torch.bool, device="meta")
    for target in (torch.ones(1, 4, 5), torch.ones(1, 3, 4, 5)):
        found = mining(values, valid.float(), valid, probability, target.to("meta"))
        assert found.shape == ()


def test_path_of_the_devices_agrees_for_every_rank() -> None:
    values = torch.tensor([3.0, -torch.inf, 1.0, 3.0, 2.0])
    for rank in range(-1, 7):
        in_order = values.sort().values.gather(0, torch.tensor(rank).clamp(0, 4)[None])[0]
        assert torch.equal(ranked(values, torch.tensor(rank)), in_order)


def test_share_of_largest_adds_up() -> None:
    torch.manual_seed(0)
    values, among = torch.randint(0, 4, (2, 3, 7)).float(), torch.rand(2, 3, 7) > 0.3
    for count in range(int(among.sum()) + 1):
        share = share_of_largest(values, among, torch.tensor(count))
        assert share[~among].eq(0).all()
        assert float(share.sum()) == pytest.approx(count)
        best = values[among].sort(descending=True).values[:count].sum()
        assert float((share * values).sum()) == pytest.approx(float(best), abs=1e-5)


def test_portion_rounds_up_and_not_by_accident() -> None:
    assert [portion(0.1, number) for number in (0, 1, 10, 11, 30)] == [0, 1, 1, 2, 3]
    assert [portion(1 / 3, number) for number in (3, 4, 300_000_000)] == [1, 2, 100_000_000]
    assert portion(0.29, 100) == 29  # 0.29 * 100 is below 29
    assert torch.equal(portion(0.1, torch.tensor(30)), torch.tensor(3))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "ohem", "threshold": 0.0}, "mining.threshold must be above 0 and at most 1"),
        ({"name": "ohem", "threshold": 1.5}, "mining.threshold must be above 0 and at most 1"),
        ({"name": "ohem", "min_kept": 0}, "mining.min_kept must be at least 1, got 0"),
        ({"name": "ohem", "ratio": 0.0}, "mining.ratio must be above 0 and at most 1, got 0.0"),
        ({"name": "top_k", "ratio": 1.5}, r"mining.ratio must be above 0 and at most 1, got 1\.5"),
        ({"name": "top_k", "k": 0}, "mining.k must be at least 1, got 0"),
        ({"name": "hard_negative", "ratio": -1.0}, "mining.ratio must not be negative, got -1.0"),
        ({"name": "hard_negative", "background": -1}, "mining.background must not be negative"),
        ({"name": "hard_negative", "min_negatives": -1}, "mining.min_negatives must not be neg"),
        ({"name": "ohem", "thres": 0.5}, "has no parameter 'thres'; did you mean 'threshold'"),
        ("ohm", "unknown mining 'ohm'; did you mean 'ohem'"),
    ],
)
def test_wrong_mining(spec: str | dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CrossEntropy(num_classes=2, mining=spec)


def test_repr() -> None:
    assert repr(OhemMining()) == "OhemMining(threshold=0.7, min_kept=100000)"
    assert repr(OhemMining(ratio=0.5)) == "OhemMining(threshold=0.7, min_kept=100000, ratio=0.5)"
    assert repr(TopKMining()) == "TopKMining(ratio=0.25)"
    assert repr(TopKMining(k=3)) == "TopKMining(k=3)"
    expected = "HardNegativeMining(ratio=3.0, background=0, min_negatives=1)"
    assert repr(HardNegativeMining()) == expected
