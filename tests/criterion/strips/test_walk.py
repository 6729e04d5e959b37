"""Strips give the value and the gradients of the whole image, in the memory of a strip."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from segtrain.criterion.criterion import Criterion
from segtrain.criterion.strips import strip_total
from segtrain.criterion.strips.batch import Batch
from segtrain.losses import (
    LOSSES,
    ClassMapLoss,
    Loss,
    MeanMining,
    PixelLoss,
    RegionLoss,
    TargetProbabilityLoss,
)
from tests.criterion.cases import CASES, build, value_and_gradient


class TestStrips:
    @pytest.mark.parametrize("align_corners", [True, False])
    @pytest.mark.parametrize(("name", "mining"), CASES)
    @pytest.mark.parametrize(
        ("source", "size"),
        [((8, 6), (32, 24)), ((7, 9), (29, 33)), ((1, 5), (17, 11)), ((23, 19), (10, 7))],
        ids=["x4", "odd", "one row", "down"],
    )
    def test_equal_the_whole(
        self,
        name: str,
        mining: str | None,
        align_corners: bool,
        source: tuple[int, int],
        size: tuple[int, int],
    ) -> None:
        torch.manual_seed(0)
        logits = torch.randn(2, 5, *source, dtype=torch.float64) * 3
        target = torch.randint(0, 5, (2, *size))
        target[0, :3] = 255
        loss = build(name, mining)
        whole = value_and_gradient(
            Criterion(loss, align_corners=align_corners, strip_rows=None), logits, target
        )
        for rows in (1, 4, 16, 100):
            criterion = Criterion(loss, align_corners=align_corners, strip_rows=rows)
            value, gradient = value_and_gradient(criterion, logits, target)
            torch.testing.assert_close(value, whole[0], atol=1e-10, rtol=0)
            # rmi solves nearly singular systems, which amplify rounding.
            atol = 1e-9 if name == "rmi" else 1e-10
            torch.testing.assert_close(gradient, whole[1], atol=atol, rtol=0)

    @pytest.mark.parametrize("rows", [None, 4])
    def test_the_whole_is_interpolation_and_loss(self, rows: int | None) -> None:
        torch.manual_seed(0)
        logits = torch.randn(1, 5, 4, 4, dtype=torch.float64)
        target = torch.randint(0, 5, (1, 16, 16))
        for align_corners in (True, False):
            upsampled = F.interpolate(
                logits, (16, 16), mode="bilinear", align_corners=align_corners
            )
            criterion = Criterion(build("dice"), align_corners=align_corners, strip_rows=rows)
            torch.testing.assert_close(
                criterion(logits, target).total, build("dice")(upsampled, target)
            )

    def test_all_ignored(self) -> None:
        target = torch.full((1, 16, 16), 255)
        for name, mining in CASES:
            value, gradient = value_and_gradient(
                Criterion(build(name, mining), strip_rows=4), torch.randn(1, 5, 4, 4), target
            )
            assert value == 0
            assert gradient.eq(0).all()

    def test_a_parameter_of_the_loss_is_trained(self) -> None:
        class Tempered(PixelLoss):
            def __init__(self, **common: Any) -> None:
                super().__init__(**common)
                self.temperature = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

            def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
                return F.cross_entropy(logits / self.temperature, target, reduction="none")

        torch.manual_seed(0)
        logits, target = torch.randn(2, 5, 4, 6).double(), torch.randint(0, 5, (2, 13, 17))
        gradients = []
        for rows in (None, 1, 4):
            loss = Tempered(num_classes=5)
            value, gradient = value_and_gradient(Criterion(loss, strip_rows=rows), logits, target)
            assert loss.temperature.grad is not None
            gradients.append((value, gradient, loss.temperature.grad))
        assert gradients[0][2] != 0
        for found in gradients[1:]:
            torch.testing.assert_close(found, gradients[0], atol=1e-10, rtol=0)

    def test_a_parameter_of_two_terms_is_counted_once(self) -> None:
        class Shared(PixelLoss):
            def __init__(self, scale: nn.Parameter, **common: Any) -> None:
                super().__init__(**common)
                self.scale = scale

            def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
                return self.scale * F.cross_entropy(logits, target, reduction="none")

        scale = nn.Parameter(torch.tensor(2.0))
        terms = [Shared(scale, num_classes=3), Shared(scale, num_classes=3)]
        logits, target = torch.zeros(1, 3, 2, 2), torch.zeros(1, 4, 4, dtype=torch.long)
        options: dict[str, Any] = {"rows": 2, "align_corners": False}
        total, _ = strip_total(logits, target, terms, weights=torch.ones(2), **options)
        total.backward()
        assert scale.grad is not None
        assert float(scale.grad) == pytest.approx(2 * math.log(3))

    @pytest.mark.parametrize("backward_inside", [True, False])
    def test_autocast_changes_nothing(self, backward_inside: bool) -> None:
        torch.manual_seed(0)
        logits, target = torch.randn(1, 5, 4, 4), torch.randint(0, 5, (1, 16, 16))
        criterion = Criterion(build("cross_entropy"), strip_rows=4)
        expected = value_and_gradient(criterion, logits, target)
        leaf = logits.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            total = criterion(leaf, target).total
            if backward_inside:
                total.backward()
        if not backward_inside:
            total.backward()
        assert torch.equal(total.detach(), expected[0])
        assert leaf.grad is not None
        assert torch.equal(leaf.grad, expected[1])

    def test_half_precision_logits(self) -> None:
        torch.manual_seed(0)
        logits = (torch.randn(1, 5, 4, 4) * 1e4).bfloat16()
        target = torch.randint(0, 5, (1, 16, 16))
        criterion = Criterion(build("cross_entropy"), strip_rows=4)
        value, gradient = value_and_gradient(criterion, logits, target)
        assert torch.equal(value, value_and_gradient(criterion, logits.float(), target)[0])
        assert gradient.dtype == torch.bfloat16

    @pytest.mark.parametrize(("name", "mining"), CASES)
    def test_the_upsampled_logits_never_exist(self, name: str, mining: str | None) -> None:
        class Largest(TorchDispatchMode):
            numel = 0

            def __torch_dispatch__(
                self, func: Any, types: Any, args: Any = (), kwargs: Any = None
            ) -> Any:
                result = func(*args, **(kwargs or {}))
                for item in result if isinstance(result, (tuple, list)) else [result]:
                    if isinstance(item, Tensor):
                        self.numel = max(self.numel, item.numel())
                return result

        logits, target = torch.randn(2, 24, 8, 8), torch.randint(0, 24, (2, 64, 64))
        full = 2 * 24 * 64 * 64
        loss = build(name, mining, num_classes=24)
        seen = {}
        for rows in (None, 4):
            with Largest() as largest:
                value_and_gradient(Criterion(loss, strip_rows=rows), logits, target)
            seen[rows] = largest.numel
        assert seen[None] >= full
        # Relaxation keeps the classes around each pixel, and random labels have nine.
        assert seen[4] <= full // (2 if name == "label_relaxation" else 16)


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", ["cross_entropy", "dice", "bce", "lovasz_softmax"])
def test_without_gradients(name: str, guard: Any) -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(1, 5, 4, 4, requires_grad=True), torch.randint(0, 5, (1, 16, 16))
    expected = Criterion(build(name), strip_rows=4)(logits, target).total.detach()
    with guard():
        total = Criterion(build(name), strip_rows=4)(logits, target).total
    assert not total.requires_grad
    torch.testing.assert_close(total, expected)


class Weighted(RegionLoss):
    """Overlap with a trained weight of the false positives."""

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.alpha = nn.Parameter(torch.tensor(0.3))

    def class_loss(self, tp: Tensor, fp: Tensor, fn: Tensor) -> Tensor:
        return 1 - (tp + 1) / (tp + self.alpha * fp + (1 - self.alpha) * fn + 1)


class Bent(TargetProbabilityLoss):
    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.alpha = nn.Parameter(torch.tensor(0.3))

    def loss_of(self, log_probability: Tensor, target: Tensor) -> Tensor:
        return -log_probability * (1 + self.alpha * target)


class Far(ClassMapLoss):
    """The error of the classes that are present; 0 without a graph for others."""

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.alpha = nn.Parameter(torch.tensor(0.3))

    def class_map_loss(self, probability: Tensor, positive: Tensor, valid: Tensor) -> Tensor:
        if not positive.any():
            return probability.new_zeros(())
        return (self.alpha * (probability - positive.to(probability.dtype)).abs()).mean()


class Tempered(MeanMining):
    """A mean with another formula, which strips must not take for the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(0.3))

    def forward(self, values: Tensor, weights: Tensor, *others: Any, **more: Any) -> Tensor:
        return (self.alpha * values).square().sum() / weights.sum()


def mined(name: str, **common: Any) -> Loss:
    loss = LOSSES.build(name, **common)
    assert isinstance(loss, PixelLoss)
    loss.mining = Tempered()
    return loss


LEARNING: dict[str, Callable[..., Loss]] = {
    "region": Weighted,
    "probability": Bent,
    "ranked probability": partial(Bent, mining="top_k"),
    "class map": Far,
    "class map of absent classes": partial(Far, classes="all"),
    "mining of a fused loss": partial(mined, "cross_entropy"),
    "mining of another": partial(mined, "bce"),
}


@pytest.mark.parametrize("kind", LEARNING)
def test_trained_parameters_have_the_same_gradient_in_strips(kind: str) -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 5, 4, 6).double(), torch.randint(0, 4, (2, 13, 17))
    found = []
    for rows in (None, 4):
        loss = LEARNING[kind](num_classes=5).double()
        value, gradient = value_and_gradient(Criterion(loss, strip_rows=rows), logits, target)
        (learned,) = loss.parameters()
        assert learned.grad is not None
        found.append((value, gradient, learned.grad))
    assert found[0][2] != 0
    torch.testing.assert_close(found[1], found[0], atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("specs", "passes"),
    [
        (["cross_entropy"], 1),
        (["cross_entropy", "focal"], 1),
        (
            [
                {
                    "name": "cross_entropy",
                    "mining": {"name": "ohem", "threshold": 1.0, "min_kept": 1},
                }
            ],
            1,
        ),
        # Too few pixels are below the threshold, so the first pass is in vain.
        (
            [
                {
                    "name": "cross_entropy",
                    "mining": {"name": "ohem", "threshold": 0.001, "min_kept": 100},
                }
            ],
            3,
        ),
        ([{"name": "focal", "mining": "top_k"}], 2),
        (["dice"], 2),
        (["cross_entropy", "dice"], 2),
        (["lovasz_softmax", "cross_entropy"], 2),
    ],
    ids=str,
)
def test_how_many_passes_the_strips_take(
    specs: list[Any], passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    strip = Batch.strip
    monkeypatch.setattr(Batch, "strip", lambda *given: seen.append(1) or strip(*given))
    losses = [LOSSES.build(spec, num_classes=5) for spec in specs]
    terms = [term for loss in losses for term in loss.terms().values()]
    logits = torch.randn(1, 5, 4, 4, requires_grad=True)
    target = torch.arange(5).repeat(52)[:256].reshape(1, 16, 16)
    options: dict[str, Any] = {"weights": torch.ones(len(terms)), "align_corners": False}
    strip_total(logits, target, terms, rows=4, **options)
    assert len(seen) == 4 * passes
