from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from segtrain.errors import ConfigError
from segtrain.losses import CrossEntropy, Focal

WEIGHTS = [0.5, 2.0, 1.0, 4.0, 0.25]


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 7, 6, dtype=torch.float64) * 3
    target = torch.randint(0, 5, (2, 7, 6))
    target[1, 2:4] = 255
    return logits, target


def test_by_hand() -> None:
    logits = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0], [9.0, -9.0]]).T.reshape(1, 2, 1, 3)
    target = torch.tensor([[[0, 1, 255]]])
    expected = (math.log(4 / 3) + math.log(2)) / 2
    assert CrossEntropy(num_classes=2)(logits, target).item() == pytest.approx(expected)
    # p = 3/4 and 1/2; (1 - p)^2 = 1/16 and 1/4
    expected = (math.log(4 / 3) / 16 + math.log(2) / 4) / 2
    assert Focal(num_classes=2)(logits, target).item() == pytest.approx(expected)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_agrees_with_torch(
    batch: tuple[Tensor, Tensor], weights: list[float] | None, smoothing: float
) -> None:
    logits, target = batch
    loss = CrossEntropy(num_classes=5, class_weights=weights, label_smoothing=smoothing)
    one, two = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    value = loss(one, target)
    expected = F.cross_entropy(
        two,
        target,
        None if weights is None else torch.tensor(weights, dtype=torch.float64),
        ignore_index=255,
        label_smoothing=smoothing,
    )
    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    torch.testing.assert_close(one.grad, two.grad)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_mean_is_a_loop_over_pixels(
    batch: tuple[Tensor, Tensor], weights: list[float] | None
) -> None:
    logits, target = (part.numpy() for part in batch)
    total, weight = 0.0, 0.0
    for n, y, x in np.ndindex(target.shape):
        if target[n, y, x] != 255:
            z, c = logits[n, :, y, x], target[n, y, x]
            w = 1.0 if weights is None else weights[c]
            total += w * (np.log(np.exp(z - z.max()).sum()) - z[c] + z.max())
            weight += w
    value = CrossEntropy(num_classes=5, class_weights=weights)(*batch)
    assert value.item() == pytest.approx(total / weight, rel=1e-12)


def test_gradient_is_softmax_minus_one_hot(batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch
    leaf = logits.clone().requires_grad_()
    CrossEntropy(num_classes=5)(leaf, target).backward()
    valid = target != 255
    one_hot = F.one_hot(torch.where(valid, target, 0), 5).movedim(-1, 1)
    expected = (logits.softmax(1) - one_hot) * valid[:, None] / valid.sum()
    torch.testing.assert_close(leaf.grad, expected)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_focal_without_focus_is_cross_entropy(
    batch: tuple[Tensor, Tensor], weights: list[float] | None
) -> None:
    one, two = (batch[0].clone().requires_grad_() for _ in range(2))
    focal = Focal(num_classes=5, gamma=0.0, class_weights=weights)(one, batch[1])
    plain = CrossEntropy(num_classes=5, class_weights=weights)(two, batch[1])
    torch.testing.assert_close(focal, plain)
    focal.backward()
    plain.backward()
    torch.testing.assert_close(one.grad, two.grad)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_focal_is_the_formula(batch: tuple[Tensor, Tensor], gamma: float) -> None:
    logits, target = batch
    valid = target != 255
    p = logits.softmax(1).gather(1, torch.where(valid, target, 0)[:, None])[:, 0][valid]
    expected = (-((1 - p) ** gamma) * p.log()).mean()
    torch.testing.assert_close(Focal(num_classes=5, gamma=gamma)(logits, target), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_gradient_is_finite_where_nothing_is_missed(gamma: float) -> None:
    leaf = torch.tensor([200.0, 0.0]).reshape(1, 2, 1, 1).requires_grad_()
    Focal(num_classes=2, gamma=gamma)(leaf, torch.zeros(1, 1, 1, dtype=torch.long)).backward()
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_wrong_label_smoothing(smoothing: float) -> None:
    with pytest.raises(ConfigError, match="label_smoothing must be at least 0 and below 1"):
        CrossEntropy(num_classes=2, label_smoothing=smoothing)


def test_wrong_gamma() -> None:
    with pytest.raises(ConfigError, match="gamma must not be negative, got -1"):
        Focal(num_classes=2, gamma=-1.0)


@pytest.mark.parametrize("loss", [CrossEntropy, Focal])
def test_one_channel_has_no_softmax(loss: type[CrossEntropy] | type[Focal]) -> None:
    with pytest.raises(ConfigError, match=r"num_classes is 1.*use bce"):
        loss(num_classes=1)
