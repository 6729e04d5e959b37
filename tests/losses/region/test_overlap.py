from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import segtrain
from segtrain.errors import ConfigError
from segtrain.losses import (
    LOSSES,
    Dice,
    FocalTversky,
    GeneralizedDice,
    LovaszSoftmax,
    RegionLoss,
)

Formula = Callable[[Tensor, Tensor], Tensor]


def dice(p: Tensor, y: Tensor, s: float = 1.0, power: int = 1) -> Tensor:
    return (2 * (p * y).sum() + s) / ((p**power).sum() + y.sum() + s)


def jaccard(p: Tensor, y: Tensor, power: int = 1) -> Tensor:
    return ((p * y).sum() + 1) / ((p**power).sum() + y.sum() - (p * y).sum() + 1)


def tversky(p: Tensor, y: Tensor, alpha: float = 0.3, beta: float = 0.7) -> Tensor:
    tp, fp, fn = (p * y).sum(), (p * (1 - y)).sum(), ((1 - p) * y).sum()
    return (tp + 0.5) / (tp + alpha * fp + beta * fn + 0.5)


# The loss of one class from its probabilities and its target at the valid pixels.
FORMULAS: dict[str, tuple[dict[str, Any], Formula]] = {
    "dice": ({}, lambda p, y: 1 - dice(p, y)),
    "dice squared": ({"squared": True}, lambda p, y: 1 - dice(p, y, power=2)),
    "dice log": ({"log": True}, lambda p, y: -dice(p, y).log()),
    "jaccard": ({}, lambda p, y: 1 - jaccard(p, y)),
    "jaccard squared": ({"squared": True}, lambda p, y: 1 - jaccard(p, y, power=2)),
    "jaccard log": ({"log": True}, lambda p, y: -jaccard(p, y).log()),
    "tversky": ({}, lambda p, y: 1 - tversky(p, y)),
    "tversky log": (
        {"log": True, "alpha": 0.2, "beta": 1.5},
        lambda p, y: -tversky(p, y, 0.2, 1.5).log(),
    ),
    "focal_tversky": ({}, lambda p, y: (1 - tversky(p, y)) ** 0.75),
    "log_cosh_dice": ({}, lambda p, y: (1 - dice(p, y)).cosh().log()),
}
WEIGHTINGS = ["square", "simple", "uniform"]

every_formula = pytest.mark.parametrize("case", FORMULAS)
NAMES = ["dice", "jaccard", "tversky", "focal_tversky", "log_cosh_dice", "generalized_dice"]
every_name = pytest.mark.parametrize("name", NAMES)
averaged = pytest.mark.parametrize("name", NAMES[:-1])  # generalized_dice is one ratio


def build(name: str, num_classes: int = 4, **params: Any) -> RegionLoss:
    loss = LOSSES.build({"name": name, **params}, num_classes=num_classes, ignore_label=255)
    assert isinstance(loss, RegionLoss)
    return loss


def build_case(case: str, **params: Any) -> tuple[RegionLoss, Formula]:
    own, formula = FORMULAS[case]
    return build(case.split()[0], **own, **params), formula


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    target = torch.randint(0, 4, (2, 6, 5))
    target[0, :2] = 255
    return torch.randn(2, 4, 6, 5, dtype=torch.float64) * 2, target


@pytest.fixture
def dense() -> Tensor:
    """Independent probabilities of every class, with a few ignored pixels."""
    target = torch.rand(2, 4, 6, 5, dtype=torch.float64, generator=torch.manual_seed(1))
    target[1, 2, 3:, 2] = torch.nan
    return target


def one_hot(target: Tensor) -> tuple[Tensor, Tensor]:
    """``(N, C, H, W)`` and the mask of valid pixels."""
    valid = target != 255
    return F.one_hot(torch.where(valid, target, 0), 4).movedim(-1, 1).double(), valid


def by_class(formula: Formula, p: Tensor, y: Tensor, valid: Tensor) -> Tensor:
    return torch.stack([formula(p[:, c][valid], y[:, c][valid]) for c in range(p.shape[1])])


def log_odds(*probabilities: float) -> Tensor:
    return torch.tensor([[math.log(p), math.log(1 - p)] for p in probabilities]).T[None, :, None]


# In the batch below, class 0 has TP 3/4, FP 1/2, FN 1/4, and class 1 has TP 1/2, FP 1/4, FN 1/2.
# The squares of the probabilities add up to 13/16 for class 0 and 5/16 for class 1.
BY_HAND: list[tuple[str, dict[str, Any], float]] = [
    ("dice", {"smooth": 0.0}, 1 - (1.5 / 2.25 + 1.0 / 1.75) / 2),
    ("dice", {}, 1 - (2.5 / 3.25 + 2.0 / 2.75) / 2),
    ("dice", {"smooth": 0.0, "squared": True}, 1 - (1.5 / 1.8125 + 1.0 / 1.3125) / 2),
    ("dice", {"smooth": 0.0, "log": True}, (math.log(2.25 / 1.5) + math.log(1.75)) / 2),
    ("dice", {"smooth": 0.0, "class_weights": [1.0, 3.0]}, 1 - (1.5 / 2.25 + 3 / 1.75) / 4),
    ("jaccard", {"smooth": 0.0}, 1 - (0.75 / 1.5 + 0.5 / 1.25) / 2),
    ("jaccard", {"smooth": 0.0, "squared": True}, 1 - (0.75 / 1.0625 + 0.5 / 0.8125) / 2),
    ("tversky", {"smooth": 0.0}, 1 - (0.75 / 1.075 + 0.5 / 0.925) / 2),
    ("tversky", {"smooth": 2.0}, 1 - (1.75 / 2.075 + 1.5 / 1.925) / 2),
    ("tversky", {"smooth": 0.0, "alpha": 1.0, "beta": 0.0}, 1 - (0.75 / 1.25 + 0.5 / 0.75) / 2),
    ("focal_tversky", {"smooth": 0.0}, ((0.325 / 1.075) ** 0.75 + (0.425 / 0.925) ** 0.75) / 2),
    (
        "log_cosh_dice",
        {"smooth": 0.0},
        (math.log(math.cosh(1 / 3)) + math.log(math.cosh(3 / 7))) / 2,
    ),
    ("generalized_dice", {}, 1 - 2.5 / 4),  # one pixel each, so all weights are 1
    # 1 - 2 (3/4 + 3/2) / (1.25 + 1 + 3 (0.75 + 1))
    ("generalized_dice", {"class_weights": [1.0, 3.0]}, 1 - 4.5 / 7.5),
]


@pytest.mark.parametrize(("name", "params", "expected"), BY_HAND)
def test_by_hand(name: str, params: dict[str, Any], expected: float) -> None:
    logits, target = log_odds(0.75, 0.5, 0.1), torch.tensor([[[0, 1, 255]]])
    loss = build(name, num_classes=2, **params)
    assert loss(logits, target).item() == pytest.approx(expected)


@every_formula
@pytest.mark.parametrize("per_image", [False, True])
def test_sums_over_pixels(case: str, per_image: bool, batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch
    p, (y, valid) = logits.softmax(1), one_hot(target)
    loss, formula = build_case(case, per_image=per_image)
    groups = [slice(0, 1), slice(1, 2)] if per_image else [slice(None)]
    parts = [by_class(formula, p[n], y[n], valid[n]).mean() for n in groups]
    torch.testing.assert_close(loss(logits, target), torch.stack(parts).mean())


@every_formula
def test_one_binary_label_per_class(case: str, batch: tuple[Tensor, Tensor], dense: Tensor) -> None:
    logits, valid = batch[0], ~dense.isnan().any(1)
    loss, formula = build_case(case, activation="sigmoid")
    multi_hot = torch.where(dense.isnan(), dense, (dense > 0.4).double())
    for target in (dense, multi_hot):
        expected = by_class(formula, logits.sigmoid(), target, valid).mean()
        torch.testing.assert_close(loss(logits, target), expected)


@every_name
def test_class_ids_are_one_hot_probabilities(name: str, batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch
    y, valid = one_hot(target)
    soft = torch.where(valid[:, None], y, torch.nan)
    torch.testing.assert_close(build(name)(logits, soft), build(name)(logits, target))


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("per_image", [False, True])
def test_one_ratio(weighting: str, per_image: bool, batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch
    p, (y, valid) = logits.softmax(1), one_hot(target)
    power = {"square": 2, "simple": 1, "uniform": 0}[weighting]

    def direct(p: Tensor, y: Tensor, v: Tensor) -> Tensor:
        p, y = p.movedim(1, -1)[v], y.movedim(1, -1)[v]
        w = 1 / y.sum(0) ** power
        return 1 - 2 * (w * (p * y).sum(0)).sum() / (w * (p + y).sum(0)).sum()

    groups = [slice(0, 1), slice(1, 2)] if per_image else [slice(None)]
    expected = torch.stack([direct(p[n], y[n], valid[n]) for n in groups]).mean()
    loss = build("generalized_dice", weighting=weighting, per_image=per_image)
    torch.testing.assert_close(loss(logits, target), expected)


@every_name
@pytest.mark.parametrize(("activation", "soft"), [("softmax", False), ("sigmoid", True)])
@pytest.mark.parametrize("per_image", [False, True])
def test_strips_change_nothing(name: str, activation: str, soft: bool, per_image: bool) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 5, 4, dtype=torch.float64) * 2
    target = torch.rand(2, 4, 13, 11).double() if soft else torch.randint(0, 4, (2, 13, 11))
    target[0, ..., :3] = torch.nan if soft else 255
    spec: dict[str, Any] = {"name": name, "activation": activation, "per_image": per_image}
    if name in ("dice", "jaccard"):
        spec["squared"] = per_image
    found = []
    for rows in (3, None):
        leaf = logits.clone().requires_grad_()
        criterion = segtrain.build_criterion(spec, num_classes=4, ignore_label=255, strip_rows=rows)
        total = criterion(leaf, target).total
        total.backward()
        found.append((total.detach(), leaf.grad))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-10)


def test_tversky_of_false_negatives_and_false_positives() -> None:
    # One positive pixel missed, or one negative pixel taken: beta and alpha in turn.
    target = torch.tensor([[[1, 1, 0, 0]]])
    missed = torch.tensor([[[[99.0, -99.0, -99.0, -99.0]]]])
    invented = torch.tensor([[[[99.0, 99.0, 99.0, -99.0]]]])
    loss = build("tversky", num_classes=1, smooth=0.0)
    assert loss(missed, target).item() == pytest.approx(0.7 / 1.7)
    assert loss(invented, target).item() == pytest.approx(0.3 / 2.3)


@pytest.mark.parametrize("gamma", [0.5, 4 / 3, 3.0, 100.0])
def test_focal_tversky_is_smooth_where_all_is_right(gamma: float) -> None:
    target = torch.tensor([[[0, 1]]])
    for scale in (5.0, 20.0, 1e4):
        leaf = (scale * F.one_hot(target, 2).movedim(-1, 1)).requires_grad_()
        value = FocalTversky(num_classes=2, gamma=gamma)(leaf, target)
        value.backward()
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()
    assert value.item() == 0
    assert leaf.grad.eq(0).all()


def test_log_cosh_of_a_small_loss_is_half_its_square() -> None:
    target = torch.tensor([[[0, 1]]])
    logits = 9.0 * F.one_hot(target, 2).movedim(-1, 1)  # p is 1 - e^-9 or so
    miss = 1 / (1 + math.exp(9))
    value = build("log_cosh_dice", num_classes=2, smooth=0.0)(logits, target).item()
    assert value == pytest.approx(miss**2 / 2, rel=1e-3)


def test_a_rare_class_has_the_weight_of_a_frequent_one() -> None:
    # 98 pixels of class 0 and 2 of class 1, of which one is missed.
    target = torch.zeros(1, 10, 10, dtype=torch.long)
    target[0, 0, :2] = 1
    logits = 99.0 * F.one_hot(target, 2).movedim(-1, 1)
    logits[0, :, 0, 1] = torch.tensor([99.0, 0.0])
    # square: w 1/98^2 and 1/4; simple: w 1/98 and 1/2; uniform: one pixel of 100 is wrong
    square = 1 - 2 * (98 / 98**2 + 1 / 4) / (197 / 98**2 + 3 / 4)
    simple = 1 - 2 * (1 + 1 / 2) / (197 / 98 + 3 / 2)
    for weighting, expected in zip(WEIGHTINGS, (square, simple, 0.01), strict=True):
        loss = build("generalized_dice", num_classes=2, weighting=weighting)
        assert loss(logits, target).item() == pytest.approx(expected)


def test_an_absent_class_has_the_weight_of_the_rarest_present_one() -> None:
    target = torch.tensor([[[0, 0, 1]]])  # A = 2, 1 and none; p is 1/3 everywhere
    logits = torch.zeros(1, 3, 1, 3)
    present = 1 - 2 * (2 / 3 / 4 + 1 / 3) / (3 / 4 + 2)
    every = 1 - 2 * (2 / 3 / 4 + 1 / 3) / (3 / 4 + 2 + 1)
    assert GeneralizedDice(num_classes=3)(logits, target).item() == pytest.approx(present)
    loss = GeneralizedDice(num_classes=3, classes="all")
    assert loss(logits, target).item() == pytest.approx(every)
    # The rarest of the classes in the mean, and one pixel if none of them is present.
    loss = GeneralizedDice(num_classes=3, classes=[0, 2])
    expected = 1 - 2 * (2 / 3 / 4) / (3 / 4 + 1 / 4)
    assert loss(logits, target).item() == pytest.approx(expected)
    loss = GeneralizedDice(num_classes=3, classes=[2])
    assert loss(logits, target).item() == pytest.approx(1)


def test_a_trace_of_a_class_has_a_finite_weight() -> None:
    leaf = torch.zeros(1, 3, 1, 2, requires_grad=True)
    target = torch.tensor([1.0, 1e-30, 0.0]).reshape(1, 3, 1, 1).expand(1, 3, 1, 2)
    value = GeneralizedDice(num_classes=3)(leaf, target)
    value.backward()
    assert leaf.grad is not None
    assert 0 < value.item() < 1
    assert torch.isfinite(leaf.grad).all()


@averaged
def test_which_classes_count(name: str, batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch[0], torch.where(batch[1] == 3, 0, batch[1])
    alone = [build(name, classes=[index])(logits, target) for index in range(4)]
    present = build(name)(logits, target)
    torch.testing.assert_close(present, torch.stack(alone[:3]).mean())
    torch.testing.assert_close(
        build(name, classes="all")(logits, target), torch.stack(alone).mean()
    )
    torch.testing.assert_close(
        build(name, classes=[1, 3])(logits, target), torch.stack(alone[1::2]).mean()
    )


@every_name
@pytest.mark.parametrize("classes", [[], [4], [-1], [0, 9]])
def test_wrong_classes(name: str, classes: list[int]) -> None:
    with pytest.raises(ConfigError, match="classes must be ids from 0 to 3"):
        build(name, classes=classes)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"classes": "presnt"}, r"unknown classes 'presnt'; did you mean 'present'\?.*list of ids"),
        ({"activation": "sofmax"}, r"unknown activation 'sofmax'; did you mean 'softmax'\?"),
    ],
)
@pytest.mark.parametrize("num_classes", [1, 3])
@pytest.mark.parametrize("kind", [Dice, LovaszSoftmax])  # a region loss and one of class maps
def test_a_misspelt_word_in_code(
    kind: type[Dice | LovaszSoftmax], num_classes: int, params: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(num_classes=num_classes, **params)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        *(
            (name, {"smooth": value}, f"smooth must be finite and not negative, got {value}")
            for name in NAMES[:-1]
            for value in (-1.0, math.inf)
        ),
        ("tversky", {"alpha": -0.5}, "alpha must be finite and not negative, got -0.5"),
        ("tversky", {"alpha": math.inf}, "alpha must be finite and not negative, got inf"),
        ("tversky", {"beta": -0.5}, "beta must be finite and not negative, got -0.5"),
        ("tversky", {"beta": math.inf}, "beta must be finite and not negative, got inf"),
        ("tversky", {"alpha": 0.0, "beta": 0.0}, "alpha and beta must not both be 0"),
        ("focal_tversky", {"alpha": -0.5}, "alpha must be finite and not negative, got -0.5"),
        ("focal_tversky", {"beta": math.inf}, "beta must be finite and not negative, got inf"),
        ("focal_tversky", {"gamma": 0.0}, "gamma must be finite and above 0, got 0"),
        ("focal_tversky", {"gamma": math.inf}, "gamma must be finite and above 0, got inf"),
        ("generalized_dice", {"weighting": "cubic"}, "weighting must be .*, got 'cubic'"),
    ],
)
def test_wrong_arguments(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(name, **params)


def test_a_wrong_weighting_in_code() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown weighting 'cubic'. Known: simple, square, uniform"
    ):
        GeneralizedDice(num_classes=2, weighting="cubic")  # type: ignore[arg-type]


@averaged
@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_one_channel(name: str, smooth: float) -> None:
    logits = torch.tensor([math.log(3.0), 0.0, 5.0]).reshape(1, 1, 1, 3)
    loss = build(name, num_classes=1, smooth=smooth)
    # TP 3/4, FP 1/2, FN 1/4
    dice, jaccard = (1.5 + smooth) / (2.25 + smooth), (0.75 + smooth) / (1.5 + smooth)
    tversky = (0.75 + smooth / 2) / (0.75 + 0.15 + 0.175 + smooth / 2)
    expected = {
        "dice": 1 - dice,
        "jaccard": 1 - jaccard,
        "tversky": 1 - tversky,
        "focal_tversky": (1 - tversky) ** 0.75,
        "log_cosh_dice": math.log(math.cosh(1 - dice)),
    }[name]
    assert loss(logits, torch.tensor([[[1, 0, 255]]])).item() == pytest.approx(expected)
    weighted = build(name, num_classes=1, smooth=smooth, class_weights=[1.0, 5.0])
    assert weighted(logits, torch.tensor([[[1, 0, 255]]])).item() == pytest.approx(expected)


@every_name
def test_a_perfect_empty_image_is_counted(name: str) -> None:
    # The sigmoid underflows to 0 in the second image, which still has valid pixels.
    logits = torch.stack([torch.zeros(1, 1, 2), torch.full((1, 1, 2), -200.0)])
    target = torch.tensor([[[1, 0]], [[0, 0]]])
    loss = build(name, num_classes=1, per_image=True)
    alone = [loss(logits[n : n + 1], target[n : n + 1]) for n in range(2)]
    assert alone[0] > 0
    torch.testing.assert_close(loss(logits, target), torch.stack(alone).mean())


@every_name
def test_an_ignored_image_is_left_out_of_the_mean(name: str, batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch[0], batch[1].clone()
    target[1] = 255
    for per_image in (True, False):
        loss = build(name, per_image=per_image)
        torch.testing.assert_close(loss(logits, target), loss(logits[:1], target[:1]))


@pytest.mark.parametrize("logit", [-1e4, -200.0, -80.0, 80.0, 1e4])
@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("case", [*FORMULAS, "generalized_dice"])
def test_no_smoothing_is_finite(case: str, logit: float, label: int) -> None:
    name = case.split()[0]
    params = FORMULAS[case][0] if case in FORMULAS else {}
    if name != "generalized_dice":
        params = {**params, "smooth": 0.0}
    leaf = torch.full((1, 1, 2, 2), logit, requires_grad=True)
    value = build(name, num_classes=1, **params)(leaf, torch.full((1, 2, 2), label))
    value.backward()
    assert torch.isfinite(value)
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()
    if logit == -1e4 and label == 0:
        assert value.item() == pytest.approx(0)
