from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from segtrain import build_criterion, build_loss
from segtrain.errors import ConfigError
from segtrain.losses import LOSSES, RegionMutualInformation
from tests.helpers import ROOT

CONFIGS = ROOT / "configs" / "loss"


def build(num_classes: int = 1, **params: Any) -> RegionMutualInformation:
    loss = LOSSES.build({"name": "rmi", **params}, num_classes=num_classes, ignore_label=255)
    assert isinstance(loss, RegionMutualInformation)
    return loss


def pixels(**params: Any) -> RegionMutualInformation:
    """Regions of one pixel that is not pooled."""
    return build(radius=1, pool_size=1, **params)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    target = torch.randint(0, 2, (2, 11, 13))
    target[0, :3] = 255
    return torch.randn(2, 1, 11, 13, dtype=torch.float64) + target[:, None] % 2, target


def log_odds(*probabilities: float) -> Tensor:
    odds = [math.log(p / (1 - p)) for p in probabilities]
    return torch.tensor(odds, dtype=torch.float64).reshape(1, 1, 1, -1)


def regions(image: np.ndarray[Any, Any], radius: int) -> np.ndarray[Any, Any]:
    """The region around each pixel as a row; the border's pixels are repeated beyond it."""
    before, height, width = (radius - 1) // 2, *image.shape
    rows = []
    for y in range(height):
        for x in range(width):
            inside = [
                image[
                    min(max(y + i - before, 0), height - 1), min(max(x + j - before, 0), width - 1)
                ]
                for i in range(radius)
                for j in range(radius)
            ]
            rows.append(inside)
    return np.array(rows)


def direct(probability: Tensor, target: Tensor, radius: int, epsilon: float) -> float:
    """The formula with an inverse and a determinant."""
    p, y = regions(probability.numpy(), radius), regions(target.double().numpy(), radius)
    size = radius * radius
    whole = np.cov(np.hstack([p, y]).T, bias=True).reshape(2 * size, 2 * size)
    of_p = whole[:size, :size] + 1e-4 * epsilon * np.eye(size)
    across = whole[size:, :size]
    unexplained = whole[size:, size:] - across @ np.linalg.inv(of_p) @ across.T
    _, log_det = np.linalg.slogdet(np.eye(size) + unexplained / epsilon)
    return float(log_det / (2 * size))


def test_by_hand() -> None:
    target = torch.tensor([[[0, 1, 0, 1]]])  # of variance 1/4
    # The target, shrunk: all of the variance is explained, but for the noise of the prediction.
    assert pixels()(log_odds(0.25, 0.75, 0.25, 0.75), target).item() < 1e-3
    # They are uncorrelated: 1/4 is left, the same as epsilon.
    value = pixels(epsilon=0.25)(log_odds(0.25, 0.75, 0.75, 0.25), target)
    assert value.item() == pytest.approx(math.log(2) / 2)
    # Of variance 1/32 and covariance 1/16: (1/16)^2 / (1/32) = 1/8 is explained, 1/8 is left.
    value = pixels(epsilon=0.125)(log_odds(0.25, 0.75, 0.5, 0.5), target)
    assert value.item() == pytest.approx(math.log(2) / 2, rel=1e-3)


@pytest.mark.parametrize("radius", [1, 2, 3, 4])
def test_the_formula(radius: int, batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch
    value = build(radius=radius, pool_size=1)(logits, target)
    parts = []
    for z, t in zip(logits[:, 0], target, strict=True):
        valid = t != 255
        parts.append(direct(torch.where(valid, z.sigmoid(), 0), t.where(valid, 0), radius, 1e-4))
    assert value.item() == pytest.approx(sum(parts) / 2, rel=1e-8)


def test_pooling_by_hand() -> None:
    # Squares of 2: one of four pixels, then four of four. Their means 1/4 and 1 have the variance
    # 9/64; their largest do not vary at all. The last column is a square of its own.
    target = torch.tensor([[[1, 0, 1, 1], [0, 0, 1, 1]]])
    nothing = torch.zeros(1, 1, 2, 4)
    for pooling, expected in (("average", math.log(2) / 2), ("max", 0.0)):
        loss = build(radius=1, pool_size=2, pooling=pooling, epsilon=9 / 64)
        assert loss(nothing, target).item() == pytest.approx(expected)
    narrow = build(radius=1, pool_size=2, epsilon=9 / 64)
    assert narrow(nothing[..., 1:], target[..., 1:]).item() == pytest.approx(
        math.log(1 + (1 / 16) / (9 / 64)) / 2  # means 1/2 and 1
    )


def test_information_has_no_sign(batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch[0], batch[1].remainder(2)
    loss = build()
    torch.testing.assert_close(loss(-logits, target), loss(logits, target))


def test_the_largest_loss_explains_nothing(batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch[0], batch[1].remainder(2)
    loss = build()
    leaf = torch.zeros_like(logits).requires_grad_()
    most = loss(leaf, target)
    most.backward()
    assert leaf.grad is not None
    assert leaf.grad.abs().max() < 1e-12  # because both signs would help
    perfect = loss(100.0 * (2 * target[:, None] - 1), target)
    assert 0 <= perfect < 5e-5 < loss(logits, target) < most


def test_the_size_of_the_image_hardly_matters() -> None:
    torch.manual_seed(0)
    target = torch.randint(0, 2, (1, 8, 8)).repeat_interleave(6, 1).repeat_interleave(6, 2)
    logits = torch.randn(1, 1, 48, 48) + target[:, None]
    loss = build()
    value = loss(logits, target)
    for repeats in ((1, 1, 1, 2), (1, 1, 2, 1)):
        tiled = loss(logits.repeat(repeats), target.repeat(repeats[1:]))
        assert tiled.item() == pytest.approx(value.item(), rel=0.1)
    both = loss(logits.repeat(2, 1, 1, 1), target.repeat(2, 1, 1))
    torch.testing.assert_close(both, value)
    joint = build(per_image=False)
    torch.testing.assert_close(joint(logits.repeat(2, 1, 1, 1), target.repeat(2, 1, 1)), value)


def test_ignored_pixels_are_zero_in_both() -> None:
    logits, target = log_odds(0.6, 0.3, 0.9), torch.tensor([[[1, 0, 255]]])
    value = pixels()(logits, target)
    expected = direct(torch.tensor([[0.6, 0.3, 0.0]]), torch.tensor([[1, 0, 0]]), 1, 1e-4)
    assert value.item() == pytest.approx(expected)


def test_gradient(batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch[0][:, :, :8, :7].clone().requires_grad_(), batch[1][:, :8, :7]
    for params in ({"pool_size": 1}, {"pool_size": 2, "pooling": "max", "per_image": False}):
        loss = build(**params)
        assert torch.autograd.gradcheck(lambda z, loss=loss: loss(z, target), logits)


def test_the_loss_of_one_pooled_pixel_is_0() -> None:
    leaf = torch.randn(1, 1, 2, 3, requires_grad=True)
    value = build()(leaf, torch.tensor([[[1, 0, 1], [0, 0, 1]]]))
    value.backward()
    assert value.item() == 0
    assert leaf.grad is not None
    assert leaf.grad.eq(0).all()


def test_nan_is_not_hidden() -> None:
    logits, target = log_odds(0.6, 0.3, 0.9), torch.tensor([[[1, 0, 1]]])
    logits[..., 1] = math.nan
    assert math.isnan(pixels()(logits, target).item())


@pytest.mark.parametrize(
    "params", [{}, {"activation": "softmax", "classes": "all"}, {"per_image": False, "radius": 2}]
)
@pytest.mark.parametrize("align_corners", [False, True])
def test_strips(params: dict[str, Any], align_corners: bool) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 5, 7, dtype=torch.float64)
    target = torch.randint(0, 3, (2, 17, 25))
    target[0, :3] = 255
    found = []
    for rows in (None, 3):
        criterion = build_criterion(
            {"name": "rmi", **params}, num_classes=4, align_corners=align_corners, strip_rows=rows
        )
        leaf = logits.clone().requires_grad_()
        total = criterion(leaf, target).total
        total.backward()
        found.append((total.detach(), leaf.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-10)


def test_the_preset_is_half_and_half() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 12, 15), torch.randint(0, 3, (2, 12, 15))
    preset = yaml.safe_load((CONFIGS / "bce_rmi.yaml").read_text(encoding="utf-8"))
    parts = [build_loss(name, num_classes=3)(logits, target) for name in ("bce", "rmi")]
    torch.testing.assert_close(build_loss(preset, num_classes=3)(logits, target), sum(parts) / 2)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"radius": 0}, "radius must be at least 1, got 0"),
        ({"pool_size": 0}, "pool_size must be at least 1, got 0"),
        ({"epsilon": 0.0}, "epsilon must be from 1e-8 to 1, or published, got 0.0"),
        ({"epsilon": 2.0}, "epsilon must be from 1e-8 to 1, or published, got 2.0"),
        ({"pooling": "median"}, "pooling"),
    ],
)
def test_wrong_arguments(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(**params)


def test_a_wrong_pooling_is_refused_in_python_too() -> None:
    with pytest.raises(ConfigError, match=r"^unknown pooling 'median'. Known: average, max$"):
        RegionMutualInformation(num_classes=1, pooling="median")  # type: ignore[arg-type]
