"""Devices without float64, such as MPS: losses, metrics and the step use none there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import segtrain
from segtrain import precision
from segtrain.metrics import METRICS, MetricCollector, build_metrics
from tests.cases.test_numbers import build, losses, target_of


class NoFloat64(TorchDispatchMode):
    """Raises on every float64 tensor, until something was moved to the CPU on purpose."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, Tensor) and leaf.dtype == torch.float64 and not self.moved:
                raise TypeError(f"{func} makes a float64 tensor on a device that has none")
        return found


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> NoFloat64:
    """A device without float64: the CPU, where nothing counts as the CPU until it is moved."""
    mode = NoFloat64()

    def move(tensor: Tensor) -> Tensor:
        mode.moved = True
        return tensor

    monkeypatch.setattr(precision, "WITHOUT_FLOAT64", ("cpu",))
    monkeypatch.setattr(precision, "on_cpu", move)
    return mode


CASES = [(name, number) for number in (1, 3) for name in losses(number)]


@pytest.mark.parametrize(("name", "num_classes"), CASES)
def test_a_loss_without_float64_is_the_same(name: str, num_classes: int, device: NoFloat64) -> None:
    loss = build(name, num_classes)
    target = target_of(loss)
    logits = torch.randn(2, num_classes, 24, 24, generator=torch.Generator().manual_seed(1))
    given = logits.clone().requires_grad_()
    with device:
        value = loss(given, target)
        value.backward()
    precision.WITHOUT_FLOAT64 = ()  # the fixture restores it
    expected = logits.clone().requires_grad_()
    wanted = loss(expected, target)
    wanted.backward()
    torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(given.grad, expected.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["cross_entropy", "dice", "ce_dice", "lovasz_softmax", "focal"])
def test_strips_without_float64(name: str, device: NoFloat64) -> None:
    criterion = segtrain.Criterion(segtrain.build_loss(name, num_classes=3), strip_rows=8)
    logits = torch.randn(2, 3, 8, 8, requires_grad=True)
    target = torch.randint(3, (2, 32, 32))
    with device:
        total = criterion(logits, target).total
        total.backward()
    precision.WITHOUT_FLOAT64 = ()
    torch.testing.assert_close(total, criterion(logits, target).total, rtol=1e-5, atol=1e-6)


def test_sums_of_a_million_pixels_are_as_precise(device: NoFloat64) -> None:
    values = torch.rand(1, 1_000_000, generator=torch.Generator().manual_seed(0))
    classes = torch.randint(3, (1, 1_000_000), generator=torch.Generator().manual_seed(1))
    with device:
        found = precision.sums_by_class(values, classes, 3)
    precision.WITHOUT_FLOAT64 = ()
    expected = precision.sums_by_class(values, classes, 3)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("metric", METRICS.names())
def test_a_metric_without_float64_is_the_same(metric: str, device: NoFloat64) -> None:
    # Metrics of masks are computed on the CPU, by SciPy.
    device.moved = isinstance(build_metrics([metric])[0], segtrain.MaskMetric)
    logits = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    target = torch.randint(3, (1, 16, 16), generator=torch.Generator().manual_seed(1))

    def score() -> float:
        collector = MetricCollector(build_metrics([metric]), class_names=["a", "b", "c"])
        collector.update(
            logits.argmax(1), target, ["a"], lambda index: [(slice(0, 16), logits[index])]
        )
        device.moved = True  # the rest is computed from what was collected, on the CPU
        return collector.result().scores[metric].mean

    with device:
        found = score()
    precision.WITHOUT_FLOAT64 = ()
    assert found == pytest.approx(score(), rel=1e-5, nan_ok=True)
