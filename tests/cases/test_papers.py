"""Where a default departs from a paper, a preset or a parameter gives the paper's loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import segtrain
from segtrain.data import (
    LabelContract,
    ShapesDataset,
    StepSampler,
    TrainTransform,
    TrainView,
    build_train_loader,
    count_dataset,
    iterate,
)
from segtrain.data.loading.rare_classes import rare_class_order
from segtrain.errors import ConfigError
from segtrain.schema.sections import AugmentationConfig


def published_rmi(logits: Tensor, target: Tensor, pool: int = 4, noise: float = 5e-4) -> Tensor:
    """Half the log-determinant of the scatter that is not explained, as in the authors' code."""
    num_classes = logits.shape[1]
    prediction = F.avg_pool2d(logits.sigmoid(), pool)
    truth = F.avg_pool2d(F.one_hot(target, num_classes).movedim(-1, 1).to(logits.dtype), pool)
    identity = torch.eye(9, dtype=logits.dtype)
    total = logits.new_zeros(())
    for image in range(len(logits)):
        for index in range(num_classes):
            p, y = (regions(maps[image, index]) for maps in (prediction, truth))
            inverse = torch.linalg.inv(p @ p.T + noise * identity)
            left = y @ y.T - (y @ p.T) @ inverse @ (p @ y.T)
            total = total + torch.logdet(left + noise * identity) / 18
    return total / len(logits) / num_classes


def regions(plane: Tensor) -> Tensor:
    """The centred squares of side 3 around each pixel, ``(9, P)``."""
    padded = F.pad(plane[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    height, width = plane.shape
    rows = [padded[r : r + height, c : c + width].flatten() for r in range(3) for c in range(3)]
    stacked = torch.stack(rows)
    return stacked - stacked.mean(1, keepdim=True)


def data(num_classes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, num_classes, 32, 32, dtype=torch.float64, generator=generator)
    target = torch.randint(num_classes - 1, (2, 32, 32), generator=generator)  # the last is absent
    return logits.requires_grad_(), target


def gradient(value: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(value, logits)[0]


def test_rmi_of_the_paper() -> None:
    logits, target = data(4)
    loss = segtrain.build_loss("bce_rmi_paper", num_classes=4)
    rmi = loss.terms()["rmi"]
    expected = gradient(published_rmi(logits, target), logits)
    torch.testing.assert_close(gradient(rmi(logits, target), logits), expected)
    bce = F.binary_cross_entropy_with_logits(
        logits, F.one_hot(target, 4).movedim(-1, 1).to(logits.dtype)
    )
    whole = gradient(0.5 * bce + 0.5 * published_rmi(logits, target), logits)
    torch.testing.assert_close(gradient(loss(logits, target), logits), whole)


def test_absent_classes_take_part_in_the_published_mean() -> None:
    """Three of four classes are present, so theirs is a third more where only they count."""
    logits, target = data(4)
    given = {"num_classes": 4, "pool_size": 4, "epsilon": "published"}
    every, present = (
        segtrain.build_loss("rmi", classes=classes, **given)(logits, target)
        for classes in ("all", "present")
    )
    found = gradient(present, logits)[:, :3] / gradient(every, logits)[:, :3]
    torch.testing.assert_close(found, torch.full_like(found, 4 / 3))


def test_generalized_dice_of_one_logit_has_two_classes() -> None:
    """Sudre's weights of object and background, by hand; alone, the weight would cancel."""
    logits, target = torch.randn(2, 1, 8, 8), (torch.rand(2, 8, 8) > 0.8).long()
    p, y = logits[:, 0].sigmoid(), target.float()
    above = below = torch.zeros(())
    for prediction, truth in ((1 - p, 1 - y), (p, y)):
        weight = 1 / truth.sum() ** 2
        above = above + weight * (prediction * truth).sum()
        below = below + weight * (prediction + truth).sum()
    found = segtrain.build_loss("generalized_dice", num_classes=1)(logits, target)
    torch.testing.assert_close(found, 1 - 2 * above / below)
    two = segtrain.build_loss("generalized_dice", num_classes=2)
    both = two(torch.cat([torch.zeros_like(logits), logits], 1), target)
    torch.testing.assert_close(found, both)
    plain = segtrain.build_loss("dice", num_classes=1, smooth=0.0)(logits, target)
    assert not torch.allclose(found, plain)


def test_an_object_that_is_absent_from_one_logit_keeps_a_gradient() -> None:
    logits = torch.randn(1, 1, 8, 8, requires_grad=True)
    loss = segtrain.build_loss("generalized_dice", num_classes=1)
    value = loss(logits, torch.zeros(1, 8, 8, dtype=torch.long))
    assert gradient(value, logits).abs().sum() > 0


# ------------------------------------------------- an example per class, as in GHM-C


def ghm_c(logits: Tensor, target: Tensor, bins: int) -> Tensor:
    """The sum over bins of the mean loss in each, as the authors' code has it."""
    labels = F.one_hot(target, logits.shape[1]).movedim(-1, 1).to(logits.dtype)
    norm = (logits.sigmoid() - labels).abs()
    losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    means = []
    for index in range(bins):
        low, high = index / bins, (index + 1) / bins + (index == bins - 1)
        inside = (norm >= low) & (norm < high)
        if inside.any():
            means.append(losses[inside].mean())
    return torch.stack(means).mean()


def test_ghm_of_the_paper_has_an_example_per_class() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 5, 8, 8, dtype=torch.float64, generator=generator)
    logits.requires_grad_()
    target = torch.randint(5, (2, 8, 8), generator=generator)
    loss = segtrain.build_loss("bce", num_classes=5, mining={"name": "ghm", "per_class": True})
    expected = ghm_c(logits, target, 10)
    torch.testing.assert_close(loss(logits, target), expected)
    torch.testing.assert_close(gradient(loss(logits, target), logits), gradient(expected, logits))
    plain = segtrain.build_loss("bce", num_classes=5, mining="ghm")
    assert not torch.allclose(plain(logits, target), expected)


def test_four_easy_pixels_do_not_get_the_weight_of_all_others() -> None:
    """They share a bin with the easy classes of the hard pixels."""
    target = torch.zeros(1, 64, 64, dtype=torch.long)
    logits = torch.full((1, 3, 64, 64), -6.0)  # class 0 is missed, the other two are right
    logits[0, 0, 0, :4] = 6.0
    factors = {}
    for per_class in (False, True):
        mining = {"name": "ghm", "per_class": per_class}
        loss = segtrain.build_loss("bce", num_classes=3, mining=mining)
        mean = segtrain.build_loss("bce", num_classes=3)
        slopes = []
        for one in (loss, mean):
            given = logits.clone().requires_grad_()
            slopes.append(gradient(one(given, target), given)[0, 0, 0, 0])
        factors[per_class] = float(slopes[0] / slopes[1])
    assert factors[False] > 400
    assert factors[True] < 2


def test_ghm_per_class_ignores_pixels_and_needs_a_sigmoid() -> None:
    logits, target = torch.randn(1, 3, 8, 8), torch.randint(3, (1, 8, 8))
    mining = {"name": "ghm", "per_class": True}
    loss = segtrain.build_loss("bce", num_classes=3, mining=mining)
    target[:, 4:] = 255
    torch.testing.assert_close(loss(logits, target), loss(logits[:, :, :4], target[:, :4]))
    with pytest.raises(ConfigError, match="needs a loss with a sigmoid per class"):
        segtrain.build_loss("cross_entropy", num_classes=3, mining=mining)
    criterion = segtrain.Criterion(loss)
    assert criterion.strip_rows is None
    assert torch.isfinite(criterion(torch.randn(1, 3, 4, 4), target).total)


# ------------------------------------------------- the class of rare-class sampling in the crop


def corner_dataset() -> tuple[np.ndarray, np.ndarray]:
    """An image in which class 1 fills a corner of 12 x 12 of 96 x 96 pixels."""
    target = np.zeros((96, 96), np.uint8)
    target[:12, :12] = 1
    return np.zeros((96, 96, 3), np.uint8), target


def test_more_crops_are_drawn_until_one_holds_the_class() -> None:
    image, target = corner_dataset()
    given = AugmentationConfig(crop_size=(48, 48), scale=(1.0, 1.0))
    transform = TrainTransform(LabelContract(2), given)
    shares = {}
    for wanted in (None, 1):
        held = [
            int((transform(image, target, seed, wanted)[1] == 1).sum()) >= 6 for seed in range(200)
        ]
        shares[wanted] = 1 - np.mean(held)
    assert shares[None] > 0.85  # one crop seldom holds the corner
    assert shares[1] == pytest.approx(shares[None] ** 11, abs=0.1)
    # A crop that holds it at once is the same crop.
    same = [
        torch.equal(transform(image, target, seed)[1], transform(image, target, seed, 1)[1])
        for seed in range(200)
    ]
    assert 0 < sum(same) < 200


def test_every_draw_has_the_class_it_was_made_for() -> None:
    pixels = np.array([[90, 10], [95, 5], [100, 0]] * 4)
    order = rare_class_order(pixels, temperature=1.0, seed=3)
    sampler = StepSampler(len(pixels), batch_size=4, seed=3, order=order)
    keys = [key for step in range(9) for key in sampler.keys(step, 0)]
    assert {order.class_of(key) for key in keys} == {0, 1}
    for key in keys:
        assert pixels[key[1], order.class_of(key)] > 0


@pytest.mark.parametrize("workers", [0, 2])
def test_crops_of_a_loader_hold_their_class(workers: int) -> None:
    dataset = ShapesDataset(num_train=12, size=(96, 96))
    counts = count_dataset(dataset)
    order = rare_class_order(counts.image_pixels, temperature=0.01, seed=0)
    sampler = StepSampler(12, batch_size=4, seed=0, order=order)
    given = AugmentationConfig(crop_size=(32, 32), scale=(1.0, 1.0))
    transform = TrainTransform(dataset.labels, given)
    loader = build_train_loader(dataset, transform, sampler, num_workers=workers)
    stream = iterate(loader)
    missed, plain = 0, 0
    for step in range(6):
        for key, target in zip(sampler.keys(step, 0), next(stream)["target"], strict=True):
            wanted = order.class_of(key)
            missed += not bool((target == wanted).any())
            one = TrainView(dataset, transform, 0)[key]
            assert isinstance(one, dict)
            plain += not bool((one["target"] == wanted).any())
    assert missed < plain
