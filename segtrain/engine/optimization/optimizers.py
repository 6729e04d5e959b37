"""The optimizers of torch, with parameter groups for the parts of a model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING
from typing import Annotated, Any

import torch

from segtrain.engine.optimization.groups import Rates, parameter_groups
from segtrain.engine.optimization.signatures import ABOVE_ZERO, own_parameters
from segtrain.models import Segmentor
from segtrain.schema.ranges import Range
from segtrain.schema.registry import Registry
from segtrain.schema.signatures import set_signature
from segtrain.schema.values import Parameter, parameters

OPTIMIZERS: Registry[torch.optim.Optimizer] = Registry("optimizer")

# How torch computes a step, not what it computes.
_FUSED_IF_SHARDED = ("adam", "adamw")  # torch has no fused kernels of others for sharded parameters
IMPLEMENTATION = ("params", "foreach", "fused", "maximize", "differentiable", "capturable")
_OTHER_DEFAULTS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4},
    "adamw": {"lr": 3e-3},
}
_NOT_OFFERED = {
    "lbfgs": "the optimizer 'lbfgs' evaluates the loss several times per step, which a trainer of"
    " mini-batches does not do; choose adamw or sgd",
    "sparseadam": "the optimizer 'sparseadam' is for sparse gradients, which no layer of a"
    " segmentation model has; choose adam",
}
MODEL = Parameter("model", Segmentor, MISSING)
LAYER_DECAY = Annotated[float, Range(0, 1, open_low=True)]
_OF_GROUPS = (
    Parameter("head_lr_factor", Annotated[float, ABOVE_ZERO], 1.0),
    Parameter("layer_decay", LAYER_DECAY, 1.0),
    Parameter("decay_norms_and_biases", bool, False),
)


def optimizer_parameters(
    cls: type[torch.optim.Optimizer], defaults: Mapping[str, Any]
) -> dict[str, Parameter]:
    """The parameters of an optimizer in a config: its own, and those of the parameter groups."""
    own = own_parameters(cls, IMPLEMENTATION, defaults)
    of_groups = _OF_GROUPS if "weight_decay" in own else _OF_GROUPS[:-1]
    return {**own, **{one.name: one for one in of_groups}}


def split_rates(
    given: Mapping[str, Any], known: Mapping[str, Parameter]
) -> tuple[Rates, dict[str, Any]]:
    """Split the parameters of a config, and the defaults, into rates and the optimizer's own."""
    values = {**{name: one.default for name, one in known.items()}, **given}
    own = {name: value for name, value in values.items() if name not in Rates._fields}
    rates = {name: values[name] for name in Rates._fields if name in values}
    return Rates(**{"weight_decay": 0.0, **rates}), own


def _factory(cls: Any, name: str) -> Callable[..., torch.optim.Optimizer]:
    known = optimizer_parameters(cls, _OTHER_DEFAULTS.get(name, {}))

    def build(*, model: Segmentor, **given: Any) -> torch.optim.Optimizer:
        rates, own = split_rates(given, known)
        is_sharded = any(hasattr(one, "to_local") for one in model.parameters())
        if "fused" in parameters(cls) and (not is_sharded or name in _FUSED_IF_SHARDED):
            own["fused"] = True
        built: torch.optim.Optimizer = cls(parameter_groups(model, rates), lr=rates.lr, **own)
        return built

    build.__doc__ = f"torch.optim.{cls.__name__}, with parameter groups."
    set_signature(build, {"model": MODEL, **known})
    return build


def _register_all() -> None:
    for cls in vars(torch.optim).values():
        if not inspect.isclass(cls) or not issubclass(cls, torch.optim.Optimizer):
            continue
        name = cls.__name__.lower()
        if cls is torch.optim.Optimizer or name in (*_NOT_OFFERED, "muon"):
            continue
        OPTIMIZERS.register(name)(_factory(cls, name))
    for name, message in _NOT_OFFERED.items():
        OPTIMIZERS.explain(name, message)


_register_all()
