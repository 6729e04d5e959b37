from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import segtrain
from segtrain.errors import ConfigError
from segtrain.losses import SmoothL1

WEIGHTS = [0.5, 2.0, 1.0, 4.0]
BETAS = [0.0, 0.1, 1.0, 3.0]


def random(*size: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*size, dtype=torch.float64, generator=generator) * scale


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(0, 4, (2, 5, 6), generator=torch.Generator().manual_seed(2))


def test_a_regression_by_hand() -> None:
    outputs = torch.tensor([0.5, -3.0, 1.0]).reshape(1, 3, 1, 1)
    target = torch.tensor([0.0, 1.0, 1.0]).reshape(1, 3, 1, 1)
    # d = 1/2, -4, 0
    value = SmoothL1(num_classes=3)(outputs, target).item()
    assert value == pytest.approx((1 / 8 + 3.5 + 0) / 3)
    value = SmoothL1(num_classes=3, beta=0.25)(outputs, target).item()
    assert value == pytest.approx((3 / 8 + 31 / 8 + 0) / 3)
    value = SmoothL1(num_classes=3, beta=0.0)(outputs, target).item()
    assert value == pytest.approx((1 / 2 + 4 + 0) / 3)


def test_class_ids_by_hand() -> None:
    logits = torch.tensor([math.log(3.0), 0.0]).reshape(1, 2, 1, 1).expand(1, 2, 1, 3)
    target = torch.tensor([[[0, 1, 255]]])
    # p = (3/4, 1/4): d = (-1/4, 1/4) and (3/4, -3/4)
    expected = (1 / 32 + 9 / 32) / 2
    assert SmoothL1(num_classes=2)(logits, target).item() == pytest.approx(expected)
    # beta = 1/2: 1/16 / (2 / 2) and 3/4 - 1/4
    expected = (1 / 16 + 1 / 2) / 2
    assert SmoothL1(num_classes=2, beta=0.5)(logits, target).item() == pytest.approx(expected)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("channels", [1, 4])
def test_a_regression_agrees_with_torch(beta: float, channels: int) -> None:
    outputs, target = random(2, channels, 5, 6), random(2, channels, 5, 6, seed=1)
    one, two = outputs.clone().requires_grad_(), outputs.clone().requires_grad_()
    value = SmoothL1(num_classes=channels, beta=beta)(one, target)
    expected = F.smooth_l1_loss(two, target, beta=beta)
    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    torch.testing.assert_close(one.grad, two.grad)


@pytest.mark.parametrize("beta", BETAS)
def test_class_ids_agree_with_torch(beta: float, ids: Tensor) -> None:
    one, two = (random(2, 4, 5, 6).requires_grad_() for _ in range(2))
    value = SmoothL1(num_classes=4, beta=beta)(one, ids)
    one_hot = F.one_hot(ids, 4).movedim(-1, 1).double()
    expected = F.smooth_l1_loss(two.softmax(1), one_hot, beta=beta)
    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    torch.testing.assert_close(one.grad, two.grad)


def test_one_channel_tells_two_classes_apart(ids: Tensor) -> None:
    logits, target = random(2, 1, 5, 6), ids % 2
    expected = F.smooth_l1_loss(logits[:, 0].sigmoid(), target.double(), beta=0.3)
    torch.testing.assert_close(SmoothL1(num_classes=1, beta=0.3)(logits, target), expected)


def test_ignored_pixels_of_a_regression() -> None:
    outputs, target = random(2, 3, 5, 6).requires_grad_(), random(2, 3, 5, 6, seed=1)
    target[:, 0, :, 2] = 255.0  # an ordinary number
    target[0, 1, :2] = torch.nan  # in one channel
    loss = SmoothL1(num_classes=3)
    kept = [F.smooth_l1_loss(outputs[0, :, 2:], target[0, :, 2:], reduction="sum")]
    kept.append(F.smooth_l1_loss(outputs[1], target[1], reduction="sum"))
    value = loss(outputs, target)
    torch.testing.assert_close(value, (kept[0] + kept[1]) / (3 * (18 + 30)))
    (gradient,) = torch.autograd.grad(value, outputs)
    assert gradient[0, :, :2].eq(0).all()
    assert torch.isfinite(gradient).all()
    value = loss(outputs, torch.full_like(target, torch.nan))
    (gradient,) = torch.autograd.grad(value, outputs)
    assert value.item() == 0
    assert gradient.eq(0).all()


def test_class_weights_weigh_the_channels_of_a_regression() -> None:
    outputs, target = random(2, 4, 5, 6), random(2, 4, 5, 6, seed=1)
    loss = SmoothL1(num_classes=4, class_weights=WEIGHTS)
    per_channel = F.smooth_l1_loss(outputs, target, reduction="none").mean((0, 2, 3))
    expected = (per_channel * torch.tensor(WEIGHTS)).sum() / sum(WEIGHTS)
    torch.testing.assert_close(loss(outputs, target), expected)
    torch.testing.assert_close(loss.share(target), torch.tensor([60.0]))
    # without effect on one channel
    one, plain = SmoothL1(num_classes=1, class_weights=[1.0, 9.0]), SmoothL1(num_classes=1)
    torch.testing.assert_close(
        one(outputs[:, :1], target[:, :1]), plain(outputs[:, :1], target[:, :1])
    )


def test_class_weights_weigh_pixels_of_class_ids(ids: Tensor) -> None:
    logits, weights = random(2, 4, 5, 6), torch.tensor(WEIGHTS)[ids]
    values = SmoothL1(num_classes=4).pixel_loss(logits, ids)
    expected = (values * weights).sum() / weights.sum()
    torch.testing.assert_close(
        SmoothL1(num_classes=4, class_weights=WEIGHTS)(logits, ids), expected
    )


def test_hardness_of_a_regression_by_hand() -> None:
    outputs = torch.tensor([[3.0, 0.0], [0.0, 0.0]]).reshape(1, 2, 1, 2)
    target = torch.zeros(1, 2, 1, 2)
    # d = (3, 0) and (0, 0) with beta = 4: 3/5 of one channel
    probability = SmoothL1(num_classes=2, beta=4.0).target_probability(outputs, target)
    torch.testing.assert_close(probability, torch.tensor([[[0.7, 1.0]]]))
    # without beta there is an error or none
    probability = SmoothL1(num_classes=2, beta=0.0).target_probability(outputs, target)
    torch.testing.assert_close(probability, torch.tensor([[[0.5, 1.0]]]))


def test_hardness_of_class_ids_is_the_probability(ids: Tensor) -> None:
    logits = random(2, 4, 5, 6)
    probability = SmoothL1(num_classes=4).target_probability(logits, ids)
    torch.testing.assert_close(probability, logits.softmax(1).gather(1, ids[:, None])[:, 0])


def test_mining_keeps_the_large_errors() -> None:
    outputs = torch.tensor([0.1, 2.0, 5.0]).reshape(1, 1, 1, 3)
    loss = SmoothL1(num_classes=1, mining={"name": "ohem", "threshold": 0.5, "min_kept": 1})
    # 1 - d / sqrt(d^2 + 1) is 0.90, 0.11, 0.02
    value = loss(outputs, torch.zeros(1, 1, 1, 3)).item()
    assert value == pytest.approx((1.5 + 4.5) / 2)


def test_the_target_gets_no_gradient() -> None:
    outputs, target = (random(1, 2, 3, 3, seed=seed).requires_grad_() for seed in range(2))
    value = SmoothL1(num_classes=2)(outputs, target)
    (gradient,) = torch.autograd.grad(value, target, allow_unused=True)
    assert gradient is None or gradient.eq(0).all()


@pytest.mark.parametrize("beta", BETAS)
def test_huge_outputs_are_finite(beta: float, ids: Tensor) -> None:
    leaf = (1e4 * random(2, 4, 5, 6).sign().float()).requires_grad_()
    for target in (ids, random(2, 4, 5, 6, seed=1), leaf.detach().double()):
        value = SmoothL1(num_classes=4, beta=beta)(leaf, target)
        (gradient,) = torch.autograd.grad(value, leaf)
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(
    "params", [{}, {"beta": 0.2, "mining": {"name": "ohem", "threshold": 0.4, "min_kept": 5}}]
)
@pytest.mark.parametrize("weighted", [False, True])
def test_strips_change_nothing(
    channels: int, dense: bool, params: dict[str, Any], weighted: bool
) -> None:
    small, target = random(2, channels, 4, 3), random(2, channels, 11, 7, seed=1)
    if not dense:
        target = target.argmax(1) if channels > 1 else (target[:, 0] > 0).long()
    target[0, ..., :2, :] = torch.nan if dense else 255
    weights = WEIGHTS[: max(channels, 2)] if weighted else None
    spec = {"name": "smooth_l1", "class_weights": weights, **params}
    results = []
    for rows in (None, 3):
        criterion = segtrain.build_criterion(spec, num_classes=channels, strip_rows=rows)
        leaf = small.clone().requires_grad_()
        total = criterion(leaf, target).total
        total.backward()
        results.append((total.detach(), leaf.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("beta", [-1.0, math.inf])
def test_wrong_beta(beta: float) -> None:
    with pytest.raises(ConfigError, match=f"beta must be finite and not negative, got {beta}"):
        SmoothL1(num_classes=2, beta=beta)
