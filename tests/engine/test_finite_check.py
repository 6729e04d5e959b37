from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segtrain.engine import OPTIMIZERS
from segtrain.engine.distributed import Processes
from segtrain.engine.finite_check import (
    MAX_SKIPPED_STEPS,
    FiniteCheck,
    NonfiniteStepError,
    is_fused,
)
from segtrain.errors import NumericError
from segtrain.models import Segmentor

GOOD, NAN, INF = torch.tensor(1.0), torch.tensor(float("nan")), torch.tensor(float("inf"))
ALONE = Processes(0, 1, torch.device("cpu"))


def check(enabled: bool = False, processes: Processes = ALONE, **keywords: Any) -> FiniteCheck:
    model = nn.BatchNorm2d(2)
    optimizer = torch.optim.SGD(model.parameters(), fused=True)
    scaler = torch.amp.GradScaler("cpu", enabled=enabled)
    return FiniteCheck(model, optimizer, scaler, processes, **keywords)


def losses(loss: Tensor = GOOD, norm: Tensor = GOOD, **terms: Tensor) -> dict[str, Tensor]:
    return {"loss": loss, **terms, "grad_norm": norm}


@pytest.mark.fault("F46")
@pytest.mark.parametrize("bad", [NAN, INF])
@pytest.mark.parametrize("place", ["loss", "grad_norm"])
def test_a_step_that_is_not_finite_ends_the_run(bad: Tensor, place: str) -> None:
    assert check().watch(7, losses())
    with pytest.raises(NonfiniteStepError, match="NaN or infinite at step 7"):
        check().watch(7, {**losses(), place: bad})


def test_terms_and_files_are_named() -> None:
    batch: Any = {"images": torch.zeros(2, 3, 4, 4), "name": ["a.png", "b.png"]}
    terms = {"out.dice": GOOD, "out.cross_entropy": NAN}
    with pytest.raises(NonfiniteStepError) as caught:
        check().watch(3, losses(NAN, NAN, **terms), [batch])
    assert str(caught.value) == (
        "the loss is (term out.cross_entropy) NaN or infinite at step 3, files: a.png, b.png"
    )
    assert caught.value.batches[0]["name"] == ["a.png", "b.png"]
    with pytest.raises(NonfiniteStepError, match="the gradient is NaN or infinite at step 3"):
        check().watch(3, losses(GOOD, INF))


class Second(Processes):
    """Process 1 of two, whose other process has a loss of NaN with a finite gradient."""

    def sum(self, value: Tensor) -> Tensor:
        return value + 1

    def gather(self, value: Any) -> list[Any]:
        first = (True, ["loss"]) if isinstance(value, tuple) else [{"name": ["far.png"]}]
        return [first, value]


@pytest.mark.fault("F46")
def test_all_processes_stop_when_one_is_not_finite() -> None:
    """Otherwise the others would wait for it for ever."""
    processes = Second(1, 2, torch.device("cpu"))
    with pytest.raises(NonfiniteStepError, match=r"at step 5 \(process 0\), files: far.png"):
        check(processes=processes).watch(5, losses(), [])


@pytest.mark.fault("F46")
@pytest.mark.parametrize("name", ["adagrad", "adam", "adamw", "sgd"])
def test_every_fused_optimizer_leaves_the_weights_alone_when_told(
    name: str, linear: Segmentor
) -> None:
    """What a GPU relies on, where nobody looks at the flag before the step."""
    model = linear
    optimizer = OPTIMIZERS.build({"name": name, "lr": 0.1}, model=model)
    assert is_fused(optimizer)
    for found, changes in ((0.0, True), (1.0, False), (0.0, True)):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, float("nan") if found else 1.0)
        before = [parameter.detach().clone() for parameter in model.parameters()]
        optimizer.found_inf = torch.tensor(found)  # type: ignore[attr-defined]
        optimizer.step()
        moved = [not torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True)]
        assert all(moved) if changes else not any(moved)
        assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("name", ["adamax", "muon", "rprop"])
def test_other_optimizers_are_waited_for(name: str, linear: Segmentor) -> None:
    optimizer = OPTIMIZERS.build(name, model=linear)
    assert not is_fused(optimizer)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    finite = FiniteCheck(linear, optimizer, scaler, ALONE)
    for parameter in linear.parameters():
        parameter.grad = torch.ones_like(parameter)
    finite.watch(1, losses())
    optimizer.step()
    with pytest.raises(NumericError, match="at step 2"):
        finite.watch(2, losses(NAN))


def test_a_skipped_step_leaves_running_statistics_alone() -> None:
    model = nn.BatchNorm2d(2)
    optimizer = torch.optim.SGD(model.parameters(), fused=True)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    finite = FiniteCheck(model, optimizer, scaler, ALONE, "skip")
    model(torch.randn(2, 2, 3, 3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    finite.before_step()
    model(torch.full((2, 2, 3, 3), float("nan")))
    assert not finite.watch(2, losses(NAN))
    assert finite.skipped == 1
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert finite.watch(3, losses())


@pytest.mark.fault("F46")
def test_many_skipped_steps_in_a_row_end_the_run() -> None:
    finite = check(on_nonfinite="skip")
    for step in range(3 * MAX_SKIPPED_STEPS):
        assert finite.watch(step, losses(NAN if step % 2 else GOOD)) == (step % 2 == 0)
    for step in range(MAX_SKIPPED_STEPS):
        finite.watch(step, losses(NAN))
    with pytest.raises(NumericError, match="26 steps in a row up to step 99 were not finite"):
        finite.watch(99, losses(NAN))


@pytest.mark.fault("F47")
def test_fp16_may_skip_single_steps() -> None:
    finite = check(enabled=True)
    for step in range(3 * MAX_SKIPPED_STEPS):
        finite.watch(step, losses(GOOD, INF if step % 2 else GOOD))
    for step in range(MAX_SKIPPED_STEPS):
        finite.watch(step, losses(GOOD, INF))
    with pytest.raises(NumericError, match="overflowed in fp16"):
        finite.watch(MAX_SKIPPED_STEPS, losses(GOOD, INF))


@pytest.mark.fault("F47")
def test_fp16_does_not_excuse_the_loss() -> None:
    with pytest.raises(NumericError, match="at step 3"):
        check(enabled=True).watch(3, losses(NAN))
