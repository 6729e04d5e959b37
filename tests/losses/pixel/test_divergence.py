from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import segtrain
from segtrain.errors import ConfigError
from segtrain.losses import CrossEntropy, JSDivergence, KLDivergence

Divergence = type[KLDivergence] | type[JSDivergence]
BOTH: list[Divergence] = [KLDivergence, JSDivergence]
WEIGHTS = [0.5, 2.0, 1.0, 4.0]


def random(*size: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*size, dtype=torch.float64, generator=generator) * scale


@pytest.fixture
def logits() -> Tensor:
    return random(2, 4, 5, 6, seed=0)


@pytest.fixture
def teacher() -> Tensor:
    return random(2, 4, 5, 6, seed=1)


@pytest.fixture
def ids() -> Tensor:
    target = torch.randint(0, 4, (2, 5, 6), generator=torch.Generator().manual_seed(2))
    target[0, :2] = 255
    return target


def test_by_hand() -> None:
    logits = torch.zeros(1, 2, 1, 1)
    target = torch.tensor([0.75, 0.25]).reshape(1, 2, 1, 1)
    kl = 3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(1 / 2)
    assert KLDivergence(num_classes=2)(logits, target).item() == pytest.approx(kl)
    # m = (5/8, 3/8); q is 6/5 and 2/3 of it, p is 4/5 and 4/3
    to_q = 3 / 4 * math.log(6 / 5) + 1 / 4 * math.log(2 / 3)
    to_p = 1 / 2 * math.log(4 / 5) + 1 / 2 * math.log(4 / 3)
    value = JSDivergence(num_classes=2)(logits, target).item()
    assert value == pytest.approx((to_q + to_p) / 2, abs=1e-7)


def test_class_ids_by_hand() -> None:
    logits = torch.tensor([math.log(3.0), 0.0]).reshape(1, 2, 1, 1).expand(1, 2, 1, 3)
    target = torch.tensor([[[0, 1, 255]]])
    # p = 3/4 and 1/4 of the target's class
    kl = (math.log(4 / 3) + math.log(4)) / 2
    assert KLDivergence(num_classes=2)(logits, target).item() == pytest.approx(kl)
    # m = (7/8, 1/8) and (3/8, 5/8) with the target's class first and last
    first = (math.log(8 / 7) + 3 / 4 * math.log(6 / 7) + 1 / 4 * math.log(2)) / 2
    second = (math.log(8 / 5) + 3 / 4 * math.log(2) + 1 / 4 * math.log(2 / 5)) / 2
    value = JSDivergence(num_classes=2)(logits, target).item()
    assert value == pytest.approx((first + second) / 2)


def test_class_ids_are_cross_entropy(logits: Tensor, ids: Tensor) -> None:
    one, two = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    value, expected = KLDivergence(num_classes=4)(one, ids), CrossEntropy(num_classes=4)(two, ids)
    assert torch.equal(value, expected)
    value.backward()
    expected.backward()
    torch.testing.assert_close(one.grad, two.grad)


@pytest.mark.parametrize("loss", BOTH)
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_a_one_hot_target_is_its_ids(
    loss: Divergence, temperature: float, logits: Tensor, ids: Tensor
) -> None:
    dense = F.one_hot(torch.where(ids == 255, 0, ids), 4).movedim(-1, 1)
    dense = torch.where((ids == 255)[:, None], 255, dense)
    module = loss(num_classes=4, temperature=temperature, class_weights=WEIGHTS)
    one, two = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    value, expected = module(one, dense), module(two, ids)
    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    torch.testing.assert_close(one.grad, two.grad)


@pytest.mark.parametrize("loss", BOTH)
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_target_logits_are_softened_probabilities(
    loss: Divergence, weights: list[float] | None, logits: Tensor, teacher: Tensor
) -> None:
    common: dict[str, Any] = {"num_classes": 4, "temperature": 3.0, "class_weights": weights}
    value = loss(target_logits=True, **common)(logits, teacher)
    torch.testing.assert_close(value, loss(**common)(logits, (teacher / 3).softmax(1)))


def test_temperature_by_its_definition(logits: Tensor, teacher: Tensor) -> None:
    loss = KLDivergence(num_classes=4, target_logits=True, temperature=3.0)
    plain = KLDivergence(num_classes=4, target_logits=True)
    torch.testing.assert_close(loss(logits, teacher), 9 * plain(logits / 3, teacher / 3))


def test_high_temperature_matches_centred_logits(logits: Tensor, teacher: Tensor) -> None:
    # Hinton et al.: towards infinity, half the mean square of the centred logits' difference
    loss = KLDivergence(num_classes=4, target_logits=True, temperature=1e4)
    difference = (logits - logits.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    expected = difference.square().mean(1).mean() / 2
    torch.testing.assert_close(loss(logits, teacher), expected, rtol=1e-3, atol=0)
    # and the Jensen-Shannon divergence a quarter of that
    loss_js = JSDivergence(num_classes=4, target_logits=True, temperature=1e4)
    torch.testing.assert_close(loss_js(logits, teacher), expected / 4, rtol=1e-3, atol=0)


@pytest.mark.parametrize("size", [1e-3, 1e-6, 1e-9, 1e-20])
def test_small_divergences_of_class_ids_are_precise(size: float) -> None:
    # 1 - p = size in float32: (ln 2) size / 2 in the first order
    log_probability = torch.tensor(math.log1p(-size))
    loss = JSDivergence(num_classes=2)
    value = loss.loss_of(log_probability, torch.zeros((), dtype=torch.long)).item()
    assert value == pytest.approx(math.log(2) / 2 * size, rel=2e-3)


@pytest.mark.parametrize("loss", BOTH)
@pytest.mark.parametrize("kind", ["ids", "probabilities", "sure probabilities", "logits"])
def test_huge_logits_are_finite(loss: Divergence, kind: str) -> None:
    leaf = (1e4 * random(2, 4, 5, 6).sign().float()).requires_grad_()
    other = 1e4 * random(2, 4, 5, 6, seed=1).sign().float()
    sure = F.one_hot(other.argmax(1), 4).movedim(-1, 1)
    targets = {
        "ids": other.argmax(1),
        "probabilities": random(2, 4, 5, 6, seed=1).softmax(1),
        "sure probabilities": sure,
        "logits": other,
    }
    value = loss(num_classes=4, target_logits=kind == "logits")(leaf, targets[kind])
    value.backward()
    assert leaf.grad is not None
    assert torch.isfinite(value)
    assert torch.isfinite(leaf.grad).all()


@pytest.mark.parametrize("loss", BOTH)
def test_gradcheck_with_class_ids_and_a_dense_target(loss: Divergence, logits: Tensor) -> None:
    target = torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)
    target = target.T.reshape(1, 4, 1, 2)
    leaf = logits[:1, :, :1, :2].clone().requires_grad_()
    module = loss(num_classes=4, temperature=2.0)
    assert torch.autograd.gradcheck(lambda z: module(z, target), leaf)


@pytest.mark.parametrize("loss", BOTH)
def test_ignored_pixels_of_target_logits(loss: Divergence, logits: Tensor, teacher: Tensor) -> None:
    module = loss(num_classes=4, target_logits=True, class_weights=WEIGHTS)
    teacher[:, 0, 1] = 255.0  # a logit like any other
    teacher[:, 2, :, :2] = torch.nan
    leaf = logits.clone().requires_grad_()
    value = module(leaf, teacher)
    torch.testing.assert_close(value, module(logits[..., 2:], teacher[..., 2:]))
    value.backward()
    assert leaf.grad is not None
    assert leaf.grad[..., :2].eq(0).all()
    assert torch.isfinite(leaf.grad).all()


@pytest.mark.parametrize("loss", BOTH)
def test_the_target_gets_no_gradient(loss: Divergence, logits: Tensor, teacher: Tensor) -> None:
    leaf, other = logits.clone().requires_grad_(), teacher.clone().requires_grad_()
    module = loss(num_classes=4, target_logits=True, class_weights=WEIGHTS)
    (gradient,) = torch.autograd.grad(module(leaf, other), other, allow_unused=True)
    assert gradient is None or gradient.eq(0).all()


@pytest.mark.parametrize("loss", BOTH)
def test_hardness_is_the_expected_probability(loss: Divergence, teacher: Tensor) -> None:
    logits = torch.zeros(2, 4, 5, 6, dtype=torch.float64)
    module = loss(num_classes=4, target_logits=True, temperature=5.0)
    probability = module.target_probability(logits, teacher)
    torch.testing.assert_close(probability, torch.full_like(probability, 0.25))
    module = loss(
        num_classes=4, target_logits=True, mining={"name": "ohem", "threshold": 0.5, "min_kept": 1}
    )
    assert torch.isfinite(module(logits, teacher))


def test_what_a_dense_target_means() -> None:
    assert KLDivergence(num_classes=2).dense == "probability"
    assert KLDivergence(num_classes=2, target_logits=True).dense == "regression"
    with pytest.raises(ValueError, match=r"a dense target holds -3.0; allowed are 0 to 1"):
        KLDivergence(num_classes=2)(torch.zeros(1, 2, 1, 1), torch.full((1, 2, 1, 1), -3.0))


@pytest.mark.parametrize("name", ["kl_divergence", "js_divergence"])
@pytest.mark.parametrize("kind", ["ids", "probabilities", "logits"])
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temperature": 2.0},
        {"class_weights": WEIGHTS, "mining": {"name": "ohem", "threshold": 0.4, "min_kept": 5}},
    ],
)
def test_strips_change_nothing(name: str, kind: str, params: dict[str, Any]) -> None:
    small, target = random(2, 4, 4, 3), random(2, 4, 11, 7, seed=1)
    if kind == "ids":
        target = target.argmax(1)
    elif kind == "probabilities":
        target = target.softmax(1)
    target[0, ..., :2, :] = torch.nan if kind == "logits" else 255
    spec = {"name": name, "target_logits": kind == "logits", **params}
    results = []
    for rows in (None, 3):
        leaf = small.clone().requires_grad_()
        total = segtrain.build_criterion(spec, num_classes=4, strip_rows=rows)(leaf, target).total
        total.backward()
        results.append((total.detach(), leaf.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("loss", BOTH)
@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf])
def test_wrong_temperature(loss: Divergence, temperature: float) -> None:
    with pytest.raises(ConfigError, match=f"temperature must be .*above 0, got {temperature}"):
        loss(num_classes=2, temperature=temperature)


@pytest.mark.parametrize("loss", BOTH)
def test_one_channel_has_no_softmax(loss: Divergence) -> None:
    with pytest.raises(ConfigError, match=r"num_classes is 1.*use bce"):
        loss(num_classes=1)
