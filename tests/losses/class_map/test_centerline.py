from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from segtrain import build_criterion
from segtrain.errors import ConfigError
from segtrain.losses import LOSSES, CenterlineDice
from segtrain.losses.class_map.centerline import soft_skeleton


def logits_of(shape: Tensor) -> Tensor:
    """Logits of one channel with probabilities of almost 0 and 1."""
    return (200.0 * shape - 100)[:, None]


def box(rows: slice, columns: slice, size: tuple[int, int] = (15, 21)) -> Tensor:
    shape = torch.zeros(1, *size, dtype=torch.long)
    shape[:, rows, columns] = 1
    return shape


def pooled_skeleton(maps: Tensor, iterations: int) -> Tensor:
    """The algorithm of the paper, by pooling, with an erosion inside each opening."""

    def erode(x: Tensor) -> Tensor:
        upright = -F.max_pool2d(-x, (3, 1), 1, (1, 0))
        return torch.minimum(upright, -F.max_pool2d(-x, (1, 3), 1, (0, 1)))

    def lost(x: Tensor) -> Tensor:
        return F.relu(x - F.max_pool2d(erode(x), 3, 1, 1))

    skeleton = lost(maps)
    for _ in range(iterations):
        maps = erode(maps)
        skeleton = skeleton + F.relu(lost(maps) * (1 - skeleton))
    return skeleton


LINE = box(slice(7, 8), slice(4, 14))  # ten pixels
CUT = LINE.index_fill(2, torch.tensor([8]), 0)


@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_the_skeleton_is_that_of_the_paper(iterations: int) -> None:
    torch.manual_seed(0)
    one = torch.rand(2, 9, 13, dtype=torch.float64).requires_grad_()
    two = one.detach().clone().requires_grad_()
    skeleton, expected = soft_skeleton(one, iterations), pooled_skeleton(two, iterations)
    torch.testing.assert_close(skeleton, expected)
    factors = torch.rand_like(skeleton)
    (skeleton * factors).sum().backward()
    (expected * factors).sum().backward()
    torch.testing.assert_close(one.grad, two.grad)


def test_the_skeleton_of_a_box_is_what_its_last_erosion_leaves() -> None:
    # A cross takes one pixel from each side of a box, and the dilation gives it back.
    square = box(slice(3, 12), slice(5, 14)).float()  # of radius 4
    centre = box(slice(7, 8), slice(9, 10)).float()
    assert soft_skeleton(square, 4).equal(centre)
    assert soft_skeleton(square, 9).equal(centre)
    assert soft_skeleton(square, 3).equal(torch.zeros_like(centre))
    band = box(slice(5, 10), slice(3, 18)).float()  # of radius 2
    assert soft_skeleton(band, 2).equal(box(slice(7, 8), slice(5, 16)).float())


def test_a_cut_line_by_hand() -> None:
    # Nine of ten pixels are found and all are right: without smoothing 1 - 2 * 0.9 / 1.9, with one
    # pixel of it the shares are 10 of 11 and 1.
    value = CenterlineDice(num_classes=1, smooth=0.0)(logits_of(CUT), LINE)
    assert value.item() == pytest.approx(1 - 1.8 / 1.9)
    value = CenterlineDice(num_classes=1)(logits_of(CUT), LINE)
    assert value.item() == pytest.approx(1 - 2 * (10 / 11) / (21 / 11))


def test_both_shares_by_hand() -> None:
    # A line of ten pixels predicted in the row of the target, but five pixels to the right.
    moved = LINE.roll(5, dims=2)
    value = CenterlineDice(num_classes=1, smooth=0.0)(logits_of(moved), LINE)
    assert value.item() == pytest.approx(0.5)


def test_the_width_is_not_determined() -> None:
    wide = box(slice(6, 9), slice(3, 15))
    loss = CenterlineDice(num_classes=1)
    assert loss(logits_of(wide), LINE).item() == pytest.approx(0, abs=1e-6)
    assert loss(logits_of(LINE), wide).item() == pytest.approx(0, abs=1e-6)
    # A gap has a loss for a line of any width.
    cut = wide.index_fill(2, torch.tensor([8]), 0)
    assert loss(logits_of(cut), wide).item() > 0.03


@pytest.mark.parametrize(("smooth", "expected"), [(0.0, 1.0), (1.0, 5 / 7)])
def test_an_absent_class_that_counts(smooth: float, expected: float) -> None:
    line = box(slice(7, 8), slice(4, 9))
    loss = CenterlineDice(num_classes=1, smooth=smooth)
    leaf = logits_of(line).requires_grad_()
    # One pixel of smoothing: shares of 1 of 6 and of 1, and 1 - 2 * (1/6) / (7/6).
    value = loss(leaf, torch.zeros_like(line))
    value.backward()
    assert value.item() == pytest.approx(expected)
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()
    nothing = loss(torch.full_like(leaf.detach(), -100), torch.zeros_like(line))
    assert nothing.item() == pytest.approx(0)


def test_only_present_classes_count_by_default() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(1, 3, 15, 21), LINE
    alone = [CenterlineDice(num_classes=3, classes=[index])(logits, target) for index in range(2)]
    torch.testing.assert_close(CenterlineDice(num_classes=3)(logits, target), sum(alone) / 2)


def test_ignored_pixels_are_background() -> None:
    target = LINE.index_fill(2, torch.tensor([8]), 255)
    loss = CenterlineDice(num_classes=1)
    for shape in (LINE, CUT):
        assert loss(logits_of(shape), target).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 1), (2, 2)])
def test_the_smallest_maps(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    leaf = torch.randn(1, 2, *size, requires_grad=True)
    value = CenterlineDice(num_classes=2)(leaf, torch.ones(1, *size, dtype=torch.long))
    value.backward()
    assert torch.isfinite(value)
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()


@pytest.mark.parametrize(
    "params", [{}, {"activation": "sigmoid", "classes": "all"}, {"per_image": True}]
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
            {"name": "cldice", "iterations": 3, **params},
            num_classes=4,
            align_corners=align_corners,
            strip_rows=rows,
        )
        leaf = logits.clone().requires_grad_()
        total = criterion(leaf, target).total
        total.backward()
        found.append((total.detach(), leaf.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"smooth": -1.0}, "smooth must be finite and not negative, got -1.0"),
    ],
)
def test_wrong_arguments(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LOSSES.build({"name": "cldice", **params}, num_classes=2)
