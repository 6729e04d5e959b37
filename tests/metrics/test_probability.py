"""Metrics of probabilities, beside torchmetrics, torch and exact ranks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from segtrain.metrics import Evaluation, MetricCollector, build_metrics
from tests.metrics.conftest import IGNORE

METRICS = ["nll", "brier", "ece", "auc"]


def evaluate(logits: Tensor, target: Tensor, *, multi_label: bool = False) -> Evaluation:
    """Score logits ``(N, C, H, W)``."""
    if multi_label:
        prediction = (logits > 0).byte()
    elif logits.shape[1] == 1:
        prediction = (logits[:, 0] > 0).long()
    else:
        prediction = logits.argmax(1)
    names = [f"class{index}" for index in range(max(logits.shape[1], 2))]
    collector = MetricCollector(
        build_metrics(METRICS), class_names=names, ignore_label=IGNORE, multi_label=multi_label
    )
    for index in range(len(target)):
        part = slice(index, index + 1)
        collector.update(
            prediction[part],
            target[part],
            [str(index)],
            lambda _, i=index: [(slice(None), logits[i])],
        )
    return collector.result()


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 4, (3, 30, 40), generator=generator)
    noise = torch.randn(3, 4, 30, 40, generator=generator)
    logits = 2 * noise + 2.5 * F.one_hot(target, 4).permute(0, 3, 1, 2)
    target[:, :4] = IGNORE
    return logits, target


def test_two_pixels_by_hand() -> None:
    logits = torch.tensor([[3.0, 1.0], [1.0, 1.0]]).log()  # p = (3/4, 1/4) and (1/2, 1/2)
    evaluation = evaluate(logits.T.reshape(1, 2, 1, 2), torch.tensor([[[0, 1]]]))
    scores = evaluation.scores
    assert scores["nll"].mean == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    assert scores["brier"].mean == pytest.approx((2 / 16 + 1 / 2) / 2)
    assert scores["auc"].per_class == [1.0, 1.0]  # the pixel of class 0 has the larger p


def test_agrees_with_torch_and_torchmetrics(batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch
    scores = evaluate(logits, target).scores
    nll = F.cross_entropy(logits, target, ignore_index=IGNORE)
    assert scores["nll"].mean == pytest.approx(float(nll), abs=1e-6)
    valid = target != IGNORE
    p = logits.double().softmax(1).permute(0, 2, 3, 1)[valid]
    one_hot = F.one_hot(target[valid], 4)
    assert scores["brier"].mean == pytest.approx(float(((p - one_hot) ** 2).sum(1).mean()))
    functional = pytest.importorskip("torchmetrics.functional.classification")
    given = {"num_classes": 4, "ignore_index": IGNORE}
    ece = functional.multiclass_calibration_error(logits, target, n_bins=15, **given)
    assert scores["ece"].mean == pytest.approx(float(ece), abs=1e-6)
    auc = functional.multiclass_auroc(logits, target, average="none", **given)
    bound = scores["auc"].error_bound
    assert bound is not None
    assert bound < 1e-3
    for value, exact in zip(scores["auc"].per_class, auc.tolist(), strict=True):
        assert abs(value - exact) <= bound + 1e-7


def test_one_logit_is_two_classes(batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch[0][:, :1], batch[1].clamp(max=IGNORE)
    binary = torch.where(target == IGNORE, IGNORE, (target > 1).long())
    one = evaluate(logits, binary).scores
    both = evaluate(torch.cat([torch.zeros_like(logits), logits], 1), binary).scores
    for name in METRICS:
        assert one[name].mean == pytest.approx(both[name].mean, abs=1e-6)
    valid = binary != IGNORE
    ranks = logits[:, 0][valid].double()
    positive, negative = ranks[binary[valid] == 1], ranks[binary[valid] == 0]
    exact = (positive[:, None] > negative[None]).double().mean()
    assert abs(one["auc"].per_class[1] - float(exact)) <= float(one["auc"].error_bound or 0)


def test_multi_label_data_is_one_problem_per_class(batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch
    labels = torch.stack([(target == index).byte() for index in range(4)], 1)
    labels.transpose(0, 1)[:, target == IGNORE] = IGNORE
    scores = evaluate(logits, labels, multi_label=True).scores
    for index in range(4):
        single = torch.where(target == IGNORE, IGNORE, (target == index).long())
        alone = evaluate(logits[:, index : index + 1], single).scores
        assert scores["nll"].per_class[index] == pytest.approx(alone["nll"].mean, abs=1e-6)
        assert scores["auc"].per_class[index] == pytest.approx(alone["auc"].per_class[1], abs=1e-9)


def test_auc_of_a_class_that_is_absent_or_everywhere() -> None:
    logits = torch.randn(1, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    scores = evaluate(logits, torch.zeros(1, 5, 5, dtype=torch.long)).scores
    assert all(math.isnan(value) for value in scores["auc"].per_class)


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([1e4, -1e4, 0.0]).reshape(1, 3, 1, 1).expand(1, 3, 2, 2)
    target = torch.tensor([[[0, 0], [1, 2]]])
    scores = evaluate(logits, target).scores
    assert scores["nll"].mean == pytest.approx((2e4 + 1e4) / 4)
    assert all(0 <= value <= 1 for value in scores["auc"].per_class)
    assert scores["ece"].mean == pytest.approx(0.5)


def test_the_value_of_each_image(batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch
    evaluation = evaluate(logits, target)
    for index in range(3):
        alone = evaluate(logits[index : index + 1], target[index : index + 1])
        for name in METRICS:
            values = evaluation.values[name][index]
            expected = alone.scores[name].per_class or alone.scores[name].mean
            assert values.tolist() == pytest.approx(expected)
