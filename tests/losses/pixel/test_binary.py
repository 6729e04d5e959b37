from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from segtrain import build_criterion
from segtrain.errors import ConfigError
from segtrain.losses import (
    LOSSES,
    Asymmetric,
    BinaryCrossEntropy,
    CrossEntropy,
    QualityFocal,
    SigmoidFocal,
)

SIGMOID = (Asymmetric, BinaryCrossEntropy, QualityFocal, SigmoidFocal)
NAMES = [loss.registered_name for loss in SIGMOID]
EXTREME = [-1e4, -100.0, -17.0, 0.0, 17.0, 100.0, 1e4]


def one_hot(target: Tensor, num_classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return F.one_hot(target, num_classes).movedim(-1, 1).to(dtype)


def pixel(*numbers: float) -> Tensor:
    return torch.tensor(numbers).reshape(1, -1, 1, 1)


def ids(number: int) -> Tensor:
    return torch.full((1, 1, 1), number)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 5, 6, generator=generator) * 3
    return logits, torch.randint(0, 4, (2, 5, 6), generator=generator)


def both(loss: Any, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, target)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


@pytest.mark.parametrize("name", NAMES)
class TestForms:
    """Class ids, multi-hot targets and one channel give the same loss."""

    def test_ids_are_one_hot(self, name: str, batch: tuple[Tensor, Tensor]) -> None:
        logits, target = batch[0].double(), batch[1].clone()
        target[0, :2] = 255
        dense = one_hot(target.clamp(max=3), 4)
        dense[0, :, :2] = 255
        loss = LOSSES.build(name, num_classes=4, ignore_label=255)
        torch.testing.assert_close(both(loss, logits, target), both(loss, logits, dense))
        dense[0, :, :2] = torch.nan
        torch.testing.assert_close(both(loss, logits, target), both(loss, logits, dense))

    def test_ids_are_one_hot_to_a_mining(self, name: str, batch: tuple[Tensor, Tensor]) -> None:
        logits, target = batch[0].double(), batch[1]
        for mining in ("ghm", {"name": "ohem", "threshold": 0.1, "min_kept": 7}, "top_k"):
            loss = LOSSES.build({"name": name, "mining": mining}, num_classes=4, ignore_label=255)
            found = both(loss, logits, target), both(loss, logits, one_hot(target, 4))
            torch.testing.assert_close(*found)

    def test_one_channel(self, name: str, batch: tuple[Tensor, Tensor]) -> None:
        logits, target = batch[0][:, :1].double(), batch[1] % 2
        loss = LOSSES.build(name, num_classes=1, ignore_label=255)
        dense = target[:, None].double()
        torch.testing.assert_close(both(loss, logits, target), both(loss, logits, dense))
        # One channel is the first of two classes, of which the second has a loss of 0; the mean
        # over both is half of it.
        two = torch.cat([logits, torch.full_like(logits, -60.0)], 1)
        multi_hot = torch.cat([dense, torch.zeros_like(dense)], 1)
        whole = LOSSES.build(name, num_classes=2, ignore_label=255)
        torch.testing.assert_close(loss(logits, target), 2 * whole(two, multi_hot))

    def test_classes_do_not_exclude_each_other(self, name: str) -> None:
        loss = LOSSES.build(name, num_classes=3, ignore_label=255)
        for answers in ([1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]):
            target = pixel(*answers)
            assert float(loss(20 * (2 * target - 1), target)) < 1e-6
            assert float(loss(-20 * (2 * target - 1), target)) > 0.1

    def test_strips(self, name: str, batch: tuple[Tensor, Tensor]) -> None:
        torch.manual_seed(1)
        target = torch.randint(0, 4, (2, 17, 13))
        target[0, :3] = 255
        multi_hot = torch.rand(2, 4, 17, 13).double()
        if name != "quality_focal":
            multi_hot = multi_hot.round()
        multi_hot[1, 2, 4:9] = torch.nan
        single = torch.where(target == 255, 255, target % 2)
        for channels, seen in ((4, target), (4, multi_hot), (1, single), (1, multi_hot[:, :1])):
            logits = batch[0][:, :channels].double()
            for mining in (None, {"name": "ohem", "threshold": 0.2, "min_kept": 30}):
                found = []
                for rows in (None, 3):
                    criterion = build_criterion(
                        name, num_classes=channels, mining=mining, strip_rows=rows
                    )
                    found.append(both(lambda z, t, c=criterion: c(z, t).total, logits, seen))
                torch.testing.assert_close(*found, atol=1e-10, rtol=0)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_extreme_logits(self, name: str, dtype: torch.dtype) -> None:
        logits = torch.tensor(EXTREME, dtype=dtype).reshape(1, 1, 1, -1).expand(1, 2, 2, -1)
        target = torch.zeros(1, 2, len(EXTREME), dtype=torch.long)
        target[:, 1] = 1
        own = dict.fromkeys(("gamma", "gamma_neg", "gamma_pos", "beta"), 0.3)
        schema = LOSSES.schema(name)
        for params in ({}, {key: value for key, value in own.items() if key in schema}):
            loss = LOSSES.build({"name": name, **params}, num_classes=2, ignore_label=255)
            for seen in (target, one_hot(target, 2), torch.full_like(logits, 0.5)):
                value, gradient = both(loss, logits, seen)
                assert torch.isfinite(value)
                assert torch.isfinite(gradient).all()


class TestBinaryCrossEntropy:
    def test_by_hand(self) -> None:
        logits = pixel(math.log(3.0), 0.0, -math.log(3.0))
        # sigmoid: 3/4 for the target's class, 1/2 and 1/4 for the others
        expected = -(math.log(3 / 4) + math.log(1 / 2) + math.log(3 / 4)) / 3
        assert BinaryCrossEntropy(num_classes=3)(logits, ids(0)).item() == pytest.approx(expected)

    def test_pos_weight_by_hand(self) -> None:
        logits = pixel(math.log(3.0), 0.0)
        # for class 0: 4 ln(4/3) for the yes, ln 2 for the no; for class 1: ln 4, and 1/2 ln 2
        loss = BinaryCrossEntropy(num_classes=2, pos_weight=[4.0, 0.5])
        first = (4 * math.log(4 / 3) + math.log(2)) / 2
        assert loss(logits, ids(0)).item() == pytest.approx(first)
        second = (math.log(4) + math.log(2) / 2) / 2
        assert loss(logits, ids(1)).item() == pytest.approx(second)

    @pytest.mark.parametrize("pos_weight", [1.0, 3.0, [0.5, 1.0, 2.0, 8.0]])
    def test_is_that_of_torch(
        self, pos_weight: float | list[float], batch: tuple[Tensor, Tensor]
    ) -> None:
        logits, target = batch
        loss = BinaryCrossEntropy(num_classes=4, pos_weight=pos_weight)
        weight = torch.tensor(pos_weight).expand(4)[:, None, None]

        def official(logits: Tensor, target: Tensor) -> Tensor:
            return F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight)

        dense = one_hot(target, 4)
        torch.testing.assert_close(both(loss, logits, target), both(official, logits, dense))
        for multi_hot in (torch.rand_like(logits), torch.rand_like(logits).round()):
            expected = both(official, logits, multi_hot)
            torch.testing.assert_close(both(loss, logits, multi_hot), expected)

    @pytest.mark.parametrize("pos_weight", [1.0, 3.0])
    def test_one_channel_is_that_of_torch(
        self, pos_weight: float, batch: tuple[Tensor, Tensor]
    ) -> None:
        logits, target = batch[0][:, :1], batch[1] % 2
        expected = F.binary_cross_entropy_with_logits(
            logits[:, 0], target.float(), pos_weight=torch.tensor(pos_weight)
        )
        loss = BinaryCrossEntropy(num_classes=1, pos_weight=pos_weight)
        torch.testing.assert_close(loss(logits, target), expected)

    def test_a_large_logit_does_not_hide_the_others(self) -> None:
        # 1e4 for the target is right and has a loss of 0; the other two have ln 2 each
        loss = BinaryCrossEntropy(num_classes=3)
        value = loss(pixel(1e4, 0.0, 0.0), ids(0))
        assert value.item() == pytest.approx(2 * math.log(2) / 3, rel=1e-6)

    def test_one_channel_with_ignored_pixels_and_weights(self) -> None:
        logits = torch.zeros(1, 1, 1, 3)
        logits[0, 0, 0, 1] = math.log(3.0)
        target = torch.tensor([[[0, 1, 255]]])
        loss = BinaryCrossEntropy(num_classes=1, class_weights=[1.0, 3.0])
        expected = (math.log(2) + 3 * math.log(4 / 3)) / 4
        assert loss(logits, target).item() == pytest.approx(expected)
        with pytest.raises(ConfigError, match="class_weights has 1 values, but num_classes is 1"):
            BinaryCrossEntropy(num_classes=1, class_weights=[1.0])
        with pytest.raises(ValueError, match=r"target holds 2 .*allowed are 0 to 1"):
            loss(logits, target.clamp(max=2))

    @pytest.mark.parametrize(
        ("pos_weight", "message"),
        [
            ([1.0, 2.0], "pos_weight has 2 values, but num_classes is 3"),
            (0.0, "pos_weight must be finite and above 0, got 0.0"),
            ([1.0, -1.0, 1.0], r"pos_weight must be finite and above 0, got \[1.0, -1.0"),
            (math.inf, "pos_weight must be finite and above 0, got inf"),
            ("three", r"loss.pos_weight must be .*, got 'three'"),
        ],
    )
    def test_wrong_pos_weight(self, pos_weight: Any, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            LOSSES.build({"name": "bce", "pos_weight": pos_weight}, num_classes=3, ignore_label=255)


class TestHardness:
    """Hard-example mining sees the probability of the worst label."""

    def test_by_hand(self) -> None:
        loss = BinaryCrossEntropy(num_classes=3)
        logits = pixel(math.log(3.0), 0.0, -math.log(9.0)).expand(1, 3, 1, 3)
        # sigmoid: 3/4, 1/2, 1/10; of the right answers the worst is 1 - 1/2, 1 - 3/4, 1/10
        found = loss.target_probability(logits, torch.tensor([[[0, 1, 2]]]))
        torch.testing.assert_close(found, torch.tensor([[[0.5, 0.25, 0.1]]]))

    def test_multi_hot_by_hand(self) -> None:
        loss = QualityFocal(num_classes=2)
        logits = pixel(math.log(3.0), 0.0).expand(1, 2, 1, 3)
        # sigmoid: 3/4, 1/2. None there: 1 - 3/4. Both: 1/2. In between: 1 - |0.2 - 0.75|
        target = torch.tensor([[0.0, 1.0, 0.2], [0.0, 1.0, 0.5]]).reshape(1, 2, 1, 3)
        found = loss.target_probability(logits, target)
        torch.testing.assert_close(found, torch.tensor([[[0.25, 0.5, 0.45]]]))

    def test_one_channel(self) -> None:
        loss = BinaryCrossEntropy(num_classes=1)
        found = loss.target_probability(pixel(2.0).expand(1, 1, 1, 2), torch.tensor([[[0, 1]]]))
        torch.testing.assert_close(found, torch.tensor([[[-2.0, 2.0]]]).sigmoid())

    def test_small_probabilities_are_told_apart(self) -> None:
        loss = BinaryCrossEntropy(num_classes=1)
        logits = torch.tensor([[[[-40.0, -50.0]]]])
        for target in (torch.ones(1, 1, 2, dtype=torch.long), torch.ones(1, 1, 1, 2)):
            first, second = loss.target_probability(logits, target).flatten().tolist()
            assert first > second > 0

    def test_a_false_positive_is_hard_too(self) -> None:
        # The target's class is predicted at both pixels; at the second, another class as well.
        logits = torch.tensor([[5.0, 5.0], [-5.0, 4.0]]).reshape(1, 2, 1, 2)
        mining = {"name": "ohem", "threshold": 0.5, "min_kept": 1}
        loss = BinaryCrossEntropy(num_classes=2, mining=mining)
        _, gradient = both(loss, logits, torch.zeros(1, 1, 2, dtype=torch.long))
        assert gradient[..., 0].eq(0).all()
        assert gradient[..., 1].ne(0).all()


class TestSigmoidFocal:
    def test_by_hand(self) -> None:
        logits = pixel(math.log(3.0), 0.0)
        # yes: 1/4 (1/4)^2 ln(4/3); no: 3/4 (1/2)^2 ln 2
        expected = (math.log(4 / 3) / 64 + 3 * math.log(2) / 16) / 2
        assert SigmoidFocal(num_classes=2)(logits, ids(0)).item() == pytest.approx(expected)

    @pytest.mark.parametrize("alpha", [None, 0.0, 0.25, 1.0])
    @pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
    def test_is_that_of_torchvision(
        self, gamma: float, alpha: float | None, batch: tuple[Tensor, Tensor]
    ) -> None:
        logits, target = batch[0].double(), batch[1]

        def official(logits: Tensor, target: Tensor) -> Tensor:
            weight = -1 if alpha is None else alpha
            return sigmoid_focal_loss(logits, target, weight, gamma, reduction="mean")

        loss = SigmoidFocal(num_classes=4, gamma=gamma, alpha=alpha)
        expected = both(official, logits, one_hot(target, 4, torch.float64))
        torch.testing.assert_close(both(loss, logits, target), expected)
        multi_hot = torch.rand_like(logits).round()
        expected = both(official, logits, multi_hot)
        torch.testing.assert_close(both(loss, logits, multi_hot), expected)

    @pytest.mark.parametrize(
        ("params", "message"),
        [
            ({"gamma": -1.0}, "gamma must be finite and not negative, got -1.0"),
            ({"gamma": math.inf}, "gamma must be finite and not negative, got inf"),
            ({"alpha": 1.5}, r"alpha must be in \[0, 1\] or null, got 1.5"),
            ({"alpha": -1.0}, r"alpha must be in \[0, 1\] or null, got -1.0"),
        ],
    )
    def test_wrong_arguments(self, params: dict[str, float], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            SigmoidFocal(num_classes=2, **params)


class TestQualityFocal:
    def test_by_hand(self) -> None:
        # p = 3/4, y = 1/4: |1/2|^2 (1/4 ln(4/3) + 3/4 ln 4)
        expected = (math.log(4 / 3) + 3 * math.log(4)) / 16
        loss = QualityFocal(num_classes=1)
        found = loss(pixel(math.log(3.0)), pixel(0.25))
        assert found.item() == pytest.approx(expected)

    @pytest.mark.parametrize("beta", [0.0, 1.0, 2.0, 2.5])
    def test_is_its_formula(self, beta: float, batch: tuple[Tensor, Tensor]) -> None:
        logits = batch[0].double()
        target = torch.rand(logits.shape, generator=torch.Generator().manual_seed(3)).double()

        def formula(logits: Tensor, target: Tensor) -> Tensor:
            entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
            return ((target - logits.sigmoid()).abs() ** beta * entropy).mean()

        loss = QualityFocal(num_classes=4, beta=beta)
        torch.testing.assert_close(both(loss, logits, target), both(formula, logits, target))

    def test_the_target_is_the_minimum(self) -> None:
        target = torch.tensor([0.1, 0.3, 0.5, 0.9], dtype=torch.float64).reshape(1, 4, 1, 1)
        for beta in (0.5, 1.0, 2.0):
            value, gradient = both(QualityFocal(num_classes=4, beta=beta), target.logit(), target)
            assert value.item() == pytest.approx(0, abs=1e-7)
            if beta == 2.0:
                assert gradient.abs().max() < 1e-12

    def test_the_weight_of_a_pixel_is_the_average_over_its_labels(self) -> None:
        # Three pixels of logits 0, with class weights 1 and 4: the labels (1/2, 1/4) have the
        # average weight 2, (0, 1) has 4, and (0, 0) has 2.5, the mean of both.
        labels = torch.tensor([[0.5, 0.0, 0.0], [0.25, 1.0, 0.0]]).reshape(1, 2, 1, 3)
        target, weights = labels, torch.tensor([2.0, 4.0, 2.5])
        logits = torch.zeros(1, 2, 1, 3)
        each = ((target - 0.5).square() * math.log(2.0)).mean(1).flatten()
        found = QualityFocal(num_classes=2, class_weights=[1.0, 4.0])(logits, target)
        torch.testing.assert_close(found, (weights * each).sum() / weights.sum())

    def test_wrong_beta(self) -> None:
        with pytest.raises(ConfigError, match=r"beta must be finite and not negative, got -0\.5"):
            QualityFocal(num_classes=2, beta=-0.5)

    def test_a_target_outside_of_0_to_1(self) -> None:
        with pytest.raises(ValueError, match=r"a dense target holds 1\.5; allowed are 0 to 1"):
            QualityFocal(num_classes=1)(pixel(0.0), pixel(1.5))


class TestAsymmetric:
    def test_by_hand(self) -> None:
        # p = 3/4 and 1/2, m = 1/4: yes (1/4) ln(4/3); no (1/2 - 1/4)^2 ln(1 / (1 - 1/4))
        loss = Asymmetric(num_classes=2, gamma_neg=2.0, gamma_pos=1.0, clip=0.25)
        expected = (math.log(4 / 3) / 4 + math.log(4 / 3) / 16) / 2
        found = loss(pixel(math.log(3.0), 0.0), ids(0))
        assert found.item() == pytest.approx(expected)

    @pytest.mark.parametrize("clip", [0.0, 0.05, 0.4])
    @pytest.mark.parametrize(("gamma_neg", "gamma_pos"), [(0.0, 0.0), (4.0, 1.0), (2.5, 0.5)])
    def test_is_its_formula(
        self, gamma_neg: float, gamma_pos: float, clip: float, batch: tuple[Tensor, Tensor]
    ) -> None:
        logits, dense = batch[0].double(), one_hot(batch[1], 4, torch.float64)

        def formula(logits: Tensor, dense: Tensor) -> Tensor:
            p = logits.sigmoid()
            shifted = (p - clip).clamp(min=0)
            yes = (1 - p) ** gamma_pos * p.log()
            no = shifted**gamma_neg * (1 - shifted).log()
            return -torch.where(dense == 1, yes, no).mean()

        params = {"gamma_neg": gamma_neg, "gamma_pos": gamma_pos, "clip": clip}
        loss = Asymmetric(num_classes=4, **params)
        torch.testing.assert_close(both(loss, logits, batch[1]), both(formula, logits, dense))

    def test_an_easy_negative_has_no_loss(self) -> None:
        loss = Asymmetric(num_classes=1, clip=0.05)
        value, gradient = both(loss, torch.tensor(0.04).logit().reshape(1, 1, 1, 1), ids(0))
        assert value == 0
        assert gradient == 0
        assert loss(torch.tensor(0.06).logit().reshape(1, 1, 1, 1), ids(0)) > 0

    def test_the_margin_bounds_a_negative(self) -> None:
        # 0.95^4 ln 20
        value, gradient = both(Asymmetric(num_classes=1), pixel(1e4), ids(0))
        assert value.item() == pytest.approx(0.95**4 * math.log(20))
        assert gradient == 0

    def test_the_default_is_that_of_the_official_code(self) -> None:
        loss = Asymmetric(num_classes=2)
        assert (loss.gamma_neg, loss.gamma_pos, loss.clip) == (4.0, 1.0, 0.05)

    @pytest.mark.parametrize(
        ("params", "message"),
        [
            ({"gamma_neg": -1.0}, "gamma_neg must be finite and not negative, got -1.0"),
            ({"gamma_pos": -2.0}, "gamma_pos must be finite and not negative, got -2.0"),
            ({"clip": 1.0}, "clip must be at least 0 and below 1, got 1.0"),
            ({"clip": -0.1}, "clip must be at least 0 and below 1, got -0.1"),
        ],
    )
    def test_wrong_arguments(self, params: dict[str, float], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            Asymmetric(num_classes=2, **params)


def test_softmax_is_another_loss() -> None:
    # With two classes whose logits are opposite, a softmax sees twice the margin.
    logits = pixel(1.0, -1.0)
    sigmoid, softmax = BinaryCrossEntropy(num_classes=2), CrossEntropy(num_classes=2)
    torch.testing.assert_close(sigmoid(logits, ids(0)), softmax(logits / 2, ids(0)))
