"""Numbers that are no numbers, ids out of range, and classes that are absent."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import segtrain
from segtrain.errors import ConfigError
from segtrain.losses import MININGS
from segtrain.metrics import METRICS, MetricCollector, build_metrics

TERMS = {"terms": {"cross_entropy": {}, "dice": {}}}
SHAPE = (2, 24, 24)


def losses(num_classes: int) -> list[str]:
    names = []
    for name in segtrain.list_losses():
        try:
            build(name, num_classes)
        except ConfigError:
            continue
        names.append(name)
    return names


def build(name: str, num_classes: int, **more: Any) -> segtrain.Loss:
    terms = TERMS if name in ("sum", "uncertainty") else {}
    return segtrain.build_loss(name, num_classes=num_classes, **terms, **more)


def target_of(loss: segtrain.Loss) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    if loss.dense == "regression":
        return torch.rand(SHAPE[0], loss.num_classes, *SHAPE[1:], generator=generator)
    return torch.randint(max(loss.num_classes, 2), SHAPE, generator=generator)


def logits_of(loss: segtrain.Loss) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(SHAPE[0], loss.num_classes, *SHAPE[1:], generator=generator)


def value_and_gradient(loss: Any, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.clone().requires_grad_()
    value = loss(logits, target)
    value = value if isinstance(value, Tensor) else value.total
    value.backward()
    assert logits.grad is not None
    return value.detach(), logits.grad


CASES = [(name, number) for number in (1, 3) for name in losses(number)]


@pytest.mark.fault("F46")
@pytest.mark.parametrize(("name", "num_classes"), CASES)
def test_nan_in_nan_out(name: str, num_classes: int) -> None:
    loss = build(name, num_classes)
    logits = logits_of(loss)
    logits[0, :, 5, 5] = math.nan
    assert torch.isnan(loss(logits, target_of(loss)))


@pytest.mark.parametrize("mining", [name for name in MININGS.names() if name != "none"])
@pytest.mark.parametrize("name", ["cross_entropy", "bce"])
def test_nan_in_nan_out_with_mining(name: str, mining: str) -> None:
    loss = build(name, 3, mining=mining)
    logits = logits_of(loss)
    logits[0, :, 5, 5] = math.nan
    assert torch.isnan(loss(logits, target_of(loss)))


PROBABILITIES = [
    metric.name
    for metric in build_metrics(METRICS.names())
    if isinstance(metric, segtrain.ProbabilityMetric)  # the others see class ids
]


@pytest.mark.fault("F49")
@pytest.mark.parametrize("metric", PROBABILITIES)
def test_nan_in_nan_out_of_a_metric(metric: str) -> None:
    collector = MetricCollector(build_metrics([metric]), class_names=["a", "b", "c"])
    logits = torch.randn(1, 3, 16, 16)
    logits[0, :, 3:5] = math.nan
    target = torch.randint(3, (1, 16, 16))
    collector.update(logits.argmax(1), target, ["a"], lambda index: [(slice(0, 16), logits[index])])
    assert math.isnan(collector.result().scores[metric].mean)


@pytest.mark.fault("F37")
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("name", "num_classes"), CASES)
def test_what_is_at_ignored_pixels_does_not_count(name: str, num_classes: int, bad: float) -> None:
    loss = build(name, num_classes)
    logits, target = logits_of(loss), target_of(loss)
    if target.dim() == 3:
        target[:, :8] = 255
    else:
        target[:, :, :8] = math.nan
    logits[:, :, :8] = 0
    expected = value_and_gradient(loss, logits, target)
    logits[:, :, :8] = bad
    found = value_and_gradient(loss, logits, target)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["dice", "cross_entropy", "lovasz_softmax", "bce"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_strips_agree(name: str, bad: float) -> None:
    """The ignored rows are more than those that a low-resolution number reaches."""
    target = torch.randint(3, (2, 64, 64))
    target[:, :32] = 255
    logits = torch.randn(2, 3, 16, 16)
    logits[:, :, :4] = bad
    values = []
    for rows in (None, 8):
        criterion = segtrain.Criterion(
            segtrain.build_loss(name, num_classes=3), align_corners=False, strip_rows=rows
        )
        values.append(value_and_gradient(criterion, logits, target))
    assert torch.isfinite(values[0][0])
    torch.testing.assert_close(values[0], values[1])


DENSE = [name for name in losses(3) if build(name, 3).dense in ("probability", "multi_hot")]


@pytest.mark.parametrize("name", DENSE)
def test_a_class_ruled_out_by_minus_infinity(name: str) -> None:
    loss = build(name, 3)
    soft = (0.25, 0.75, 0.0) if loss.dense == "probability" else (1.0, 0.0, 0.0)
    target = torch.tensor(soft).reshape(1, 3, 1, 1).expand(2, 3, 24, 24)
    logits = logits_of(loss)
    logits[:, 2] = -1e4  # a probability of exactly 0
    expected = value_and_gradient(loss, logits, target)
    logits[:, 2] = -math.inf
    value, gradient = value_and_gradient(loss, logits, target)
    torch.testing.assert_close(value, expected[0])
    assert torch.isfinite(gradient).all()
    torch.testing.assert_close(gradient[:, :2], expected[1][:, :2])


def test_cross_entropy_with_a_class_ruled_out_is_that_of_the_others() -> None:
    logits = torch.tensor([0.3, -0.7, -math.inf]).reshape(1, 3, 1, 1)
    target = torch.tensor([0.25, 0.75, 0.0]).reshape(1, 3, 1, 1)
    log_p = torch.tensor([0.3, -0.7]).log_softmax(0)
    expected = -(0.25 * log_p[0] + 0.75 * log_p[1])
    torch.testing.assert_close(build("cross_entropy", 3)(logits, target), expected)


# ------------------------------------------------- ids


@pytest.mark.fault("F31")
@pytest.mark.parametrize(
    ("prediction", "target", "error"),
    [
        ([4, 0], [1, 0], "prediction holds 4 at 1 pixels; allowed are 0 to 2"),
        ([-1, -1], [1, 0], "prediction holds -1 at 2 pixels"),
        ([1, 0], [3, 0], "target holds 3 at 1 pixels; allowed are 0 to 2 and ignore_label 255"),
        ([1, 0], [-2, 0], "target holds -2"),
    ],
)
def test_the_confusion_matrix_refuses_other_ids(
    prediction: list[int], target: list[int], error: str
) -> None:
    matrix = segtrain.ConfusionMatrix(3)
    with pytest.raises(ValueError, match=error):
        matrix.update(torch.tensor(prediction), torch.tensor(target))
    assert matrix.counts is None


def test_the_confusion_matrix_refuses_floats_and_counts_one_logit() -> None:
    with pytest.raises(TypeError, match="prediction must hold integers"):
        segtrain.ConfusionMatrix(3).update(torch.tensor([0.9]), torch.tensor([0]))
    matrix = segtrain.ConfusionMatrix(1)
    matrix.update(torch.tensor([0, 1, 1, 7]), torch.tensor([0, 1, 0, 255]))  # 7 is ignored
    assert matrix.matrix().tolist() == [[1, 1], [0, 1]]
    assert matrix.scores().iou == [0.5, 0.5]


@pytest.mark.fault("F54")
@pytest.mark.parametrize("num_classes", [1, 2])
@pytest.mark.parametrize("ignore_label", [0, 1])
def test_an_id_cannot_be_ignored(num_classes: int, ignore_label: int) -> None:
    common = {"num_classes": num_classes, "ignore_label": ignore_label}
    for make in (
        lambda: segtrain.build_loss("bce", **common),
        lambda: segtrain.ConfusionMatrix(**common),
        lambda: segtrain.LabelContract(**common),
        lambda: segtrain.build_criterion("dice", **common),
    ):
        with pytest.raises(ConfigError, match=f"ignore_label.{ignore_label} is also a class id"):
            make()


# ------------------------------------------------- listed classes that are absent


@pytest.mark.parametrize("name", ["dice", "generalized_dice", "lovasz_softmax", "tversky"])
def test_listed_classes_but_only_where_present(name: str) -> None:
    logits = torch.randn(2, 4, 8, 8)
    target = torch.randint(2, (2, 8, 8))  # classes 2 and 3 are absent
    both = build(name, 4, classes=[1, 2], only_present=True)(logits, target)
    torch.testing.assert_close(both, build(name, 4, classes=[1])(logits, target))
    value, gradient = value_and_gradient(
        build(name, 4, classes=[2, 3], only_present=True), logits, target
    )
    assert value == 0
    assert not gradient.any()


def test_generalized_dice_of_an_absent_class_alone() -> None:
    value, gradient = value_and_gradient(
        build("generalized_dice", 3, classes=[2]),
        torch.randn(1, 3, 4, 4),
        torch.zeros(1, 4, 4).long(),
    )
    assert value == 1
    assert not gradient.any()


def test_present_and_not_only_present_contradict() -> None:
    with pytest.raises(ConfigError, match="contradict; use classes=all"):
        build("dice", 3, classes="present", only_present=False)
