from __future__ import annotations

import copy
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


DECAYING = [name for name in OPTIMIZERS.names() if name not in ("rprop", "timm")]


@pytest.mark.parametrize("name", DECAYING)
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
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    scheduler = SCHEDULERS.build(spec, optimizer=optimizer, total_steps=total_steps)
    found = []
    for _ in range(total_steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


NEEDED: dict[str, dict[str, Any]] = {
    "cosine_restarts": {"T_0": 3},
    "cyclic": {"base_lr": 0.1, "max_lr": 1.0},
    "exponential": {"gamma": 0.5},
    "multi_step": {"milestones": [2, 4]},
    "step": {"step_size": 2},
}


@pytest.mark.parametrize("name", SCHEDULERS.names())
@pytest.mark.parametrize("total_steps", [1, 2, 7])
def test_every_schedule_lasts_the_budget(name: str, total_steps: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = rates({"name": name, **NEEDED.get(name, {})}, total_steps)
    assert all(rate >= 0 for rate in found)


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


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"name": "step", "step_size": 4, "gamma": 0.5}, [1.0] * 4 + [0.5] * 4 + [0.25] * 2),
        ({"name": "multi_step", "milestones": [2, 5]}, [1.0] * 2 + [0.1] * 3 + [0.01] * 5),
        ({"name": "exponential", "gamma": 0.5}, [0.5**step for step in range(10)]),
        (
            {"name": "cyclic", "base_lr": 0.2, "max_lr": 1.0, "step_size_up": 2},
            [0.2, 0.6, 1.0, 0.6] * 2 + [0.2, 0.6],
        ),
    ],
)
def test_schedules_of_torch_take_their_own_parameters(
    spec: dict[str, Any], expected: list[float]
) -> None:
    assert rates(spec) == pytest.approx(expected)


def test_a_schedule_that_needs_a_score_is_explained() -> None:
    with pytest.raises(ConfigError, match="'plateau' needs a score at every step"):
        SCHEDULERS.check("plateau")


def test_warm_up_rises_to_the_rate() -> None:
    found = rates({"name": "constant", "warmup_steps": 4})
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert found[5:] == [1.0] * 5
    found = rates({"name": "poly", "power": 1.0, "warmup_steps": 5})
    assert found[5:] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    with pytest.raises(ConfigError, match="warmup_steps"):
        rates({"name": "poly", "warmup_steps": 10})


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS.names() if name != "timm"])
def test_every_optimizer_of_torch_is_that_of_torch(name: str, linear: Segmentor) -> None:
    """One group and the defaults of torch give the same weights after three steps."""
    if name == "muon":
        pytest.skip("several optimizers")
    (cls,) = [cls for key, cls in vars(torch.optim).items() if key.lower() == name]
    schema = OPTIMIZERS.schema(name)
    given = {"lr": 0.01, **({"weight_decay": 0.1} if "weight_decay" in schema else {})}
    other = copy.deepcopy(linear)
    same = {"decay_norms_and_biases": True} if "weight_decay" in given else {}
    ours = OPTIMIZERS.build({"name": name, **given, **same}, model=linear)
    momentum = {"momentum": 0.9} if name == "sgd" else {}
    theirs = cls(other.parameters(), **given, **momentum)
    for step in range(3):
        for model, optimizer in ((linear, ours), (other, theirs)):
            generator = torch.Generator().manual_seed(step)
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()
    for mine, own in zip(linear.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, own, rtol=1e-5, atol=1e-6)


def test_own_parameters_are_checked_against_the_signature(linear: Segmentor) -> None:
    optimizer = OPTIMIZERS.build({"name": "adam", "amsgrad": True, "eps": 1e-6}, model=linear)
    assert optimizer.defaults["amsgrad"] is True
    assert optimizer.defaults["eps"] == 1e-6
    for wrong, said in (
        ({"amsgrd": True}, "did you mean 'amsgrad'"),
        ({"betas": [0.9]}, "betas must be a list of"),
        ({"betas": [0.9, 1.0]}, "betas must be from 0 to"),
        ({"fused": True}, "no parameter 'fused'"),
    ):
        with pytest.raises(ConfigError, match=said):
            OPTIMIZERS.check({"name": "adam", **wrong}, provided=("model",))
    with pytest.raises(ConfigError, match="lbfgs' evaluates the loss several times"):
        OPTIMIZERS.check("lbfgs")


class Stages(Segmentor):
    head_prefixes = ("classifier",)

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.conv1 = nn.Conv2d(3, 4, 1)
        self.layer1 = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.transition1 = nn.Conv2d(4, 4, 1)
        self.stage2 = nn.Conv2d(4, 4, 1)
        self.classifier = nn.Conv2d(4, self.num_classes, 1)


def test_layer_decay_gives_each_stage_its_rate() -> None:
    spec = {"name": "adamw", "lr": 1.0, "layer_decay": 0.5, "head_lr_factor": 3.0}
    found = {name: rate for name, (rate, _) in groups(spec, Stages(num_classes=2)).items()}
    assert found["conv1.weight"] == found["conv1.bias"] == 0.125
    assert found["layer1.0.weight"] == found["layer1.1.bias"] == 0.25
    assert found["transition1.weight"] == found["stage2.weight"] == 0.5
    assert found["classifier.weight"] == 3.0


@pytest.mark.parametrize(
    ("model", "stages"),
    [
        ({"name": "hrnet_w18_small_v1"}, 4),
        ({"name": "encoder_decoder", "backbone": "torchvision/resnet18", "head": "fcn"}, 4),
        ({"name": "encoder_decoder", "backbone": "timm/convnext_atto", "head": "fcn"}, 4),
        ({"name": "encoder_decoder", "backbone": "timm/vit_tiny_patch16_224", "head": "fcn"}, 12),
        ({"name": "smp", "arch": "unet", "encoder": "resnet18"}, 4),
        ({"name": "fcn_resnet50"}, 4),
    ],
)
def test_layer_decay_of_real_backbones(model: dict[str, Any], stages: int) -> None:
    pytest.importorskip("timm")
    pytest.importorskip("segmentation_models_pytorch")
    built = MODELS.build(model, num_classes=3)
    found = groups({"name": "sgd", "lr": 1.0, "layer_decay": 0.5}, built)
    assert {rate for rate, _ in found.values()} == {0.5**power for power in range(stages + 2)}


def test_layer_decay_without_stages_is_refused(linear: Segmentor) -> None:
    with pytest.raises(ConfigError, match="needs a backbone with stages"):
        OPTIMIZERS.build({"name": "sgd", "layer_decay": 0.5}, model=linear)
