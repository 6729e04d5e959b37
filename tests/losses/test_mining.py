from __future__ import annotations

import pytest
import torch
from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.losses import MININGS, BinaryCrossEntropy, CrossEntropy, Focal, PixelLoss
from segtrain.losses.mining import MeanMining, OhemMining

PROBABILITY = torch.tensor([[[0.1, 0.9, 0.4, 0.8, 0.6, 0.2]]])
VALUES = torch.tensor([[[2.0, 0.1, 1.0, 0.2, 0.5, 9.0]]])
VALID = torch.tensor([[[True, True, True, True, True, False]]])


def ohem(threshold: float, min_kept: int) -> float:
    values = torch.where(VALID, VALUES, 0)
    mining = OhemMining(threshold=threshold, min_kept=min_kept)
    return float(mining(values, VALID.float(), VALID, PROBABILITY))


@pytest.mark.parametrize(
    ("threshold", "min_kept", "kept"),
    [
        (0.7, 1, [2.0, 1.0, 0.5]),  # three below the threshold
        (0.05, 1, [2.0]),  # the threshold keeps none: p < p_(1) = 0.4
        (0.05, 3, [2.0, 1.0, 0.5]),  # p < p_(3) = 0.8
        (0.7, 4, [2.0, 1.0, 0.5, 0.2]),  # p < p_(4) = 0.9
        (0.7, 100, [2.0, 1.0, 0.5, 0.2]),  # fewer valid: the easiest is left out
        (0.95, 100, [2.0, 1.0, 0.5, 0.2, 0.1]),  # unless it is below the threshold
        (0.6, 1, [2.0, 1.0]),  # strictly below
    ],
)
def test_kept_pixels_by_hand(threshold: float, min_kept: int, kept: list[float]) -> None:
    assert ohem(threshold, min_kept) == pytest.approx(sum(kept) / len(kept))


def test_mean_by_hand() -> None:
    weights = torch.tensor([[[1.0, 2.0, 0.0]]])
    values = torch.tensor([[[3.0, 2 * 6.0, 0.0]]])
    assert float(MeanMining()(values, weights, weights > 0)) == pytest.approx(15 / 3)


def test_class_weights_do_not_divide_under_ohem() -> None:
    logits, target = torch.zeros(1, 2, 1, 3), torch.tensor([[[0, 1, 1]]])
    mining = {"name": "ohem", "threshold": 0.7, "min_kept": 1}
    loss = CrossEntropy(num_classes=2, class_weights=[1.0, 4.0], mining=mining)
    assert loss(logits, target).item() == pytest.approx(3 * 0.6931472)


def test_ohem_equals_a_sort() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 5, 9, 8) * 2, torch.randint(0, 5, (2, 9, 8))
    target[0, :3] = 255
    valid = target != 255
    for min_kept in (1, 20, 60, 500):
        for threshold in (0.01, 0.3, 0.9):
            mining = {"name": "ohem", "threshold": threshold, "min_kept": min_kept}
            log_p = logits.log_softmax(1).gather(1, torch.where(valid, target, 0)[:, None])[:, 0]
            log_p = log_p[valid].sort().values
            limit = max(float(log_p.exp()[min(min_kept, len(log_p) - 1)]), threshold)
            expected = -log_p[log_p.exp() < limit].mean()
            value = CrossEntropy(num_classes=5, mining=mining)(logits, target)
            torch.testing.assert_close(value, expected)


def test_path_of_the_devices_agrees_with_the_path_of_the_cpu() -> None:
    mining = OhemMining(threshold=0.3, min_kept=2)
    hardness = torch.where(VALID, PROBABILITY, torch.inf).flatten()
    rank = (VALID.sum() - 1).clamp(0, 2)
    sorted_limit = hardness.sort().values.gather(0, rank[None])[0].clamp(min=0.3)
    assert torch.equal(mining._limit(hardness, VALID), sorted_limit)


def test_no_gradient_through_the_choice() -> None:
    leaf = torch.randn(1, 3, 4, 4, dtype=torch.float64).requires_grad_()
    target = torch.zeros(1, 4, 4, dtype=torch.long)
    loss = CrossEntropy(num_classes=3, mining={"name": "ohem", "threshold": 0.2, "min_kept": 4})
    loss(leaf, target).backward()
    assert leaf.grad is not None
    assert int((leaf.grad != 0).any(1).sum()) == 4


@pytest.mark.parametrize("loss", [CrossEntropy, Focal, BinaryCrossEntropy])
def test_any_pixel_loss_composes(loss: type[PixelLoss]) -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 4, 4))
    hard = loss(num_classes=3, mining={"name": "ohem", "threshold": 0.01, "min_kept": 4})
    values = loss(num_classes=3).pixel_loss(logits, target)
    probability = loss(num_classes=3).target_probability(logits, target)
    order = probability.flatten().argsort()[:4]
    torch.testing.assert_close(hard(logits, target), values.flatten()[order].mean())


def test_one_channel_is_mined_by_its_sigmoid() -> None:
    logits = torch.tensor([3.0, -3.0, 0.5]).reshape(1, 1, 1, 3)
    target = torch.tensor([[[1, 1, 0]]])
    mining = {"name": "ohem", "threshold": 0.01, "min_kept": 1}
    loss = BinaryCrossEntropy(num_classes=1, mining=mining)
    expected = torch.nn.functional.softplus(torch.tensor(3.0))  # the second pixel
    torch.testing.assert_close(loss(logits, target), expected)

    class Plain(PixelLoss):
        def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
            return (logits[:, 0] - target).abs()

    assert Plain(num_classes=1, mining=mining)(logits, target).item() == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "ohem", "threshold": 0.0}, "mining.threshold must be above 0 and at most 1"),
        ({"name": "ohem", "threshold": 1.5}, "mining.threshold must be above 0 and at most 1"),
        ({"name": "ohem", "min_kept": 0}, "mining.min_kept must be at least 1, got 0"),
        ({"name": "ohem", "thres": 0.5}, "has no parameter 'thres'; did you mean 'threshold'"),
        ("ohm", "unknown mining 'ohm'; did you mean 'ohem'"),
    ],
)
def test_wrong_mining(spec: str | dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CrossEntropy(num_classes=2, mining=spec)


def test_none_is_the_mean() -> None:
    assert isinstance(MININGS.build("none"), MeanMining)
    assert isinstance(CrossEntropy(num_classes=2).mining, MeanMining)
    assert repr(OhemMining()) == "OhemMining(threshold=0.7, min_kept=100000)"
