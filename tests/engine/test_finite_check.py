from __future__ import annotations

import pytest
import torch

from segtrain.engine import OPTIMIZERS
from segtrain.engine.finite_check import MAX_SKIPPED_STEPS, FiniteCheck, is_fused
from segtrain.errors import NumericError
from segtrain.models import Segmentor


def check(enabled: bool = False) -> FiniteCheck:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], fused=True)
    return FiniteCheck(optimizer, torch.amp.GradScaler("cpu", enabled=enabled))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", [0, 1])
def test_a_step_that_is_not_finite_ends_the_run(bad: float, place: int) -> None:
    values = [torch.tensor(1.0), torch.tensor(1.0)]
    check().watch(7, *values)
    values[place] = torch.tensor(bad)
    with pytest.raises(NumericError, match="at step 7; the weights are those of step 6"):
        check().watch(7, *values)


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
    check = FiniteCheck(optimizer, torch.amp.GradScaler("cpu", enabled=False))
    for parameter in linear.parameters():
        parameter.grad = torch.ones_like(parameter)
    check.watch(1, torch.tensor(1.0), torch.tensor(1.0))
    optimizer.step()
    with pytest.raises(NumericError, match="at step 2"):
        check.watch(2, torch.tensor(float("nan")), torch.tensor(1.0))


def test_fp16_may_skip_single_steps() -> None:
    finite = check(enabled=True)
    good, bad = torch.tensor(1.0), torch.tensor(float("inf"))
    for step in range(3 * MAX_SKIPPED_STEPS):
        finite.watch(step, good, bad if step % 2 else good)
    for step in range(MAX_SKIPPED_STEPS):
        finite.watch(step, good, bad)
    with pytest.raises(NumericError, match="overflowed in fp16"):
        finite.watch(MAX_SKIPPED_STEPS, good, bad)


def test_fp16_does_not_excuse_the_loss() -> None:
    with pytest.raises(NumericError, match="at step 3"):
        check(enabled=True).watch(3, torch.tensor(float("nan")), torch.tensor(1.0))
