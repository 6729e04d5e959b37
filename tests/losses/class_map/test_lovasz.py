from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from segtrain import build_criterion
from segtrain.errors import ConfigError
from segtrain.losses import LOSSES, ClassMapLoss, LovaszHinge, LovaszSoftmax
from segtrain.losses.class_map.lovasz import lovasz_extension

BOTH = pytest.mark.parametrize("name", ["lovasz_softmax", "lovasz_hinge"])


def build(name: str, num_classes: int = 4, **params: Any) -> ClassMapLoss:
    loss = LOSSES.build({"name": name, **params}, num_classes=num_classes, ignore_label=255)
    assert isinstance(loss, ClassMapLoss)
    return loss


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    target = torch.randint(0, 4, (2, 7, 5))
    target[0, :2] = 255
    return torch.randn(2, 4, 7, 5, dtype=torch.float64) * 2, target


def direct(errors: Tensor, positive: Tensor) -> Tensor:
    """The sorted form of the paper, as differences of neighbouring losses."""
    ranked, order = errors.flatten().sort(descending=True)
    hits = positive.flatten()[order].to(errors.dtype)
    intersection = hits.sum() - hits.cumsum(0)
    union = hits.sum() + (1 - hits).cumsum(0)
    loss = 1 - intersection / union
    return (ranked * torch.cat([loss[:1], loss[1:] - loss[:-1]])).sum()


def errors_of(name: str, logits: Tensor, positive: Tensor, index: int) -> Tensor:
    if name == "lovasz_softmax":
        return (positive.double() - logits.softmax(1)[:, index]).abs()
    return F.relu(1 - logits[:, index] * (2.0 * positive - 1))


def residual_of(errors: Tensor, positive: Tensor) -> Tensor:
    return torch.where(positive, -errors, errors)


def test_softmax_by_hand() -> None:
    logits = torch.tensor([math.log(3.0), 0.0, 5.0]).reshape(1, 1, 1, 3)
    target = torch.tensor([[[1, 0, 255]]])
    # errors 1/4 at the positive, 1/2 at the other, which comes first: J is 1/2 with it, 1 with both
    assert LovaszSoftmax(num_classes=1)(logits, target).item() == pytest.approx(0.375)
    # Two classes, p_0 = 3/4, 1/2, 1/4 for the targets 0, 1, 1. Both have the error 1/2 at the
    # second pixel, which alone makes J = 1/2, and 1/4 at the others, which share the other half.
    logits = torch.tensor([math.log(3.0), 0.0, -math.log(3.0)]).reshape(1, 1, 1, 3)
    logits, target = torch.cat([logits, 0 * logits], dim=1), torch.tensor([[[0, 1, 1]]])
    assert LovaszSoftmax(num_classes=2)(logits, target).item() == pytest.approx(0.375)


def test_hinge_by_hand() -> None:
    # errors 0 beyond the margin, 3/2 and 1/2 at the positives, 1 at the other; 3 pixels are of the
    # class. J = 1/3 with the first, then 2 of a union of 4, then 3 of 4: 3/2 * 1/3 + 1 * 1/6 +
    # 1/2 * 1/4
    logits = torch.tensor([2.0, -0.5, 0.0, 0.5, 9.0]).reshape(1, 1, 1, 5)
    target = torch.tensor([[[1, 1, 0, 1, 255]]])
    assert LovaszHinge(num_classes=1)(logits, target).item() == pytest.approx(19 / 24)


@BOTH
@pytest.mark.parametrize("per_image", [False, True])
def test_value_and_gradient_of_the_sorted_form(
    name: str, per_image: bool, batch: tuple[Tensor, Tensor]
) -> None:
    logits, target = batch
    one, two = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    groups = [slice(0, 1), slice(1, 2)] if per_image else [slice(None)]
    parts = []
    for group in groups:
        valid = target[group] != 255
        for index in range(4):
            positive = target[group] == index
            errors = errors_of(name, two[group], positive, index)
            parts.append(direct(errors[valid], positive[valid]))
    expected = torch.stack(parts).mean()
    value = build(name, per_image=per_image)(one, target)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    value.backward()
    expected.backward()
    torch.testing.assert_close(one.grad, two.grad, rtol=1e-10, atol=1e-14)


def test_no_other_order_gives_a_larger_value() -> None:
    # J of sets is submodular, so its extension is the largest value that any order gives.
    torch.manual_seed(0)
    errors = torch.rand(6, dtype=torch.float64)
    positive = torch.tensor([True, False, True, False, False, True])

    def jaccard(mistakes: set[int]) -> float:
        return len(mistakes) / len(mistakes | {i for i in range(6) if positive[i]})

    values = [
        sum(
            errors[i].item() * (jaccard(set(order[: k + 1])) - jaccard(set(order[:k])))
            for k, i in enumerate(order)
        )
        for order in itertools.permutations(range(6))
    ]
    value = lovasz_extension(residual_of(errors, positive), positive, torch.ones(6).bool())
    assert value.item() == pytest.approx(max(values))


@BOTH
def test_the_loss_of_an_absent_class_is_its_largest_error(name: str) -> None:
    logits = torch.tensor([math.log(3.0), 0.0, -math.log(3.0)]).reshape(1, 1, 1, 3)
    leaf = logits.requires_grad_()
    value = build(name, 1)(leaf, torch.zeros(1, 1, 3, dtype=torch.long))
    value.backward()
    expected, slope = (0.75, 0.75 * 0.25) if name == "lovasz_softmax" else (1 + math.log(3.0), 1.0)
    assert value.item() == pytest.approx(expected)
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad.flatten(), torch.tensor([slope, 0.0, 0.0]))


@BOTH
def test_a_multi_hot_target_of_one_class_each_is_the_same(
    name: str, batch: tuple[Tensor, Tensor]
) -> None:
    logits, target = batch
    hot = F.one_hot(torch.where(target == 255, 0, target), 4).movedim(-1, 1)
    hot = torch.where((target == 255)[:, None], 255, hot)
    loss = build(name)
    torch.testing.assert_close(loss(logits, hot), loss(logits, target))


@BOTH
def test_ignored_pixels_do_not_matter(name: str, batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch[0].requires_grad_(), batch[1].clone()
    target[1, :2] = 255
    loss = build(name)
    value, without = loss(logits, target), loss(logits[:, :, 2:], target[:, 2:])
    torch.testing.assert_close(value, without)
    (one,) = torch.autograd.grad(value, logits)
    (two,) = torch.autograd.grad(without, logits)
    torch.testing.assert_close(one, two)


def test_a_hinge_beyond_its_margin_has_no_gradient() -> None:
    leaf = torch.tensor([2.0, -2.0, 0.5]).reshape(1, 1, 1, 3).requires_grad_()
    LovaszHinge(num_classes=1)(leaf, torch.tensor([[[1, 0, 0]]])).backward()
    assert leaf.grad is not None
    # Only the last pixel is wrong: J is 1/2 with it.
    assert leaf.grad.flatten().tolist() == [0.0, 0.0, 0.5]


def test_all_errors_equal_has_a_subgradient() -> None:
    errors = torch.full((4,), 0.5, requires_grad=True)
    positive = torch.tensor([True, False, True, False])
    value = lovasz_extension(residual_of(errors, positive), positive, torch.ones(4).bool())
    value.backward()
    assert value.item() == pytest.approx(0.5)  # J of all pixels is 1
    assert errors.grad is not None
    assert errors.grad.sum().item() == pytest.approx(1)
    assert errors.grad.min() >= 0


def test_a_million_pixels_stay_precise() -> None:
    generator = torch.Generator().manual_seed(0)
    errors = torch.rand(1 << 20, generator=generator).square()
    positive = torch.rand(1 << 20, generator=generator) < 0.01
    valid = torch.ones_like(positive)
    value = lovasz_extension(residual_of(errors, positive), positive, valid)
    expected = direct(errors.double(), positive)
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)


def test_large_errors_keep_their_order() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(1, 1, 20, 20) * 1e30, torch.randint(0, 2, (1, 20, 20))
    positive = target == 1
    expected = direct(errors_of("lovasz_hinge", logits.double(), positive, 0), positive)
    value = LovaszHinge(num_classes=1)(logits, target)
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)


@BOTH
@pytest.mark.parametrize("params", [{}, {"classes": "all"}, {"per_image": True}])
@pytest.mark.parametrize("align_corners", [False, True])
def test_strips(name: str, params: dict[str, Any], align_corners: bool) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 5, 7, dtype=torch.float64)
    target = torch.randint(0, 3, (2, 17, 25))
    target[0, :3] = 255
    found = []
    for rows in (None, 3):
        criterion = build_criterion(
            {"name": name, **params}, num_classes=4, align_corners=align_corners, strip_rows=rows
        )
        leaf = logits.clone().requires_grad_()
        total = criterion(leaf, target).total
        total.backward()
        found.append((total.detach(), leaf.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-12)


def test_a_hinge_has_no_activation() -> None:
    with pytest.raises(ConfigError, match="'lovasz_hinge' has no parameter 'activation'"):
        build("lovasz_hinge", activation="sigmoid")


@BOTH
def test_wrong_classes(name: str) -> None:
    with pytest.raises(ConfigError, match=r"classes must be ids from 0 to 3, got \[4\]"):
        build(name, classes=[4])
