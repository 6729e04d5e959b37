from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F

import segtrain
from segtrain.errors import ConfigError
from segtrain.losses import (
    LOSSES,
    Boundary,
    CrossEntropy,
    DistanceWeightedCrossEntropy,
    HausdorffDT,
    Loss,
)
from segtrain.losses.distance import boundary_distance, signed_distance

IGNORE = 255
NAMES = ["boundary", "hausdorff_dt", "distance_weighted_cross_entropy"]
MAPS = NAMES[:2]


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 9, 11, dtype=torch.float64, generator=generator) * 2
    target = torch.zeros(2, 9, 11, dtype=torch.long)
    target[:, 4:, :6], target[0, 2:7, 7:], target[1, :3, 5:] = 1, 2, IGNORE
    return logits, target


def of_one(*probability: float) -> Tensor:
    """Logits ``(1, 2, 1, W)`` that give class 1 these probabilities."""
    p = torch.tensor(probability, dtype=torch.float64)
    return torch.stack([(1 - p).log(), p.log()])[None, :, None]


def row(*ids: int) -> Tensor:
    return torch.tensor([[ids]])


def gradient(loss: Loss, logits: Tensor, target: Tensor) -> Tensor:
    leaf = logits.clone().requires_grad_()
    loss(leaf, target).backward()
    assert leaf.grad is not None
    return leaf.grad


def perfect(target: Tensor, num_classes: int = 3) -> Tensor:
    clean = torch.where(target == IGNORE, 0, target)
    return 60.0 * F.one_hot(clean, num_classes).movedim(-1, 1).double()


class TestBoundary:
    def test_by_hand(self) -> None:
        loss = Boundary(num_classes=2)
        # phi of class 1 is 1.5, 0.5, -0.5, -1.5 and p - y is 0.2, 0.4, -0.4, -0.2: products 0.3,
        # 0.2, 0.2, 0.3. Class 0 has both signs reversed.
        value = loss(of_one(0.2, 0.4, 0.6, 0.8), row(0, 0, 1, 1))
        assert value.item() == pytest.approx(1 / 4)
        # With an ignored pixel between: phi is 1.5, -1.5, -2.5 over three pixels.
        value = loss(of_one(0.2, 0.9, 0.6, 0.8), row(0, 255, 1, 1))
        assert value.item() == pytest.approx((0.3 + 0.6 + 0.5) / 3)

    def test_limit(self) -> None:
        loss = Boundary(num_classes=2, max_distance=1.0)
        # |phi| is 1, 0.5, 0.5, 1.
        value = loss(of_one(0.2, 0.4, 0.6, 0.8), row(0, 0, 1, 1))
        assert value.item() == pytest.approx(0.8 / 4)

    def test_is_the_paper_and_a_constant(self, batch: tuple[Tensor, Tensor]) -> None:
        logits, target = batch
        valid = target != IGNORE
        leaf = logits.clone().requires_grad_()
        probability, of_paper, constant = leaf.softmax(1), [], []
        for label in range(3):
            inside = target == label
            phi = signed_distance(inside, valid)
            of_paper.append((phi * probability[:, label])[valid].mean())
            constant.append(phi[inside].sum() / valid.sum())
        expected = torch.stack(of_paper).mean()
        loss = Boundary(num_classes=3)
        offset = torch.stack(constant).mean()
        torch.testing.assert_close(loss(logits, target), (expected - offset).detach())
        expected.backward()
        torch.testing.assert_close(gradient(loss, logits, target), leaf.grad)

    def test_nothing_is_below_a_perfect_prediction(self, batch: tuple[Tensor, Tensor]) -> None:
        _, target = batch
        loss = Boundary(num_classes=3)
        assert loss(perfect(target), target).item() == pytest.approx(0, abs=1e-12)
        wider = target.clone()
        wider[:, 3, :6] = 1  # one row more than there is, half a pixel outside
        assert loss(perfect(wider), target).item() > 0.01
        narrower = target.clone()
        narrower[:, 4, :6] = 0  # and one less, half a pixel inside
        assert loss(perfect(narrower), target).item() > 0.01

    def test_far_is_worse_than_near(self) -> None:
        loss, target = Boundary(num_classes=2), row(1, 1, 0, 0, 0, 0, 0)
        near = loss(of_one(0.9, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1), target)
        far = loss(of_one(0.9, 0.9, 0.1, 0.1, 0.1, 0.1, 0.9), target)
        # phi is 0.5 and 4.5; 0.8 more probability over seven pixels, for both classes
        assert (far - near).item() == pytest.approx(0.8 * 4 / 7)

    def test_one_channel(self) -> None:
        value = Boundary(num_classes=1)(torch.zeros(1, 1, 1, 4), row(0, 0, 1, 1))
        assert value.item() == pytest.approx(0.5)


class TestHausdorff:
    # The prediction is 0 1 1 1: d_p is 0.5, 0.5, 1.5, 2.5; d_y is 1.5, 0.5, 0.5, 1.5 and (p - y)^2
    # is 0.04, 0.36, 0.16, 0.04, for both classes.
    LOGITS, TARGET = of_one(0.2, 0.6, 0.6, 0.8), row(0, 0, 1, 1)

    @pytest.mark.parametrize(
        ("params", "total"),
        [
            ({}, 0.04 * 2.5 + 0.36 * 0.5 + 0.16 * 2.5 + 0.04 * 8.5),
            ({"alpha": 1.0}, 0.04 * 2 + 0.36 * 1 + 0.16 * 2 + 0.04 * 4),
            ({"max_distance": 1.0}, 0.04 * 1.25 + 0.36 * 0.5 + 0.16 * 1.25 + 0.04 * 2),
        ],
    )
    def test_by_hand(self, params: dict[str, Any], total: float) -> None:
        value = HausdorffDT(num_classes=2, **params)(self.LOGITS, self.TARGET)
        assert value.item() == pytest.approx(total / 4)

    def test_distances_are_constants(self, batch: tuple[Tensor, Tensor]) -> None:
        logits, target = batch
        valid = target != IGNORE
        leaf = logits.clone().requires_grad_()
        probability, values = leaf.softmax(1), []
        for label in range(3):
            inside = target == label
            predicted = probability[:, label].detach() > 0.5
            factor = sum(signed_distance(mask, valid) ** 2 for mask in (inside, predicted))
            wrong = probability[:, label] - inside.double()
            values.append((factor * wrong**2)[valid].mean())
        expected = torch.stack(values).mean()
        loss = HausdorffDT(num_classes=3)
        torch.testing.assert_close(loss(logits, target), expected.detach())
        expected.backward()
        torch.testing.assert_close(gradient(loss, logits, target), leaf.grad)

    def test_perfect_is_zero(self, batch: tuple[Tensor, Tensor]) -> None:
        _, target = batch
        assert HausdorffDT(num_classes=3)(perfect(target), target).item() < 1e-12

    def test_a_far_mistake_counts_more_with_a_larger_power(self) -> None:
        target = row(1, 1, 0, 0, 0, 0, 0)
        near = of_one(0.9, 0.9, 0.4, 0.1, 0.1, 0.1, 0.1), target
        far = of_one(0.9, 0.9, 0.1, 0.1, 0.1, 0.1, 0.4), target
        ratios = []
        for alpha in (0.5, 1.0, 2.0, 3.0):
            loss = HausdorffDT(num_classes=2, alpha=alpha)
            ratios.append((loss(*far) / loss(*near)).item())
        assert ratios == sorted(ratios)
        assert ratios[0] > 1

    def test_one_channel(self) -> None:
        loss = HausdorffDT(num_classes=1)
        logits = torch.tensor([0.2, 0.6, 0.6, 0.8]).logit().reshape(1, 1, 1, 4)
        assert loss(logits, self.TARGET).item() == pytest.approx(1.02 / 4)


class TestDistanceWeighted:
    def test_by_hand(self) -> None:
        loss = DistanceWeightedCrossEntropy(num_classes=2, strength=2.0, scale=3.0)
        # d is 1.5, 0.5, 0.5 and the fourth is ignored.
        values = [
            (1 + 2 * math.exp(-0.5)) * -math.log(0.8),
            (1 + 2 * math.exp(-0.5 / 3)) * -math.log(0.4),
            (1 + 2 * math.exp(-0.5 / 3)) * -math.log(0.6),
        ]
        value = loss(of_one(0.2, 0.6, 0.6, 0.8), row(0, 0, 1, 255))
        assert value.item() == pytest.approx(sum(values) / 3)

    @pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0]])
    def test_at_a_large_scale_it_is_a_factor(
        self, batch: tuple[Tensor, Tensor], weights: list[float] | None
    ) -> None:
        common: dict[str, Any] = {"num_classes": 3, "class_weights": weights}
        plain = CrossEntropy(**common)(*batch)
        # The denominator does not change.
        everywhere = DistanceWeightedCrossEntropy(strength=2.0, scale=1e9, **common)
        torch.testing.assert_close(everywhere(*batch), 3 * plain)

    @pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0]])
    def test_is_a_mean_of_weighted_pixels(
        self, batch: tuple[Tensor, Tensor], weights: list[float] | None
    ) -> None:
        logits, target = batch
        valid = target != IGNORE
        cross_entropy = F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")
        weight = 1 + 5 * (-boundary_distance(target, IGNORE) / 5).exp()
        of_class = torch.ones(3) if weights is None else torch.tensor(weights)
        share = of_class[target[valid]]
        expected = (share * (weight * cross_entropy)[valid]).sum() / share.sum()
        loss = DistanceWeightedCrossEntropy(num_classes=3, class_weights=weights)
        torch.testing.assert_close(loss(logits, target), expected)

    def test_no_boundary_is_cross_entropy(self) -> None:
        logits = torch.randn(1, 2, 1, 1, generator=torch.Generator().manual_seed(0))
        for target in (row(0), row(1)):
            expected = CrossEntropy(num_classes=2)(logits, target)
            torch.testing.assert_close(
                DistanceWeightedCrossEntropy(num_classes=2)(logits, target), expected
            )

    def test_the_edge_of_ignored_pixels_has_no_weight(self) -> None:
        logits, target = of_one(0.3, 0.6, 0.8, 0.4), row(1, 255, 1, 1)
        value = DistanceWeightedCrossEntropy(num_classes=2)(logits, target)
        torch.testing.assert_close(value, CrossEntropy(num_classes=2)(logits, target))


class TestWithoutBoundary:
    @pytest.mark.parametrize("name", MAPS)
    @pytest.mark.parametrize("size", [(1, 1), (4, 5)])
    def test_one_class_everywhere(self, name: str, size: tuple[int, int]) -> None:
        # Uncertain, so that no prediction has a boundary either.
        loss = LOSSES.build({"name": name, "classes": "all"}, num_classes=3)
        logits, target = torch.zeros(2, 3, *size), torch.ones(2, *size, dtype=torch.long)
        assert loss(logits, target).item() == 0
        assert gradient(loss, logits, target).eq(0).all()

    @pytest.mark.parametrize("name", MAPS)
    def test_an_image_without_the_class_adds_nothing(self, name: str) -> None:
        loss = LOSSES.build({"name": name, "classes": [1]}, num_classes=2)
        logits, target = of_one(0.2, 0.6, 0.6, 0.8), row(0, 0, 1, 1)
        alone = loss(logits, target)
        beside = torch.cat([target, torch.zeros_like(target)])
        certain = torch.tensor([9.0, -9.0]).reshape(1, 2, 1, 1).expand(1, 2, 1, 4)
        # Twice the pixels, of which only one image adds to the sum.
        value = loss(torch.cat([logits, certain.double()]), beside)
        assert value.item() == pytest.approx(alone.item() / 2)

    @pytest.mark.parametrize("name", MAPS)
    def test_per_image(self, name: str, batch: tuple[Tensor, Tensor]) -> None:
        logits, target = batch
        loss = LOSSES.build({"name": name, "per_image": True}, num_classes=3)
        alone = [loss(logits[n : n + 1], target[n : n + 1]) for n in range(2)]
        torch.testing.assert_close(loss(logits, target), torch.stack(alone).mean())


SPECS: list[dict[str, Any]] = [
    {"name": "boundary"},
    {"name": "boundary", "max_distance": 2.0, "class_weights": [0.5, 2.0, 1.0, 3.0]},
    {"name": "boundary", "per_image": True, "activation": "sigmoid", "classes": "all"},
    {"name": "hausdorff_dt"},
    {"name": "hausdorff_dt", "alpha": 1.0, "class_weights": [0.5, 2.0, 1.0, 3.0]},
    {"name": "hausdorff_dt", "per_image": True, "activation": "sigmoid", "classes": [0, 2]},
    {"name": "distance_weighted_cross_entropy"},
    {"name": "distance_weighted_cross_entropy", "class_weights": [0.5, 2.0, 1.0, 3.0]},
    {
        "name": "distance_weighted_cross_entropy",
        "scale": 1.0,
        "mining": {"name": "ohem", "min_kept": 40},
    },
    {"name": "sum", "terms": {"dice": {}, "boundary": {"weight": 0.5}, "hausdorff_dt": {}}},
]


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: "-".join(map(str, spec.values())))
def test_strips_are_the_whole(spec: dict[str, Any], align_corners: bool) -> None:
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(2, 4, 4, 5, dtype=torch.float64, generator=generator) * 3
    target = torch.randint(0, 4, (2, 4, 5), generator=generator)
    target = F.interpolate(target[:, None].float(), (13, 17))[:, 0].long()
    target[0, 5:8, 3:9] = IGNORE
    found = []
    for rows in (None, 3):
        criterion = segtrain.build_criterion(
            spec, num_classes=4, align_corners=align_corners, strip_rows=rows
        )
        leaf = logits.clone().requires_grad_()
        total = criterion(leaf, target).total
        total.backward()
        found.append((total.detach(), leaf.grad))
    torch.testing.assert_close(found[1], found[0], atol=1e-10, rtol=1e-10)
    assert found[0][0] > 0


@pytest.mark.parametrize("name", NAMES)
def test_huge_logits_are_finite(name: str, batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch
    loss = LOSSES.build({"name": name}, num_classes=3)
    for scale in (1e4, -1e4):
        leaf = (logits.float().sign() * scale).requires_grad_()
        value = loss(leaf, target)
        value.backward()
        assert torch.isfinite(value)
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("boundary", {"max_distance": 0.0}, "max_distance must be above 0, got 0.0"),
        ("hausdorff_dt", {"max_distance": -1.0}, "max_distance must be above 0, got -1.0"),
        ("hausdorff_dt", {"alpha": 0.0}, "alpha must be finite and above 0, got 0.0"),
        ("hausdorff_dt", {"alpha": math.inf}, "alpha must be finite and above 0, got inf"),
        ("distance_weighted_cross_entropy", {"strength": -1.0}, "strength must .* got -1.0"),
        (
            "distance_weighted_cross_entropy",
            {"scale": 0.0},
            "scale must be finite and above 0, got 0.0",
        ),
        ("distance_weighted_cross_entropy", {"num_classes": 1}, "num_classes is 1.*use bce"),
    ],
)
def test_wrong_parameters(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LOSSES.get(name)(**{"num_classes": 2, **params})


@pytest.mark.parametrize("name", NAMES)
def test_the_preset_has_the_defaults(name: str, pytestconfig: pytest.Config) -> None:
    preset = yaml.safe_load((pytestconfig.rootpath / "configs/loss" / f"{name}.yaml").read_text())
    schema = LOSSES.schema(name)
    assert preset.pop("name") == name
    assert preset == {key: schema[key].default for key in preset}
    own = LOSSES.get(name).__init__.__kwdefaults__  # type: ignore[misc]
    assert own.keys() <= preset.keys()


def test_the_preset_hands_over(pytestconfig: pytest.Config) -> None:
    preset = yaml.safe_load((pytestconfig.rootpath / "configs/loss/dice_boundary.yaml").read_text())
    loss = LOSSES.build(preset, num_classes=3)
    for step, expected in ((0, [1.0, 0.0]), (150, [0.505, 0.495]), (300, [0.01, 0.99])):
        loss.at_step(step, total_steps=300)
        weights = loss.term_weights(torch.zeros(()))
        torch.testing.assert_close(weights, torch.tensor(expected))
