from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

import segtrain
from segtrain.errors import ConfigError
from segtrain.losses import CrossEntropy, Focal, GeneralizedCrossEntropy, PixelLoss, Poly1

WEIGHTS = [0.5, 2.0, 1.0, 4.0, 0.25]
FAMILY: list[type[PixelLoss]] = [CrossEntropy, Focal, Poly1, GeneralizedCrossEntropy]


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 7, 6, dtype=torch.float64) * 3
    target = torch.randint(0, 5, (2, 7, 6))
    target[1, 2:4] = 255
    return logits, target


@pytest.fixture
def soft(batch: tuple[Tensor, Tensor]) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch[0].shape, dtype=torch.float64, generator=generator).softmax(1)


def one_hot(target: Tensor) -> Tensor:
    return F.one_hot(target, 5).movedim(-1, 1).double()


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


def test_focal_alpha_by_hand() -> None:
    logits = torch.zeros(1, 2, 1, 2)
    target = torch.tensor([[[0, 1]]])
    # both pixels ln 2 / 4, then 0.75 and 0.25 of it over two pixels: the mean does not divide by
    # alpha
    loss = Focal(num_classes=2, alpha=[0.75, 0.25])
    assert loss(logits, target).item() == pytest.approx(math.log(2) / 8)
    loss = Focal(num_classes=2, class_weights=[0.75, 0.25])
    assert loss(logits, target).item() == pytest.approx(math.log(2) / 4)
    assert Focal(num_classes=2, alpha=0.25)(logits, target).item() == pytest.approx(
        math.log(2) / 16
    )


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_two_channels_are_the_binary_focal_loss(gamma: float) -> None:
    torch.manual_seed(0)
    z, target = torch.randn(2, 5, 6, dtype=torch.float64) * 3, torch.randint(0, 2, (2, 5, 6))
    expected = sigmoid_focal_loss(z, target.double(), alpha=0.25, gamma=gamma, reduction="mean")
    loss = Focal(num_classes=2, gamma=gamma, alpha=[0.75, 0.25])
    logits = torch.stack([torch.zeros_like(z), z], dim=1)  # softmax of (0, z) is sigmoid of z
    torch.testing.assert_close(loss(logits, target), expected)


def test_poly1_by_hand() -> None:
    logits = torch.tensor([math.log(3.0), 0.0]).reshape(1, 2, 1, 1)
    target = torch.zeros(1, 1, 1, dtype=torch.long)
    # p = 3/4: ln 4/3 + 2 / 4
    value = Poly1(num_classes=2, epsilon=2.0)(logits, target).item()
    assert value == pytest.approx(math.log(4 / 3) + 0.5)


def test_poly1_without_its_leading_term(batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch[0] / 10, batch[1]  # no p near 0, so that the series ends
    valid = target != 255
    p = logits.softmax(1).gather(1, torch.where(valid, target, 0)[:, None])[:, 0][valid]
    expected = sum((1 - p) ** j / j for j in range(2, 400))
    value = Poly1(num_classes=5, epsilon=-1.0)(logits, target)
    torch.testing.assert_close(value, torch.as_tensor(expected).mean())


def test_generalized_cross_entropy_by_hand() -> None:
    logits = torch.tensor([math.log(3.0), 0.0]).reshape(1, 2, 1, 1).expand(1, 2, 1, 2)
    target = torch.tensor([[[0, 1]]])
    # p = 3/4 and 1/4; (1 - p^(1/2)) / (1/2)
    expected = (2 * (1 - math.sqrt(3 / 4)) + 2 * (1 - 1 / 2)) / 2
    value = GeneralizedCrossEntropy(num_classes=2, q=0.5)(logits, target).item()
    assert value == pytest.approx(expected)
    # 1 - p for q = 1, half the absolute error between (p, 1 - p) and the one-hot target
    value = GeneralizedCrossEntropy(num_classes=2, q=1.0)(logits, target).item()
    assert value == pytest.approx((1 / 4 + 3 / 4) / 2)


def test_generalized_cross_entropy_weighs_the_gradient_of_cross_entropy() -> None:
    torch.manual_seed(0)
    one, two = (torch.zeros(1, 5, 1, 1, dtype=torch.float64).requires_grad_() for _ in range(2))
    target = torch.full((1, 1, 1), 2)
    GeneralizedCrossEntropy(num_classes=5, q=0.7)(one, target).backward()
    CrossEntropy(num_classes=5)(two, target).backward()
    assert two.grad is not None
    torch.testing.assert_close(one.grad, two.grad * 0.2**0.7)  # p = 1/5


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_soft_targets_agree_with_torch_up_to_the_denominator(
    batch: tuple[Tensor, Tensor], soft: Tensor, weights: list[float] | None, smoothing: float
) -> None:
    loss = CrossEntropy(num_classes=5, class_weights=weights, label_smoothing=smoothing)
    one, two = (batch[0].clone().requires_grad_() for _ in range(2))
    value = loss(one, soft)
    w = torch.ones(5).double() if weights is None else torch.tensor(weights).double()
    expected = F.cross_entropy(two, soft, w, label_smoothing=smoothing, reduction="sum")
    # sum over pixels and classes of w_c t_c: the number of pixels, as in torch, without weights
    expected = expected / torch.einsum("nchw,c->", soft, w)
    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    torch.testing.assert_close(one.grad, two.grad)


@pytest.mark.parametrize("loss", FAMILY)
@pytest.mark.parametrize(
    "common",
    [
        {},
        {"class_weights": WEIGHTS},
        {"mining": {"name": "ohem", "threshold": 0.3, "min_kept": 2}},
    ],
)
def test_a_one_hot_target_is_its_ids(
    batch: tuple[Tensor, Tensor], loss: type[PixelLoss], common: dict[str, Any]
) -> None:
    logits, target = batch
    dense = one_hot(torch.where(target == 255, 0, target))
    missing = (target == 255)[:, None].expand_as(dense)
    module = loss(num_classes=5, **common)
    one, two = (logits.clone().requires_grad_() for _ in range(2))
    value = module(one, torch.where(missing, torch.nan, dense))
    expected = module(two, target)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(module(one, torch.where(missing, 255, dense.long())), value)
    torch.testing.assert_close(
        module.share(torch.where(missing, torch.nan, dense.float())), module.share(target)
    )
    value.backward()
    expected.backward()
    torch.testing.assert_close(one.grad, two.grad)


def test_smoothed_and_alpha_balanced_one_hot_targets(batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch[0], torch.where(batch[1] == 255, 0, batch[1])
    for loss in (
        CrossEntropy(num_classes=5, label_smoothing=0.2, class_weights=WEIGHTS),
        Focal(num_classes=5, alpha=[0.1, 0.2, 0.3, 0.4, 0.5]),
        Focal(num_classes=5, alpha=0.5),
    ):
        torch.testing.assert_close(loss(logits, one_hot(target)), loss(logits, target))


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("loss", FAMILY)
def test_a_soft_target_is_the_mean_over_its_classes(
    batch: tuple[Tensor, Tensor], soft: Tensor, loss: type[PixelLoss], weights: list[float] | None
) -> None:
    per_class, module = loss(num_classes=5), loss(num_classes=5, class_weights=weights)
    w = [1.0] * 5 if weights is None else weights
    total = torch.zeros((), dtype=torch.float64)
    for c in range(5):
        values = per_class.pixel_loss(batch[0], torch.full_like(batch[1], c))
        total = total + (w[c] * soft[:, c] * values).sum()
    expected = total / torch.einsum("nchw,c->", soft, torch.tensor(w).double())
    torch.testing.assert_close(module(batch[0], soft), expected)


def test_pixel_loss_is_the_map_without_weights(batch: tuple[Tensor, Tensor], soft: Tensor) -> None:
    loss = CrossEntropy(num_classes=5, label_smoothing=0.1, class_weights=WEIGHTS)
    plain = CrossEntropy(num_classes=5, label_smoothing=0.1)
    torch.testing.assert_close(loss.pixel_loss(batch[0], soft).mean(), plain(batch[0], soft))


@pytest.mark.parametrize("loss", FAMILY)
def test_huge_logits_are_finite_with_a_soft_target(loss: type[PixelLoss], soft: Tensor) -> None:
    signs = torch.randn(soft.shape, generator=torch.Generator().manual_seed(2)).sign()
    for target in (soft.float(), one_hot(soft.argmax(1)).float()):
        leaf = (1e4 * signs).requires_grad_()
        value = loss(num_classes=5)(leaf, target)
        value.backward()
        assert leaf.grad is not None
        assert torch.isfinite(value)
        assert torch.isfinite(leaf.grad).all()


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "cross_entropy", "label_smoothing": 0.1},
        {"name": "focal", "gamma": 1.5, "alpha": [0.1, 0.2, 0.3, 0.4, 0.5]},
        {"name": "poly1"},
        {"name": "generalized_cross_entropy"},
    ],
)
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_strips_change_nothing(
    spec: dict[str, Any], dense: bool, weights: list[float] | None
) -> None:
    generator = torch.Generator().manual_seed(0)
    small = torch.randn(2, 5, 4, 3, dtype=torch.float64, generator=generator) * 2
    target = torch.randint(0, 5, (2, 11, 7), generator=generator)
    if dense:
        target = torch.randn(2, 5, 11, 7, dtype=torch.float64, generator=generator).softmax(1)
    target[0, ..., :2, :] = 255
    results = []
    for rows in (None, 3):
        criterion = segtrain.build_criterion(
            {**spec, "class_weights": weights}, num_classes=5, strip_rows=rows
        )
        leaf = small.clone().requires_grad_()
        total = criterion(leaf, target).total
        total.backward()
        results.append((total.detach(), leaf.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_wrong_label_smoothing(smoothing: float) -> None:
    with pytest.raises(ConfigError, match="label_smoothing must be at least 0 and below 1"):
        CrossEntropy(num_classes=2, label_smoothing=smoothing)


@pytest.mark.parametrize(
    ("loss", "params", "message"),
    [
        (Focal, {"gamma": -1.0}, "gamma must be finite and not negative, got -1"),
        (Focal, {"gamma": math.inf}, "gamma must be finite and not negative, got inf"),
        (Focal, {"alpha": 0.0}, "alpha must be above 0 and at most 1, got 0"),
        (Focal, {"alpha": 2}, "alpha must be above 0 and at most 1, got 2"),
        (Focal, {"alpha": [0.5]}, "alpha has 1 values, but num_classes is 2"),
        (Focal, {"alpha": [0.5, -0.5]}, r"alpha must be finite, not negative .*got \[0.5, -0.5\]"),
        (Focal, {"alpha": [0.0, 0.0]}, r"alpha must be .*not all 0, got \[0.0, 0.0\]"),
        (Poly1, {"epsilon": -1.5}, "epsilon must be finite and at least -1, got -1.5"),
        (Poly1, {"epsilon": math.inf}, "epsilon must be finite and at least -1, got inf"),
        (GeneralizedCrossEntropy, {"q": 0.0}, "q must be above 0 and at most 1, got 0"),
        (GeneralizedCrossEntropy, {"q": 1.5}, "q must be above 0 and at most 1, got 1.5"),
    ],
)
def test_wrong_parameters(loss: type[PixelLoss], params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loss(num_classes=2, **params)


@pytest.mark.parametrize("loss", FAMILY)
def test_one_channel_has_no_softmax(loss: type[PixelLoss]) -> None:
    with pytest.raises(ConfigError, match=r"num_classes is 1.*use bce"):
        loss(num_classes=1)
