"""The optimizers of timm."""

from __future__ import annotations

import importlib
from typing import Annotated, Any

import torch

from segtrain.engine.optimization.groups import Rates, parameter_groups
from segtrain.engine.optimization.optimizers import IMPLEMENTATION, LAYER_DECAY, OPTIMIZERS
from segtrain.engine.optimization.signatures import ABOVE_ZERO, own_parameters
from segtrain.errors import ConfigError
from segtrain.models import Segmentor
from segtrain.schema.ranges import Range
from segtrain.schema.values import check_parameters, did_you_mean

_SET_BY_GROUPS = (*IMPLEMENTATION, "lr", "weight_decay")


@OPTIMIZERS.register("timm")
def timm_optimizer(
    model: Segmentor,
    *,
    algorithm: str,
    params: dict[str, Any] | None = None,
    lr: Annotated[float, ABOVE_ZERO] = 1e-3,
    weight_decay: Annotated[float, Range(0)] = 0.01,
    head_lr_factor: Annotated[float, ABOVE_ZERO] = 1.0,
    layer_decay: LAYER_DECAY = 1.0,
    decay_norms_and_biases: bool = False,
) -> torch.optim.Optimizer:
    """An optimizer of timm over parameter groups.

    Args:
        model: The model.
        algorithm: The name in timm, such as ``lion``, ``lamb`` or ``adopt``.
        params: The optimizer's own parameters, checked against its signature.
        lr: Learning rate of the backbone.
        weight_decay: Weight decay of all parameters but norms and biases.
        head_lr_factor: Learning rate of the head divided by that of the backbone.
        layer_decay: The rate of each stage of the backbone divided by that of the next one.
        decay_norms_and_biases: Whether one-dimensional parameters decay too.

    Raises:
        ConfigError: When timm is not installed, has no such optimizer, or a parameter is wrong.
    """
    try:
        library: Any = importlib.import_module("timm.optim")
    except ImportError:
        raise ConfigError('optimizer=timm needs timm: pip install "segtrain[timm]"') from None
    names = library.list_optimizers()
    if algorithm not in names:
        hint = did_you_mean(algorithm, names)
        raise ConfigError(f"algorithm: timm has no optimizer {algorithm!r}{hint}")
    info = library.get_optimizer_info(algorithm)
    allowed = own_parameters(info.opt_class, _SET_BY_GROUPS)
    own = check_parameters(
        params or {}, allowed, where="params", owner=f"the optimizer {algorithm!r} of timm"
    )
    rates = Rates(lr, weight_decay, head_lr_factor, layer_decay, decay_norms_and_biases)
    built: torch.optim.Optimizer = info.opt_class(
        parameter_groups(model, rates), lr=lr, **{**(info.defaults or {}), **own}
    )
    return built
