"""Metrics from counts: values by hand, and those of torchmetrics and scikit-learn's formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from segtrain.metrics import Evaluation, MetricCollector, build_metrics
from tests.metrics.conftest import IGNORE

NAMES = ["a", "b", "c", "d", "e"]
METRICS = [
    *("iou", "dice", "precision", "recall", "specificity", "mcc"),
    *("accuracy", "mean_accuracy", "fw_iou", "kappa"),
]


def evaluate(prediction: Tensor, target: Tensor, **given: object) -> Evaluation:
    given = {"class_names": NAMES, "ignore_label": IGNORE, **given}
    collector = MetricCollector(build_metrics(METRICS), **given)  # type: ignore[arg-type]
    collector.update(prediction, target, [str(n) for n in range(len(target))])
    return collector.result()


def test_by_hand() -> None:
    # class a: tp 2, fp 1, fn 1, tn 4; b: tp 1, fp 2, fn 1, tn 4; c: tp 1, fp 1, fn 2, tn 4
    target = torch.tensor([[[0, 0, 0, 1, 1, 2, 2, 2]]])
    prediction = torch.tensor([[[0, 0, 1, 1, 2, 2, 0, 1]]])
    scores = evaluate(prediction, target, class_names=["a", "b", "c"]).scores
    expected = {
        "iou": [2 / 4, 1 / 4, 1 / 4],
        "dice": [4 / 6, 2 / 5, 2 / 5],
        "precision": [2 / 3, 1 / 3, 1 / 2],
        "recall": [2 / 3, 1 / 2, 1 / 3],
        "specificity": [4 / 5, 4 / 6, 4 / 5],
        "mcc": [7 / 15, 2 / math.sqrt(3 * 2 * 6 * 5), 2 / math.sqrt(2 * 3 * 5 * 6)],
    }
    for name, values in expected.items():
        assert scores[name].per_class == pytest.approx(values)
        assert scores[name].mean == pytest.approx(sum(values) / 3)
    assert scores["iou"].micro == pytest.approx(4 / 12)
    assert scores["accuracy"].mean == 0.5
    assert scores["mean_accuracy"].mean == pytest.approx((2 / 3 + 1 / 2 + 1 / 3) / 3)
    assert scores["fw_iou"].mean == pytest.approx((3 * 2 / 4 + 2 / 4 + 3 / 4) / 8)
    chance = (3 * 3 + 2 * 3 + 3 * 2) / 64
    assert scores["kappa"].mean == pytest.approx((0.5 - chance) / (1 - chance))


@pytest.mark.fault("F38")
def test_absent_classes_are_undefined_and_left_out_of_the_mean() -> None:
    target, prediction = torch.tensor([[[0, 0, 1]]]), torch.tensor([[[0, 2, 1]]])
    scores = evaluate(prediction, target).scores
    assert scores["iou"].per_class == pytest.approx(
        [0.5, 1.0, 0.0, math.nan, math.nan], nan_ok=True
    )
    assert scores["iou"].mean == 0.5
    assert scores["recall"].per_class == pytest.approx(
        [0.5, 1.0, math.nan, math.nan, math.nan], nan_ok=True
    )
    assert scores["recall"].mean == 0.75


@pytest.mark.fault("F37")
def test_images_without_a_valid_pixel_are_undefined() -> None:
    target = torch.tensor([[[0, 1]], [[IGNORE, IGNORE]]])
    evaluation = evaluate(torch.tensor([[[0, 0]], [[0, 1]]]), target)
    assert evaluation.scores["accuracy"].per_image == 0.5
    assert evaluation.scores["iou"].per_image == 0.25
    empty = evaluate(target[1:], target[1:])
    assert all(math.isnan(score.mean) for score in empty.scores.values())
    assert empty.to_dict()["iou"]["mean"] is None


def test_classes_that_count(random_pair: tuple[Tensor, Tensor]) -> None:
    every = evaluate(*random_pair)
    some = evaluate(*random_pair, classes=["b", "d"])
    iou = every.scores["iou"].per_class
    assert some.scores["iou"].per_class == pytest.approx(iou, nan_ok=True)
    assert some.scores["iou"].mean == some.miou == pytest.approx((iou[1] + iou[3]) / 2)
    tp, fp, fn, _ = some.counts.sum(0)[:, [1, 3]].sum(1).tolist()
    assert some.scores["dice"].micro == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert some.scores["accuracy"].mean == every.scores["accuracy"].mean


def test_per_image_is_the_mean_over_images(random_pair: tuple[Tensor, Tensor]) -> None:
    prediction, target = random_pair
    whole = evaluate(prediction, target)
    single = [evaluate(p[None], t[None]) for p, t in zip(prediction, target, strict=True)]
    for name in METRICS:
        mean = sum(one.scores[name].mean for one in single) / len(single)
        assert whole.scores[name].per_image == pytest.approx(mean)


def test_agrees_with_torchmetrics(random_pair: tuple[Tensor, Tensor]) -> None:
    functional = pytest.importorskip("torchmetrics.functional.classification")
    prediction, target = random_pair
    scores = evaluate(prediction, target, class_names=NAMES[:4]).scores
    given = {"num_classes": 4, "ignore_index": IGNORE}
    for name, other in (
        ("iou", "multiclass_jaccard_index"),
        ("dice", "multiclass_f1_score"),
        ("precision", "multiclass_precision"),
        ("recall", "multiclass_recall"),
        ("specificity", "multiclass_specificity"),
    ):
        function = getattr(functional, other)
        found = function(prediction, target, average="none", **given)
        assert scores[name].per_class == pytest.approx(found.tolist(), abs=1e-6)
        micro = float(function(prediction, target, average="micro", **given))
        assert scores[name].micro == pytest.approx(micro, abs=1e-6)
    for name, value in (
        ("accuracy", functional.multiclass_accuracy(prediction, target, average="micro", **given)),
        ("kappa", functional.multiclass_cohen_kappa(prediction, target, **given)),
        (
            "fw_iou",
            functional.multiclass_jaccard_index(prediction, target, average="weighted", **given),
        ),
    ):
        assert scores[name].mean == pytest.approx(float(value), abs=1e-6)
    gorodkin = functional.multiclass_matthews_corrcoef(prediction, target, **given)
    assert scores["mcc"].micro == pytest.approx(float(gorodkin), abs=1e-6)
    for index, value in enumerate(scores["mcc"].per_class):
        valid = target != IGNORE
        binary = [(side[valid] == index).int() for side in (prediction, target)]
        assert value == pytest.approx(float(functional.binary_matthews_corrcoef(*binary)), abs=1e-6)


def test_multi_label_data_agrees_with_torchmetrics() -> None:
    functional = pytest.importorskip("torchmetrics.functional.classification")
    generator = torch.Generator().manual_seed(1)
    prediction, target = torch.randint(0, 2, (2, 3, 4, 9, 11), generator=generator).unbind(0)
    evaluation = evaluate(prediction, target, class_names=NAMES[:4], multi_label=True)
    scores = evaluation.scores
    flat = [side.transpose(0, 1).reshape(4, -1).T for side in (prediction, target)]
    for name, other in (("iou", "jaccard_index"), ("dice", "f1_score"), ("recall", "recall")):
        function = getattr(functional, f"multilabel_{other}")
        found = function(*flat, num_labels=4, average="none")
        assert scores[name].per_class == pytest.approx(found.tolist(), abs=1e-6)
    accuracy = functional.multilabel_accuracy(*flat, num_labels=4, average="micro")
    assert scores["accuracy"].mean == pytest.approx(float(accuracy), abs=1e-6)
    kappas = [
        float(functional.binary_cohen_kappa(p, t))
        for p, t in zip(*(x.T for x in flat), strict=True)
    ]
    assert scores["kappa"].mean == pytest.approx(sum(kappas) / 4, abs=1e-6)
    assert evaluation.confusion is None
    target[1, :, 0] = IGNORE
    counts = evaluate(prediction, target, class_names=NAMES[:4], multi_label=True).counts
    assert counts.sum(1).tolist() == [[99] * 4, [88] * 4, [99] * 4]
