"""Optimizers and learning-rate schedules of torch, by name."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch.optim import lr_scheduler

from segtrain.errors import ConfigError
from segtrain.models import Segmentor
from segtrain.schema.ranges import Range
from segtrain.schema.registry import Registry

ABOVE_ZERO = Range(0, open_low=True)
WarmupSteps = Annotated[int, Range(0)]

OPTIMIZERS: Registry[torch.optim.Optimizer] = Registry("optimizer")
SCHEDULERS: Registry[lr_scheduler.LRScheduler] = Registry("scheduler")


def parameter_groups(
    model: Segmentor,
    *,
    lr: float,
    weight_decay: float,
    head_lr_factor: float,
    decay_norms_and_biases: bool,
) -> list[dict[str, Any]]:
    """Group the parameters of `model` by learning rate and weight decay.

    Args:
        model: The model; it tells which of its parameters belong to the head.
        lr: Learning rate of the backbone.
        weight_decay: Weight decay of all parameters, or of all but norms and biases.
        head_lr_factor: Learning rate of the head divided by that of the backbone.
        decay_norms_and_biases: Whether one-dimensional parameters decay too.
    """
    groups = []
    for part, parameters in model.parameter_groups().items():
        rate = lr * head_lr_factor if part == "head" else lr
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        decayed = [
            parameter for parameter in trained if decay_norms_and_biases or parameter.dim() > 1
        ]
        kept = {id(parameter) for parameter in decayed}
        others = [parameter for parameter in trained if id(parameter) not in kept]
        for members, decay in ((decayed, weight_decay), (others, 0.0)):
            if members:
                groups.append({"params": members, "lr": rate, "weight_decay": decay})
    return groups


@OPTIMIZERS.register("sgd")
def sgd(
    model: Segmentor,
    *,
    lr: Annotated[float, ABOVE_ZERO] = 0.01,
    momentum: Annotated[float, Range(0, 1)] = 0.9,
    nesterov: bool = False,
    weight_decay: Annotated[float, Range(0)] = 5e-4,
    head_lr_factor: Annotated[float, ABOVE_ZERO] = 1.0,
    decay_norms_and_biases: bool = False,
) -> torch.optim.Optimizer:
    """:class:`torch.optim.SGD` over :func:`parameter_groups`."""
    groups = parameter_groups(
        model,
        lr=lr,
        weight_decay=weight_decay,
        head_lr_factor=head_lr_factor,
        decay_norms_and_biases=decay_norms_and_biases,
    )
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, fused=True)


@OPTIMIZERS.register("adamw")
def adamw(
    model: Segmentor,
    *,
    lr: Annotated[float, ABOVE_ZERO] = 3e-3,
    betas: Annotated[tuple[float, float], Range(0, 1 - 1e-9)] = (0.9, 0.999),
    weight_decay: Annotated[float, Range(0)] = 0.01,
    head_lr_factor: Annotated[float, ABOVE_ZERO] = 1.0,
    decay_norms_and_biases: bool = False,
) -> torch.optim.Optimizer:
    """:class:`torch.optim.AdamW` over :func:`parameter_groups`."""
    groups = parameter_groups(
        model,
        lr=lr,
        weight_decay=weight_decay,
        head_lr_factor=head_lr_factor,
        decay_norms_and_biases=decay_norms_and_biases,
    )
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)


@SCHEDULERS.register("constant")
def constant(
    optimizer: torch.optim.Optimizer, total_steps: int, *, warmup_steps: WarmupSteps = 0
) -> lr_scheduler.LRScheduler:
    """A constant learning rate, after the warm-up."""
    main = lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=0)
    return _with_warmup(optimizer, main, warmup_steps, total_steps)


@SCHEDULERS.register("poly")
def poly(
    optimizer: torch.optim.Optimizer,
    total_steps: int,
    *,
    power: Annotated[float, ABOVE_ZERO] = 0.9,
    warmup_steps: WarmupSteps = 0,
) -> lr_scheduler.LRScheduler:
    """``lr * (1 - step / total) ** power``, the schedule of the official HRNet code."""
    main = lr_scheduler.PolynomialLR(
        optimizer, total_iters=max(total_steps - warmup_steps, 1), power=power
    )
    return _with_warmup(optimizer, main, warmup_steps, total_steps)


@SCHEDULERS.register("cosine")
def cosine(
    optimizer: torch.optim.Optimizer,
    total_steps: int,
    *,
    min_lr: Annotated[float, Range(0)] = 0.0,
    warmup_steps: WarmupSteps = 0,
) -> lr_scheduler.LRScheduler:
    """Half a cosine period from the learning rate down to `min_lr`."""
    main = lr_scheduler.CosineAnnealingLR(
        optimizer, T_max=max(total_steps - warmup_steps, 1), eta_min=min_lr
    )
    return _with_warmup(optimizer, main, warmup_steps, total_steps)


@SCHEDULERS.register("one_cycle")
def one_cycle(
    optimizer: torch.optim.Optimizer,
    total_steps: int,
    *,
    pct_start: Annotated[float, Range(0, 1 - 1e-9, open_low=True)] = 0.3,
    div_factor: Annotated[float, Range(1)] = 25.0,
    final_div_factor: Annotated[float, Range(1)] = 1e4,
) -> lr_scheduler.LRScheduler:
    """Rise from ``lr / div_factor`` over the first `pct_start` of the steps, then a cosine down."""
    return lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=total_steps + 1,  # torch counts the rate after the last step too
        pct_start=pct_start,
        div_factor=div_factor,
        final_div_factor=final_div_factor,
        cycle_momentum=False,
    )


def _with_warmup(
    optimizer: torch.optim.Optimizer,
    main: lr_scheduler.LRScheduler,
    warmup_steps: int,
    total_steps: int,
) -> lr_scheduler.LRScheduler:
    if not 0 <= warmup_steps < max(total_steps, 1):
        raise ConfigError(
            f"scheduler.warmup_steps must be from 0 to {total_steps - 1}, got {warmup_steps}"
        )
    if not warmup_steps:
        return main
    rise = lr_scheduler.LinearLR(
        optimizer, start_factor=1 / (warmup_steps + 1), total_iters=warmup_steps
    )
    return lr_scheduler.SequentialLR(optimizer, [rise, main], milestones=[warmup_steps])
