from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor

import segtrain
from segtrain.assembly.check import check_config
from segtrain.cli.compose import compose_config
from segtrain.cli.main import run_command
from segtrain.errors import ConfigError
from segtrain.losses import LOSSES, box_iou, ciou, diou, giou
from segtrain.schema.registry import Registry

LOSS_OF: dict[str, Callable[..., Tensor]] = {
    "box_iou": box_iou,
    "giou": giou,
    "diou": diou,
    "ciou": ciou,
}
every_loss = pytest.mark.parametrize("name", LOSS_OF)


def random_boxes(count: int = 50, seed: int = 0, size: float = 100.0) -> Tensor:
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(seed)).double()
    return size * torch.cat([corners.amin(1), corners.amax(1) + 0.01], 1)


# boxes (0, 0, 2, 2) and (1, 1, 3, 3): intersection 1, union 7, box around both 9, centres sqrt 2
# apart on a diagonal of sqrt 18, both square.
SHIFTED = {
    "box_iou": 6 / 7,
    "giou": 6 / 7 + 2 / 9,
    "diou": 6 / 7 + 2 / 18,
    "ciou": 6 / 7 + 2 / 18,
}
# (0, 0, 1, 1) and (3, 0, 4, 1): nothing shared, box around both 4, centres 3 apart on sqrt 17.
APART = {"box_iou": 1.0, "giou": 1 + 2 / 4, "diou": 1 + 9 / 17, "ciou": 1 + 9 / 17}
# (0, 0, 4, 2) and (0, 0, 2, 2): half is shared, no gap around, centres 1 apart on sqrt 20.
V = 4 / math.pi**2 * (math.atan(1) - math.atan(2)) ** 2
WIDER = {"box_iou": 0.5, "giou": 0.5, "diou": 0.55, "ciou": 0.55 + V**2 / (0.5 + V)}


@every_loss
@pytest.mark.parametrize(
    ("box", "target", "expected"),
    [
        ([0.0, 0, 2, 2], [1.0, 1, 3, 3], SHIFTED),
        ([0.0, 0, 1, 1], [3.0, 0, 4, 1], APART),
        ([0.0, 0, 4, 2], [0.0, 0, 2, 2], WIDER),
        ([5.0, 6, 7, 9], [5.0, 6, 7, 9], dict.fromkeys(LOSS_OF, 0.0)),
    ],
)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 2048.0])
def test_by_hand(
    name: str, box: list[float], target: list[float], expected: dict[str, float], scale: float
) -> None:
    pair = torch.tensor([box]) * scale, torch.tensor([target]) * scale
    assert LOSS_OF[name](*pair).item() == pytest.approx(expected[name], abs=1e-6)


def test_box_iou_is_the_diagonal_of_all_pairs() -> None:
    boxes, target = random_boxes(), random_boxes(seed=1)
    expected = 1 - torchvision.ops.box_iou(boxes, target).diag()
    torch.testing.assert_close(box_iou(boxes, target, reduction="none"), expected)


@every_loss
def test_reductions(name: str) -> None:
    boxes, target = random_boxes(), random_boxes(seed=1)
    values = LOSS_OF[name](boxes, target, reduction="none")
    assert values.shape == (50,)
    torch.testing.assert_close(LOSS_OF[name](boxes, target, reduction="sum"), values.sum())
    torch.testing.assert_close(LOSS_OF[name](boxes, target), values.mean())


@every_loss
def test_the_order_does_not_matter_to_the_value(name: str) -> None:
    boxes, target = random_boxes(), random_boxes(seed=1)
    torch.testing.assert_close(LOSS_OF[name](boxes, target), LOSS_OF[name](target, boxes))


@every_loss
def test_the_gradient_is_that_of_the_formula(name: str) -> None:
    def formula(boxes: Tensor, target: Tensor) -> Tensor:
        low, high = torch.maximum(boxes, target), torch.minimum(boxes, target)
        inner = (high[:, 2:] - low[:, :2]).clamp(min=0).prod(1)
        (w, h), (wt, ht) = (boxes[:, 2:] - boxes[:, :2]).T, (target[:, 2:] - target[:, :2]).T
        union = w * h + wt * ht - inner
        value, around = 1 - inner / union, low[:, 2:] - high[:, :2]
        if name == "giou":
            value = value + 1 - union / around.prod(1)
        if name in ("diou", "ciou"):
            centres = (boxes + boxes.roll(2, 1) - target - target.roll(2, 1))[:, :2] / 2
            value = value + centres.square().sum(1) / around.square().sum(1)
        if name == "ciou":
            v = 4 / math.pi**2 * ((wt / ht).atan() - (w / h).atan()) ** 2
            value = value + (v / (inner / union * -1 + 1 + v)).detach() * v
        return value.mean()

    found = []
    for loss in (LOSS_OF[name], formula):
        boxes = random_boxes().requires_grad_()
        value = loss(boxes, random_boxes(seed=1))
        value.backward()
        found.append((value.detach(), boxes.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-7, atol=1e-10)


@every_loss
def test_boxes_apart_are_drawn_together(name: str) -> None:
    boxes = torch.tensor([[0.0, 0, 1, 1]], requires_grad=True)
    LOSS_OF[name](boxes, torch.tensor([[3.0, 0, 4, 1]])).backward()
    assert boxes.grad is not None
    # A step against the gradient moves the right side, and with it the box, to the right.
    assert (boxes.grad[0, 2] < 0) == (name != "box_iou")
    assert name != "box_iou" or boxes.grad.eq(0).all()


@every_loss
@pytest.mark.parametrize("count", [0, 3])
def test_no_boxes_and_any_target(name: str, count: int) -> None:
    boxes = random_boxes(count).float().requires_grad_()
    target = torch.tensor([[1, 2, 30, 40]]).repeat(count, 1)
    value = LOSS_OF[name](boxes, target)
    value.backward()
    assert value.shape == ()
    assert (value.item() == 0) == (count == 0)
    assert boxes.grad is not None
    assert LOSS_OF[name](boxes, target, reduction="none").shape == (count,)


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    boxes, target = (random_boxes(seed=seed, size=4e4).to(dtype) for seed in (0, 1))
    leaf = boxes.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = LOSS_OF[name](leaf, target)
    value.backward()
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, LOSS_OF[name](boxes.double(), target.double()).float())
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()


@every_loss
@pytest.mark.parametrize(
    ("box", "target"),
    [
        ([5.0, 5, 5, 5], [5.0, 5, 5, 5]),
        ([5.0, 5, 5, 5], [0.0, 0, 10, 10]),
        ([5.0, 5, 9, 5], [0.0, 0, 10, 10]),
        ([0.0, 0, 10, 10], [5.0, 5, 5, 9]),
        ([0.0, 0, 0, 0], [1e4, 1e4, 1e4, 1e4]),
    ],
)
def test_a_box_without_area_is_finite(name: str, box: list[float], target: list[float]) -> None:
    boxes = torch.tensor([box], requires_grad=True)
    value = LOSS_OF[name](boxes, torch.tensor([target]))
    value.backward()
    assert value.item() == pytest.approx(0, abs=2e-3) if box == target else value > 0
    assert boxes.grad is not None
    assert torch.isfinite(boxes.grad).all()


def test_a_box_without_area_can_grow() -> None:
    boxes = torch.tensor([[5.0, 5, 5, 5]], requires_grad=True)
    box_iou(boxes, torch.tensor([[0.0, 0, 10, 10]])).backward()
    assert boxes.grad is not None
    assert (boxes.grad[0, 2:] < 0).all()
    assert (boxes.grad[0, :2] > 0).all()


@every_loss
@pytest.mark.parametrize(
    ("bend", "error", "message"),
    [
        (lambda b, t: (b[0], t), ValueError, r"boxes must be \(M, 4\), got \(4,\)"),
        (lambda b, t: (b[:, :3], t), ValueError, r"boxes must be \(M, 4\), got \(5, 3\)"),
        (lambda b, t: (b, t[:4]), ValueError, r"target must be \(5, 4\),.* got \(4, 4\)"),
        (lambda b, t: (b, t[0]), ValueError, r"target must be \(5, 4\),.* got \(4,\)"),
        (lambda b, t: (b.long(), t), TypeError, "boxes must be a floating.*got torch.int64"),
        (lambda b, t: (b, t > 1), TypeError, "target must hold numbers, got torch.bool"),
        (
            lambda b, t: (b.flip(1), t),
            ValueError,
            r"boxes must be finite with x1 <= x2 and y1 <= y2, got \[.*\] in row 0",
        ),
        (lambda b, t: (b, t.flip(1)), ValueError, "target must be finite with x1 <= x2"),
        (
            lambda b, t: (b, torch.cat([t[:4], t[4:] * math.nan])),
            ValueError,
            r"target must be finite .*, got \[nan, nan, nan, nan\] in row 4",
        ),
    ],
)
def test_a_wrong_argument_is_named(
    name: str, bend: Callable[..., Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        LOSS_OF[name](*bend(random_boxes(5), random_boxes(5, seed=1)))


@every_loss
def test_a_wrong_reduction_is_named(name: str) -> None:
    with pytest.raises(ValueError, match="reduction must be none, mean or sum, got 'max'"):
        LOSS_OF[name](random_boxes(), random_boxes(), reduction="max")


# ------------------------------------------------------------------ requested as a registered loss


@every_loss
def test_requested_by_name_the_error_explains_it(name: str) -> None:
    sentence = rf"{name} compares boxes \(M, 4\), .*segtrain.losses.{name}\(boxes, target\); .*jacc"
    whole = compose_config([])
    for ask in (
        lambda: LOSSES.get(name),
        lambda: segtrain.build_loss(name, num_classes=3),
        lambda: segtrain.build_loss("sum", num_classes=3, terms={name: {}}),
        lambda: check_config({**whole, "loss": {"name": name}}),
        lambda: check_config({**whole, "loss": {"name": "sum", "terms": {name: {}}}}),
        lambda: compose_config([f"loss={name}"]),
    ):
        with pytest.raises(ConfigError, match=sentence):
            ask()
    assert name not in segtrain.list_losses()
    assert name not in LOSSES.names()


@pytest.mark.parametrize("words", [["loss=giou"], ["-m", "loss=dice,giou"]])
def test_the_command_line_reports_it_too(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command("train", words) == 2
    error = capsys.readouterr().err
    assert error.strip().splitlines()[-1].startswith("error: giou compares boxes (M, 4)")
    assert "Traceback" not in error


def test_an_explained_name_is_free() -> None:
    things = Registry[str]("thing")
    things.explain("stone", "a stone is no thing; take a pebble")
    with pytest.raises(ConfigError, match=r"^a stone is no thing; take a pebble$"):
        things.build("stone")
    with pytest.raises(ConfigError, match=r"unknown thing 'stones'\. Known: none"):
        things.build("stones")
    things.register("stone")(lambda: "mine")
    assert things.build("stone") == "mine"
    assert things.names() == ["stone"]


def test_no_suggestion_leads_to_a_box_loss() -> None:
    with pytest.raises(ConfigError, match="unknown loss 'giuo'") as caught:
        LOSSES.get("giuo")
    assert "'giou'" not in str(caught.value)
