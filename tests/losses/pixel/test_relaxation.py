from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import segtrain
from segtrain.errors import ConfigError
from segtrain.losses import CrossEntropy, LabelRelaxation, PixelLoss

WEIGHTS = [0.5, 2.0, 1.0, 4.0, 0.25]


def random(*size: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*size, dtype=torch.float64, generator=generator) * scale


def blocks(seed: int = 1) -> Tensor:
    """A target with areas, borders, corners and a hole: ``(2, 11, 9)``."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 5, (2, 4, 3), generator=generator)
    target = coarse.repeat_interleave(3, 1).repeat_interleave(3, 2)[:, :11]
    target[0, 4:6, 3:8] = 255
    target[1, 0] = 255
    return target


def neighbours(target: Tensor, n: int, y: int, x: int, radius: int) -> set[int]:
    height, width = target.shape[1:]
    rows = range(max(y - radius, 0), min(y + radius + 1, height))
    columns = range(max(x - radius, 0), min(x + radius + 1, width))
    return {int(target[n, i, j]) for i in rows for j in columns} - {255}


def test_by_hand() -> None:
    logits = torch.tensor([0.5, 0.3, 0.2]).log().reshape(1, 3, 1, 1).expand(1, 3, 1, 5)
    target = torch.tensor([[[0, 0, 1, 255, 2]]])
    # {0}, {0, 1}, {0, 1} as an ignored pixel adds no class, nothing, {2}
    expected = -(math.log(0.5) + 2 * math.log(0.8) + math.log(0.2)) / 4
    value = LabelRelaxation(num_classes=3)(logits, target).item()
    assert value == pytest.approx(expected)
    # radius 2: {0, 1}, {0, 1}, {0, 1, 2}, nothing, {1, 2}
    expected = -(2 * math.log(0.8) + 0 + math.log(0.5)) / 4
    value = LabelRelaxation(num_classes=3, radius=2)(logits, target).item()
    assert value == pytest.approx(expected)


def test_a_corner_counts_once() -> None:
    # The middle pixel has class 1 on three of its sides and at all corners but one.
    target = torch.tensor([[[1, 1, 2], [1, 0, 1], [1, 0, 1]]])
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log().reshape(1, 4, 1, 1).expand(1, 4, 3, 3)
    values = LabelRelaxation(num_classes=4).pixel_loss(logits, target)
    assert values[0, 1, 1].item() == pytest.approx(-math.log(0.9), rel=1e-5)
    assert values[0, 2, 0].item() == pytest.approx(-math.log(0.7), rel=1e-5)  # 2 is out of reach


@pytest.mark.parametrize("radius", [1, 2, 3, 20])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_mean_is_a_loop_over_pixels(radius: int, weights: list[float] | None) -> None:
    logits, target = random(2, 5, 11, 9), blocks()
    probability = logits.softmax(1).numpy()
    total, weight = 0.0, 0.0
    for n, y, x in np.ndindex(target.shape):
        c = int(target[n, y, x])
        if c != 255:
            near = sorted(neighbours(target, n, y, x, radius))
            w = 1.0 if weights is None else weights[c]
            total -= w * math.log(probability[n, near, y, x].sum())
            weight += w
    value = LabelRelaxation(num_classes=5, radius=radius, class_weights=weights)(logits, target)
    assert value.item() == pytest.approx(total / weight, rel=1e-12)


def test_context_holds_each_class_once() -> None:
    target = blocks()
    context = LabelRelaxation(num_classes=5).context(target)
    assert context.dtype == torch.int8
    most = 0
    for n, y, x in np.ndindex(target.shape):
        found = [int(c) for c in context[n, :, y, x] if c >= 0]
        assert len(found) == len(set(found))
        if target[n, y, x] != 255:
            assert set(found) == neighbours(target, n, y, x, 1)
            assert found[0] == target[n, y, x]
        most = max(most, len(found))
    assert context.shape == (2, most, 11, 9)


@pytest.mark.parametrize(
    ("num_classes", "dtype"), [(2, torch.int8), (128, torch.int8), (129, torch.int16)]
)
def test_context_is_as_small_as_the_ids_allow(num_classes: int, dtype: torch.dtype) -> None:
    last = num_classes - 1
    target = torch.tensor([[[0, last, last]]])
    context = LabelRelaxation(num_classes=num_classes, ignore_label=999).context(target)
    assert context.dtype == dtype
    assert context.tolist() == [[[[0, last, last]], [[last, 0, -1]]]]


def test_it_is_never_above_cross_entropy_nor_a_smaller_radius() -> None:
    logits, target = random(2, 5, 11, 9), blocks()
    losses: list[PixelLoss] = [CrossEntropy(num_classes=5)]
    losses += [LabelRelaxation(num_classes=5, radius=radius) for radius in (1, 2, 3)]
    values = [loss(logits, target).item() for loss in losses]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1]


def test_where_all_classes_meet_the_loss_is_0() -> None:
    target = torch.tensor([[[0, 1], [2, 0]]])
    leaf = (random(1, 3, 2, 2).float() * 100).requires_grad_()
    value = LabelRelaxation(num_classes=3)(leaf, target)
    value.backward()
    assert leaf.grad is not None
    assert 0 <= value.item() < 1e-6
    assert leaf.grad.abs().max() < 1e-6


def test_huge_logits_are_finite() -> None:
    leaf = (1e4 * random(2, 5, 11, 9).sign().float()).requires_grad_()
    value = LabelRelaxation(num_classes=5)(leaf, blocks())
    value.backward()
    assert leaf.grad is not None
    assert torch.isfinite(value)
    assert torch.isfinite(leaf.grad).all()


def test_pixel_loss_computes_the_context() -> None:
    logits, target = random(2, 5, 11, 9), torch.where(blocks() == 255, 0, blocks())
    loss = LabelRelaxation(num_classes=5)
    torch.testing.assert_close(loss.pixel_loss(logits, target).mean(), loss(logits, target))


@pytest.mark.parametrize("radius", [1, 2, 4])
@pytest.mark.parametrize(
    "params",
    [{}, {"class_weights": WEIGHTS}, {"mining": {"name": "ohem", "threshold": 0.4, "min_kept": 5}}],
)
def test_strips_change_nothing(radius: int, params: dict[str, Any]) -> None:
    small, target = random(2, 5, 4, 3), blocks()
    spec = {"name": "label_relaxation", "radius": radius, **params}
    results = []
    for rows in (None, 3):
        criterion = segtrain.build_criterion(spec, num_classes=5, strip_rows=rows)
        leaf = small.clone().requires_grad_()
        total = criterion(leaf, target).total
        total.backward()
        results.append((total.detach(), leaf.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("radius", [0, -1])
def test_wrong_radius(radius: int) -> None:
    with pytest.raises(ConfigError, match=f"radius must be at least 1, got {radius}"):
        LabelRelaxation(num_classes=2, radius=radius)


def test_one_channel_has_no_softmax() -> None:
    with pytest.raises(ConfigError, match=r"num_classes is 1.*use bce"):
        LabelRelaxation(num_classes=1)
