from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from segtrain.metrics import ConfusionMatrix


def test_equals_a_loop() -> None:
    torch.manual_seed(0)
    prediction, target = torch.randint(0, 5, (2, 3, 8, 9))
    target[:, :2] = 255
    expected = np.zeros((5, 5), dtype=np.int64)
    for p, t in zip(prediction.flatten().tolist(), target.flatten().tolist(), strict=True):
        if t != 255:
            expected[t, p] += 1
    matrix = ConfusionMatrix(5, 255)
    matrix.update(prediction, target)
    assert matrix.matrix().tolist() == expected.tolist()
    scores = matrix.scores()
    right = expected.diagonal()
    union = expected.sum(0) + expected.sum(1) - right
    assert scores.iou == pytest.approx((right / union).tolist())
    assert scores.miou == pytest.approx((right / union).mean())
    assert scores.pixel_accuracy == pytest.approx(right.sum() / expected.sum())
    assert scores.mean_accuracy == pytest.approx((right / expected.sum(1)).mean())
    assert scores.pixels == expected.sum(1).tolist()


def test_agrees_with_the_official_code(reference: Callable[[str], Any]) -> None:
    values = reference("metrics.pt")
    prediction = torch.nn.functional.interpolate(
        values["pred"].float(), values["target"].shape[-2:], mode="bilinear", align_corners=False
    ).argmax(1)
    matrix = ConfusionMatrix(19, values["ignore_label"])
    matrix.update(prediction, values["target"])
    assert torch.equal(matrix.matrix(), values["confusion"].long())
    scores = matrix.scores()
    shown = matrix.matrix().sum(0) + matrix.matrix().sum(1) > 0
    # The official code counts a class in neither as 0; here it is undefined.
    ours = [0.0 if math.isnan(value) else value for value in scores.iou]
    assert ours == pytest.approx(values["iou"].tolist(), abs=1e-12)
    assert scores.miou * int(shown.sum()) / 19 == pytest.approx(values["mean_iou"])
    assert scores.pixel_accuracy == pytest.approx(values["pixel_acc"])
    if bool((matrix.matrix().sum(1) > 0).all()):
        assert scores.mean_accuracy == pytest.approx(values["mean_acc"])


@pytest.mark.fault("F38")
def test_absent_classes_are_undefined() -> None:
    matrix = ConfusionMatrix(4)
    matrix.update(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 2]))
    scores = matrix.scores()
    # class 1 is predicted but never there: wrong, not undefined. Class 3 is in neither.
    assert scores.iou[:3] == pytest.approx([2 / 3, 0.0, 0.0])
    assert math.isnan(scores.iou[3])
    assert scores.miou == pytest.approx(2 / 9)
    assert scores.mean_accuracy == pytest.approx((2 / 3 + 0) / 2)
    assert scores.pixel_accuracy == 0.5
    assert scores.pixels == [3, 0, 1, 0]


@pytest.mark.fault("F38")
@pytest.mark.parametrize("update", [False, True])
def test_nothing_counted(update: bool) -> None:
    matrix = ConfusionMatrix(2)
    if update:
        matrix.update(torch.tensor([0, 1]), torch.tensor([255, 255]))
    scores = matrix.scores()
    assert all(
        math.isnan(value)
        for value in (scores.miou, scores.pixel_accuracy, scores.mean_accuracy, *scores.iou)
    )
    assert scores.pixels == [0, 0]
    assert matrix.matrix().tolist() == [[0, 0], [0, 0]]


def test_updates_add_up() -> None:
    torch.manual_seed(0)
    prediction, target = torch.randint(0, 3, (2, 4, 5))
    whole, parts = ConfusionMatrix(3), ConfusionMatrix(3)
    whole.update(prediction, target)
    for p, t in zip(prediction, target, strict=True):
        parts.update(p.to(torch.uint8), t.to(torch.uint8))
    assert torch.equal(whole.matrix(), parts.matrix())
    assert whole.matrix().dtype == torch.int64


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"prediction is \(2,\) but target is \(3,\)"):
        ConfusionMatrix(2).update(torch.tensor([0, 1]), torch.tensor([0, 1, 1]))
