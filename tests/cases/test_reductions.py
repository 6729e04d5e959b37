"""The mean, the sum and the map itself; label smoothing; and the numbers of the theory's notes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import segtrain
from segtrain.errors import ConfigError
from segtrain.losses import LOSSES, MININGS, PixelLoss, RegionLoss

C = 3
SHAPE = (2, 9, 7)


def names(family: type) -> list[str]:
    found = []
    for name in LOSSES.names():
        if name in ("sum", "uncertainty"):
            continue
        if isinstance(segtrain.build_loss(name, num_classes=C), family):
            found.append(name)
    return found


def data(name: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(SHAPE[0], C, *SHAPE[1:], generator=generator)
    if segtrain.build_loss(name, num_classes=C).dense == "regression":
        target = torch.randn(SHAPE[0], C, *SHAPE[1:], generator=generator)
        target[:, :, :2] = math.nan
        return logits, target
    target = torch.randint(C, SHAPE, generator=generator)
    target[:, :2] = 255
    return logits, target


def losses(name: str, logits: Tensor, target: Tensor, **more: Any) -> dict[str, Tensor]:
    return {
        reduction: segtrain.build_loss(name, num_classes=C, reduction=reduction, **more)(
            logits, target
        )
        for reduction in ("mean", "sum", "none")
    }


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5]])
@pytest.mark.parametrize("name", names(PixelLoss))
def test_the_map_of_a_pixel_loss(name: str, weights: list[float] | None) -> None:
    logits, target = data(name)
    more = {} if weights is None or target.dim() == 4 else {"class_weights": weights}
    found = losses(name, logits, target, **more)
    assert found["none"].shape == SHAPE
    assert (found["none"][:, :2] == 0).all()
    torch.testing.assert_close(found["sum"], found["none"].sum())
    ids = target if target.dim() == 3 else torch.where(target.isnan().any(1), 255, 0)
    table = torch.tensor(weights or [1.0] * C) if more else torch.ones(C)
    total = torch.where(ids == 255, 0, table[ids.clamp(max=C - 1)]).sum()
    torch.testing.assert_close(found["mean"], found["sum"] / total)


def test_the_map_of_cross_entropy_is_that_of_torch() -> None:
    logits, target = data("cross_entropy")
    weights = [1.0, 2.0, 0.5]
    found = losses("cross_entropy", logits, target, class_weights=weights)
    for reduction, value in found.items():
        expected = F.cross_entropy(
            logits, target, torch.tensor(weights), ignore_index=255, reduction=reduction
        )
        torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("mining", [name for name in MININGS.names() if name != "none"])
def test_pixels_that_mining_drops_are_0(mining: str) -> None:
    logits, target = data("cross_entropy")
    settings: dict[str, dict[str, Any]] = {
        "ohem": {"min_kept": 10, "threshold": 0.2},
        "top_k": {"ratio": 0.25},
        "hard_negative": {"ratio": 0.2},
    }
    more = settings.get(mining, {})
    spec = {"name": mining, **more}
    found = losses("cross_entropy", logits, target, mining=spec)
    plain = segtrain.build_loss("cross_entropy", num_classes=C, reduction="none")(logits, target)
    kept = found["none"] != 0
    torch.testing.assert_close(found["sum"], found["none"].sum())
    torch.testing.assert_close(found["mean"], found["sum"] / kept.sum())
    if mining == "ghm":
        assert not torch.allclose(found["none"], plain)
        return
    assert kept.sum() < (target != 255).sum()
    torch.testing.assert_close(found["none"], torch.where(kept, plain, 0))
    assert plain[kept].min() >= plain[~kept & (target != 255)].max() or mining == "hard_negative"


def test_the_map_has_a_gradient() -> None:
    logits, target = data("focal")
    logits.requires_grad_()
    loss = segtrain.build_loss("focal", num_classes=C, reduction="none", mining="top_k")
    loss(logits, target).sum().backward()
    assert logits.grad is not None
    assert logits.grad[:, :, :2].abs().sum() == 0
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("name", names(RegionLoss))
def test_a_region_loss_by_class_and_image(name: str, *, per_image: bool) -> None:
    logits, target = data(name)
    target[1][target[1] == 2] = 0  # image 1 has no class 2
    found = losses(name, logits, target, per_image=per_image)
    torch.testing.assert_close(found["sum"], found["none"].sum())
    if name == "generalized_dice":
        assert found["none"].shape == ((2,) if per_image else ())
        return
    assert found["none"].shape == ((2, C) if per_image else (C,))
    if per_image:
        assert found["none"][1, 2] == 0
        means = [found["none"][0].mean(), found["none"][1, :2].mean()]
        torch.testing.assert_close(found["mean"], torch.stack(means).mean())
        alone = losses(name, logits[:1], target[:1])["none"]
        torch.testing.assert_close(found["none"][0], alone)
    else:
        torch.testing.assert_close(found["mean"], found["none"].mean())


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_training_takes_the_mean_alone(reduction: str) -> None:
    loss = segtrain.build_loss("dice", num_classes=C, reduction=reduction)
    with pytest.raises(ConfigError, match=f"loss 'dice' has reduction='{reduction}'"):
        segtrain.Criterion(loss)
    with pytest.raises(ConfigError, match="training takes mean alone"):
        segtrain.build_loss(
            "sum", num_classes=C, terms={"dice": {"reduction": reduction}, "cross_entropy": {}}
        )
    with pytest.raises(ConfigError, match="reduction"):
        segtrain.build_loss("dice", num_classes=C, reduction="average")


# ------------------------------------------------- label smoothing


@pytest.mark.parametrize("name", names(PixelLoss))
def test_label_smoothing_of_every_pixel_loss(name: str) -> None:
    logits, target = data(name)
    share = 0.2
    smoothed = segtrain.build_loss(name, num_classes=C, label_smoothing=share, reduction="none")
    plain = segtrain.build_loss(name, num_classes=C, reduction="none")
    if target.dim() == 4:
        torch.testing.assert_close(smoothed(logits, target), plain(logits, target))
        return
    valid = target != 255
    if plain.dense == "probability":
        one_hot = F.one_hot(torch.where(valid, target, 0), C).movedim(-1, 1).float()
        soft = (1 - share) * one_hot + share / C
        soft = torch.where(valid[:, None], soft, math.nan)
        expected = plain(logits, soft)
    else:
        each = [plain(logits, torch.where(valid, index, 255)) for index in range(C)]
        if name == "label_relaxation":
            each = [-logits.log_softmax(1)[:, index] * valid for index in range(C)]
        if name == "distance_weighted_cross_entropy":  # the distances are those of the target
            factor = plain(logits, target) / F.cross_entropy(
                logits, target, ignore_index=255, reduction="none"
            ).clamp(min=1e-30)
            each = [-factor * logits.log_softmax(1)[:, index] * valid for index in range(C)]
        expected = (1 - share) * plain(logits, target) + share * torch.stack(each).mean(0)
    torch.testing.assert_close(smoothed(logits, target), expected, rtol=1e-4, atol=1e-5)


def test_label_smoothing_in_strips() -> None:
    logits, target = torch.randn(2, C, 8, 8), torch.randint(C, (2, 32, 32))
    loss = segtrain.build_loss("focal", num_classes=C, label_smoothing=0.1)
    values = [segtrain.Criterion(loss, strip_rows=rows)(logits, target).total for rows in (None, 4)]
    torch.testing.assert_close(*values)


# ------------------------------------------------- the numbers of the notes


def nll(rows: list[list[float]], ids: list[int], reduction: str = "mean") -> float:
    """The negative log-likelihood of numbers that are taken as log-probabilities."""
    # Softmax adds the same number to all channels, so it is subtracted again.
    logits = torch.tensor(rows, dtype=torch.float32).reshape(len(rows), -1, 1, 1)
    target = torch.tensor(ids).reshape(-1, 1, 1)
    loss = segtrain.build_loss("cross_entropy", num_classes=logits.shape[1], reduction="none")
    values = loss(logits, target)[:, 0, 0] - logits.logsumexp(1)[:, 0, 0]
    return float(values.mean() if reduction == "mean" else values.sum())


def test_nll_of_the_notes() -> None:
    assert nll([[2, 3, 1]], [1]) == pytest.approx(-3)
    assert nll([[2, 3, 1], [3, 7, 9]], [1, 2]) == pytest.approx(-6)
    assert nll([[2, 3, 1], [3, 7, 9]], [1, 2], "sum") == pytest.approx(-12)


def test_the_map_of_two_classes_of_the_notes() -> None:
    zero = [[0.0857, 0.6313, 0.1061], [0.7650, 0.8302, 0.0626], [0.6615, 0.0109, 0.3815]]
    one = [[0.2607, 0.1581, 0.1963], [0.0504, 0.4804, 0.1693], [0.2520, 0.1406, 0.4154]]
    ids = [[1, 1, 0], [0, 1, 1], [0, 0, 0]]
    loss = segtrain.build_loss("cross_entropy", num_classes=2, reduction="none")
    found = loss(torch.tensor([[zero, one]]), torch.tensor([ids]))[0]
    for row in range(3):
        for column in range(3):
            pair = (zero[row][column], one[row][column])
            own = pair[ids[row][column]]
            expected = math.log(math.exp(pair[0]) + math.exp(pair[1])) - own
            assert float(found[row, column]) == pytest.approx(expected, abs=1e-6)
    mean = segtrain.build_loss("cross_entropy", num_classes=2)
    assert float(mean(torch.tensor([[zero, one]]), torch.tensor([ids]))) == pytest.approx(
        float(found.mean())
    )


def test_cross_entropy_and_divergences_of_the_small_distributions() -> None:
    """A sample of three classes: the truth (0, 0, 1) and a prediction (0.1, 0.2, 0.7)."""
    prediction = torch.tensor([0.1, 0.2, 0.7])
    logits = prediction.log().reshape(1, 3, 1, 1)
    third = torch.tensor([[[2]]])
    assert float(segtrain.build_loss("cross_entropy", num_classes=3)(logits, third)) == (
        pytest.approx(-math.log(0.7), abs=1e-6)
    )
    soft = torch.tensor([0.2, 0.3, 0.5]).reshape(1, 3, 1, 1)
    p, q = [0.2, 0.3, 0.5], [0.1, 0.2, 0.7]
    entropy = -sum(a * math.log(a) for a in p)
    cross = -sum(a * math.log(b) for a, b in zip(p, q, strict=True))
    kl = segtrain.build_loss("kl_divergence", num_classes=3)(logits, soft)
    assert float(kl) == pytest.approx(cross - entropy, abs=1e-6)
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    expected = sum(
        (a * math.log(a / m) + b * math.log(b / m)) / 2
        for a, b, m in zip(p, q, middle, strict=True)
    )
    js = segtrain.build_loss("js_divergence", num_classes=3)(logits, soft)
    assert float(js) == pytest.approx(expected, abs=1e-6)
    assert kl != segtrain.build_loss("kl_divergence", num_classes=3)(
        soft.log(), prediction.reshape(1, 3, 1, 1)
    )
