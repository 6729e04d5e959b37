from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch import nn

from segtrain.engine import OPTIMIZERS, SCHEDULERS
from segtrain.errors import ConfigError
from segtrain.models import MODELS, Segmentor


def groups(spec: dict[str, Any], model: Segmentor) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of every parameter, by name."""
    optimizer = OPTIMIZERS.build(spec, model=model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_the_head_has_its_rate_and_norms_do_not_decay(name: str, linear: Segmentor) -> None:
    spec = {"name": name, "lr": 0.1, "weight_decay": 0.01, "head_lr_factor": 10.0}
    found = groups(spec, linear)
    assert found["backbone.weight"] == (0.1, 0.01)
    assert found["backbone.bias"] == found["norm.weight"] == found["norm.bias"] == (0.1, 0.0)
    assert found["classifier.weight"] == (1.0, 0.01)
    assert found["classifier.bias"] == (1.0, 0.0)
    found = groups({**spec, "decay_norms_and_biases": True}, linear)
    assert {decay for _, decay in found.values()} == {0.01}


def test_every_parameter_of_a_real_model_is_trained_once() -> None:
    model = MODELS.build("hrnet_w18_small_v1", num_classes=3)
    assert groups({"name": "adamw"}, model).keys() == dict(model.named_parameters()).keys()


@pytest.mark.parametrize("bad", [{"lr": 0.0}, {"weight_decay": -1.0}, {"head_lr_factor": 0.0}])
def test_values_out_of_range_are_refused(bad: dict[str, float], linear: Segmentor) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        OPTIMIZERS.build({"name": "sgd", **bad}, model=linear)


def rates(spec: dict[str, Any], total_steps: int = 10) -> list[float]:
    """The learning rate at each step."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = SCHEDULERS.build(spec, optimizer=optimizer, total_steps=total_steps)
    found = []
    for _ in range(total_steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("name", SCHEDULERS.names())
@pytest.mark.parametrize("total_steps", [1, 2, 7])
def test_every_schedule_lasts_the_budget(name: str, total_steps: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(rate >= 0 for rate in rates({"name": name}, total_steps))


def test_schedules_are_their_formulas() -> None:
    steps = range(10)
    assert rates({"name": "constant"}) == [1.0] * 10
    expected = [(1 - step / 10) ** 0.9 for step in steps]
    assert rates({"name": "poly"}) == pytest.approx(expected)
    expected = [0.1 + 0.9 * (1 + math.cos(math.pi * step / 10)) / 2 for step in steps]
    assert rates({"name": "cosine", "min_lr": 0.1}) == pytest.approx(expected)
    cycle = rates({"name": "one_cycle", "pct_start": 0.3}, total_steps=1000)
    assert cycle[0] == pytest.approx(1 / 25)
    assert max(cycle) == pytest.approx(1.0, abs=1e-4)
    assert cycle.index(max(cycle)) == pytest.approx(300, abs=2)


def test_warm_up_rises_to_the_rate() -> None:
    found = rates({"name": "constant", "warmup_steps": 4})
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert found[5:] == [1.0] * 5
    found = rates({"name": "poly", "power": 1.0, "warmup_steps": 5})
    assert found[5:] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    with pytest.raises(ConfigError, match="warmup_steps"):
        rates({"name": "poly", "warmup_steps": 10})
