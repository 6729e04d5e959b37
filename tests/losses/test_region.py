from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from segtrain.errors import ConfigError
from segtrain.losses import LOSSES, Dice, Jaccard, RegionLoss

BOTH = pytest.mark.parametrize("name", ["dice", "jaccard"])


def build(name: str, num_classes: int = 4, **params: Any) -> RegionLoss:
    loss = LOSSES.build({"name": name, **params}, num_classes=num_classes, ignore_label=255)
    assert isinstance(loss, RegionLoss)
    return loss


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    target = torch.randint(0, 4, (2, 6, 5))
    target[0, :2] = 255
    return torch.randn(2, 4, 6, 5, dtype=torch.float64) * 2, target


def log_odds(*probabilities: float) -> Tensor:
    return torch.tensor([[math.log(p), math.log(1 - p)] for p in probabilities]).T[None, :, None]


def test_by_hand() -> None:
    logits, target = log_odds(0.75, 0.5, 0.1), torch.tensor([[[0, 1, 255]]])
    # class 0: TP 3/4, FP 1/2, FN 1/4; class 1: TP 1/2, FP 1/4, FN 1/2
    dice = 1 - (1.5 / 2.25 + 1.0 / 1.75) / 2
    jaccard = 1 - (0.75 / 1.5 + 0.5 / 1.25) / 2
    smoothed = 1 - (2.5 / 3.25 + 2.0 / 2.75) / 2
    assert Dice(num_classes=2, smooth=0.0)(logits, target).item() == pytest.approx(dice)
    assert Jaccard(num_classes=2, smooth=0.0)(logits, target).item() == pytest.approx(jaccard)
    assert Dice(num_classes=2)(logits, target).item() == pytest.approx(smoothed)
    weighted = 1 - (1.5 / 2.25 + 3 * 1.0 / 1.75) / 4
    loss = Dice(num_classes=2, smooth=0.0, class_weights=[1.0, 3.0])
    assert loss(logits, target).item() == pytest.approx(weighted)


def test_jaccard_follows_from_dice(batch: tuple[Tensor, Tensor]) -> None:
    for index in range(4):
        score = 1 - Dice(num_classes=4, smooth=0.0, classes=[index])(*batch)
        expected = 1 - score / (2 - score)
        value = Jaccard(num_classes=4, smooth=0.0, classes=[index])(*batch)
        torch.testing.assert_close(value, expected)


@BOTH
@pytest.mark.parametrize("per_image", [False, True])
def test_sums_over_pixels(name: str, per_image: bool, batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch
    valid = target != 255

    def direct(z: Tensor, t: Tensor, v: Tensor) -> Tensor:
        p, y = z.softmax(1), F.one_hot(torch.where(v, t, 0), 4).movedim(-1, 1)
        scores = []
        for c in range(4):
            p_c, y_c = p[:, c][v], y[:, c][v]
            tp, both = (p_c * y_c).sum(), p_c.sum() + y_c.sum()
            ratio = (2 * tp + 1) / (both + 1) if name == "dice" else (tp + 1) / (both - tp + 1)
            scores.append(1 - ratio)
        return torch.stack(scores).mean()

    if per_image:
        parts = [direct(logits[n : n + 1], target[n : n + 1], valid[n : n + 1]) for n in range(2)]
        expected = torch.stack(parts).mean()
    else:
        expected = direct(logits, target, valid)
    torch.testing.assert_close(build(name, per_image=per_image)(logits, target), expected)


@BOTH
def test_which_classes_count(name: str, batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch[0], torch.where(batch[1] == 3, 0, batch[1])
    alone = [build(name, classes=[index])(logits, target) for index in range(4)]
    present = build(name)(logits, target)
    torch.testing.assert_close(present, torch.stack(alone[:3]).mean())
    torch.testing.assert_close(
        build(name, classes="all")(logits, target), torch.stack(alone).mean()
    )
    torch.testing.assert_close(
        build(name, classes=[1, 3])(logits, target), torch.stack(alone[1::2]).mean()
    )


@BOTH
@pytest.mark.parametrize("classes", [[], [4], [-1], [0, 9]])
def test_wrong_classes(name: str, classes: list[int]) -> None:
    with pytest.raises(ConfigError, match="classes must be ids from 0 to 3"):
        build(name, classes=classes)


@BOTH
def test_wrong_smooth(name: str) -> None:
    with pytest.raises(ConfigError, match="smooth must not be negative, got -1"):
        build(name, smooth=-1.0)


@BOTH
@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_one_channel(name: str, smooth: float) -> None:
    logits = torch.tensor([math.log(3.0), 0.0, 5.0]).reshape(1, 1, 1, 3)
    loss = build(name, num_classes=1, smooth=smooth)
    # TP 3/4, FP 1/2, FN 1/4
    dice, jaccard = (1.5 + smooth) / (2.25 + smooth), (0.75 + smooth) / (1.5 + smooth)
    expected = 1 - (dice if name == "dice" else jaccard)
    assert loss(logits, torch.tensor([[[1, 0, 255]]])).item() == pytest.approx(expected)
    weighted = build(name, num_classes=1, smooth=smooth, class_weights=[1.0, 5.0])
    assert weighted(logits, torch.tensor([[[1, 0, 255]]])).item() == pytest.approx(expected)


@BOTH
def test_a_perfect_empty_image_is_counted(name: str) -> None:
    # The sigmoid underflows to 0 in the second image, which has valid pixels all the same.
    logits = torch.stack([torch.zeros(1, 1, 2), torch.full((1, 1, 2), -200.0)])
    target = torch.tensor([[[1, 0]], [[0, 0]]])
    loss = build(name, num_classes=1, per_image=True)
    alone = [loss(logits[n : n + 1], target[n : n + 1]) for n in range(2)]
    assert alone[0] > 0
    torch.testing.assert_close(loss(logits, target), torch.stack(alone).mean())


@BOTH
def test_an_ignored_image_leaves_the_mean(name: str, batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch[0], batch[1].clone()
    target[1] = 255
    for per_image in (True, False):
        loss = build(name, per_image=per_image)
        torch.testing.assert_close(loss(logits, target), loss(logits[:1], target[:1]))


def test_no_smoothing_and_nothing_predicted_is_finite() -> None:
    leaf = torch.full((1, 1, 2, 2), -200.0, requires_grad=True)
    value = Dice(num_classes=1, smooth=0.0)(leaf, torch.zeros(1, 2, 2, dtype=torch.long))
    value.backward()
    assert value.item() == 0
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()
