from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import segtrain
from segtrain.errors import ConfigError
from segtrain.losses import (
    LOSSES,
    MatthewsCorrelation,
    RegionLoss,
    RegionSums,
    SensitivitySpecificity,
)

every_name = pytest.mark.parametrize("name", ["sensitivity_specificity", "mcc"])


def build(name: str, num_classes: int = 4, **params: Any) -> RegionLoss:
    loss = LOSSES.build({"name": name, **params}, num_classes=num_classes, ignore_label=255)
    assert isinstance(loss, RegionLoss)
    return loss


def direct(name: str, p: Tensor, y: Tensor) -> Tensor:
    """The loss of one class from its probabilities and its target at the valid pixels."""
    if name == "sensitivity_specificity":
        missed, invented = y * (1 - p) ** 2, (1 - y) * p**2
        return 0.05 * missed.sum() / y.sum() + 0.95 * invented.sum() / (1 - y).sum()
    # With one more right pixel of the class and of the others, and the correlation as covariance
    # over deviations, with the variance of the soft prediction as if it were hard.
    p, y = torch.cat([p, p.new_tensor([1, 0])]), torch.cat([y, y.new_tensor([1, 0])])
    covariance = (p * y).mean() - p.mean() * y.mean()
    variances = p.mean() * (1 - p.mean()) * y.mean() * (1 - y.mean())
    return 1 - covariance / variances.sqrt()


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    target = torch.randint(0, 4, (2, 6, 5))
    target[0, :2] = 255
    return torch.randn(2, 4, 6, 5, dtype=torch.float64) * 2, target


def log_odds(*probabilities: float) -> Tensor:
    return torch.tensor([[math.log(p), math.log(1 - p)] for p in probabilities]).T[None, :, None]


def test_sensitivity_and_specificity_by_hand() -> None:
    logits, target = log_odds(0.75, 0.5, 0.1), torch.tensor([[[0, 1, 255]]])
    # class 0: 1/16 of one positive, 1/4 of one negative; class 1: the other way round
    for ratio, expected in ((0.05, 5 / 32), (1.0, 5 / 32), (0.0, 5 / 32)):
        loss = SensitivitySpecificity(num_classes=2, sensitivity_ratio=ratio)
        assert loss(logits, target).item() == pytest.approx(expected)
    loss = SensitivitySpecificity(num_classes=2, sensitivity_ratio=0.2, classes=[0])
    assert loss(logits, target).item() == pytest.approx(0.2 / 16 + 0.8 / 4)
    loss = SensitivitySpecificity(num_classes=2, sensitivity_ratio=0.2, class_weights=[1.0, 3.0])
    weighted = (0.2 / 16 + 0.8 / 4 + 3 * (0.2 / 4 + 0.8 / 16)) / 4
    assert loss(logits, target).item() == pytest.approx(weighted)


def test_half_and_half_is_the_balanced_squared_error(batch: tuple[Tensor, Tensor]) -> None:
    # A class that fills half of the pixels: the mean of its squared errors.
    logits = batch[0][:, :1, :, :4]
    target = (torch.arange(48).reshape(2, 6, 4) % 2).long()
    loss = build("sensitivity_specificity", num_classes=1, sensitivity_ratio=0.5)
    expected = F.mse_loss(logits[:, 0].sigmoid(), target.double())
    torch.testing.assert_close(loss(logits, target), expected)


def test_correlation_by_hand() -> None:
    logits, target = log_odds(0.75, 0.5, 0.1), torch.tensor([[[0, 1, 255]]])
    # class 0: TP 3/4, FP 1/2, FN 1/4, TN 1/2; class 1: TP 1/2, FP 1/4, FN 1/2, TN 3/4
    plain = (0.75 * 0.5 - 0.5 * 0.25) / math.sqrt(1.25 * 1.0 * 1.0 * 0.75)
    smoothed = (1.75 * 1.5 - 0.5 * 0.25) / math.sqrt(2.25 * 2.0 * 2.0 * 1.75)
    assert MatthewsCorrelation(num_classes=2, smooth=0.0)(logits, target).item() == pytest.approx(
        1 - plain  # of both classes
    )
    assert MatthewsCorrelation(num_classes=2)(logits, target).item() == pytest.approx(1 - smoothed)


def test_correlation_of_hard_predictions_is_that_of_numbers(batch: tuple[Tensor, Tensor]) -> None:
    truth = torch.tensor([1, 1, 1, 0, 0, 0, 0, 1, 0, 0])
    for said in ([1, 1, 0, 0, 0, 1, 0, 1, 0, 0], [0, 0, 0, 1, 1, 1, 1, 0, 1, 1], truth.tolist()):
        prediction = torch.tensor(said)
        logits = (1e3 * (2.0 * prediction - 1)).reshape(1, 1, 1, 10)
        value = build("mcc", num_classes=1, smooth=0.0)(logits, truth.reshape(1, 1, 10))
        pearson = torch.corrcoef(torch.stack([truth, prediction]).double())[0, 1]
        assert value.item() == pytest.approx(1 - pearson.item(), abs=1e-6)


def test_a_guess_has_no_correlation(batch: tuple[Tensor, Tensor]) -> None:
    value = build("mcc", smooth=0.0)(torch.zeros_like(batch[0]), batch[1])
    assert value.item() == pytest.approx(1)


def test_one_channel_and_two_have_the_same_correlation(batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch[0][:, :2], batch[1].clamp(max=1)
    target = torch.where(batch[1] == 255, 255, target)
    one = build("mcc", num_classes=1)((logits[:, 1:] - logits[:, :1]), target)
    torch.testing.assert_close(one, build("mcc", num_classes=2)(logits, target))


@every_name
@pytest.mark.parametrize("per_image", [False, True])
def test_sums_over_pixels(name: str, per_image: bool, batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch
    p, valid = logits.softmax(1), target != 255
    y = F.one_hot(torch.where(valid, target, 0), 4).movedim(-1, 1).double()
    groups = [slice(0, 1), slice(1, 2)] if per_image else [slice(None)]
    values = [
        direct(name, p[n][:, c][valid[n]], y[n][:, c][valid[n]]) for n in groups for c in range(4)
    ]
    loss = build(name, per_image=per_image)
    torch.testing.assert_close(loss(logits, target), torch.stack(values).mean())


@every_name
def test_one_binary_label_per_class(name: str, batch: tuple[Tensor, Tensor]) -> None:
    logits, p = batch[0], batch[0].sigmoid()
    soft = torch.rand(logits.shape, dtype=torch.float64, generator=torch.manual_seed(1))
    soft[1, 2, 3:, 2] = torch.nan
    valid = ~soft.isnan().any(1)
    for target in (soft, torch.where(soft.isnan(), soft, (soft > 0.4).double())):
        values = [direct(name, p[:, c][valid], target[:, c][valid]) for c in range(4)]
        loss = build(name, activation="sigmoid")
        torch.testing.assert_close(loss(logits, target), torch.stack(values).mean())


@every_name
def test_class_ids_are_one_hot_probabilities(name: str, batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch
    y = F.one_hot(torch.where(target == 255, 0, target), 4).movedim(-1, 1).double()
    soft = torch.where((target == 255)[:, None], torch.nan, y)
    torch.testing.assert_close(build(name)(logits, soft), build(name)(logits, target))


@every_name
def test_which_classes_count(name: str, batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch[0], torch.where(batch[1] == 3, 0, batch[1])
    alone = [build(name, classes=[index])(logits, target) for index in range(4)]
    torch.testing.assert_close(build(name)(logits, target), torch.stack(alone[:3]).mean())
    every = build(name, classes="all")(logits, target)
    torch.testing.assert_close(every, torch.stack(alone).mean())


@every_name
def test_an_absent_class_is_pushed_down(name: str) -> None:
    values = []
    for logit in (0.0, -2.0, -30.0):
        leaf = torch.full((1, 1, 3, 3), logit, requires_grad=True)
        value = build(name, num_classes=1)(leaf, torch.zeros(1, 3, 3, dtype=torch.long))
        value.backward()
        assert leaf.grad is not None
        assert leaf.grad.gt(0).all()
        values.append(value.item())
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(0, abs=1e-6)


@every_name
@pytest.mark.parametrize("logit", [-1e4, -200.0, -80.0, 0.0, 80.0, 1e4])
@pytest.mark.parametrize("labels", [(0, 0), (0, 1), (1, 1)])
def test_the_edges_are_finite(name: str, logit: float, labels: tuple[int, int]) -> None:
    params = {"smooth": 0.0} if name == "mcc" else {}
    leaf = torch.full((1, 1, 1, 2), logit, requires_grad=True)
    value = build(name, num_classes=1, **params)(leaf, torch.tensor([[labels]]))
    value.backward()
    assert 0 <= value.item() <= 2
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()


@every_name
def test_counts_of_a_large_image_stay_in_float32(name: str) -> None:
    torch.manual_seed(0)
    y = (torch.rand(2**21, 1) < 0.1).double()
    p = (8 * y - 4 + torch.randn(2**21, 1)).sigmoid()
    rows = [(p * y).sum(0), p.sum(0), y.sum(0), y.new_tensor([2.0**21])]
    rows += [(p**2 * y).sum(0), (p**2).sum(0)]
    loss = build(name, num_classes=1)
    exact = loss.class_values(RegionSums(*rows))
    value = loss.class_values(RegionSums(*(row.float() for row in rows)))
    torch.testing.assert_close(value.double(), exact, rtol=1e-4, atol=0)


@every_name
def test_rounding_hides_no_gradient(name: str) -> None:
    # More true positives than positives, by a rounding.
    tp = torch.tensor([100.00001], requires_grad=True)
    rows = [tp, tp, torch.tensor([100.0]), torch.tensor([200.0]), tp, tp]
    value = build(name, num_classes=1).class_values(RegionSums(*rows))
    value.sum().backward()
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert tp.grad is not None
    assert tp.grad.item() < 0


@every_name
@pytest.mark.parametrize(("activation", "soft"), [("softmax", False), ("sigmoid", True)])
@pytest.mark.parametrize("per_image", [False, True])
def test_strips_change_nothing(name: str, activation: str, soft: bool, per_image: bool) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 5, 4, dtype=torch.float64) * 2
    target = torch.rand(2, 4, 13, 11).double() if soft else torch.randint(0, 4, (2, 13, 11))
    target[0, ..., :3] = torch.nan if soft else 255
    spec = {"name": name, "activation": activation, "per_image": per_image}
    found = []
    for rows in (3, None):
        leaf = logits.clone().requires_grad_()
        criterion = segtrain.build_criterion(spec, num_classes=4, ignore_label=255, strip_rows=rows)
        total = criterion(leaf, target).total
        total.backward()
        found.append((total.detach(), leaf.grad))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("sensitivity_specificity", {"sensitivity_ratio": -0.1}, "from 0 to 1, got -0.1"),
        ("sensitivity_specificity", {"sensitivity_ratio": 1.5}, "from 0 to 1, got 1.5"),
        ("mcc", {"smooth": -1.0}, "smooth must be finite and not negative, got -1"),
        ("mcc", {"smooth": math.inf}, "smooth must be finite and not negative, got inf"),
    ],
)
def test_wrong_arguments(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(name, **params)
