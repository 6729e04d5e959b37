"""Learning-rate schedules of torch, by name; each lasts the whole run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING
from typing import Annotated, Any

import torch
from torch.optim import lr_scheduler

from segtrain.engine.optimization.signatures import ABOVE_ZERO, own_parameters
from segtrain.errors import ConfigError
from segtrain.schema.ranges import Range
from segtrain.schema.registry import Registry
from segtrain.schema.signatures import set_signature
from segtrain.schema.values import Parameter

WarmupSteps = Annotated[int, Range(0)]

SCHEDULERS: Registry[lr_scheduler.LRScheduler] = Registry("scheduler")


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


@SCHEDULERS.register("range_test")
def range_test(
    optimizer: torch.optim.Optimizer,
    total_steps: int,
    *,
    start_factor: Annotated[float, ABOVE_ZERO] = 1e-4,
    end_factor: Annotated[float, ABOVE_ZERO] = 1e3,
) -> lr_scheduler.LRScheduler:
    """From ``lr * start_factor`` to ``lr * end_factor``, by the same factor at each step."""
    growth = (end_factor / start_factor) ** (1 / max(total_steps - 1, 1))
    return lr_scheduler.LambdaLR(optimizer, lambda step: start_factor * growth**step)


def _factory(cls: type[lr_scheduler.LRScheduler]) -> Callable[..., lr_scheduler.LRScheduler]:
    """A schedule of torch whose parameters count steps."""

    def build(
        *, optimizer: torch.optim.Optimizer, total_steps: int, warmup_steps: int = 0, **own: Any
    ) -> lr_scheduler.LRScheduler:
        return _with_warmup(optimizer, cls(optimizer, **own), warmup_steps, total_steps)

    build.__doc__ = f"torch.optim.lr_scheduler.{cls.__name__}, after the warm-up."
    known = {
        "optimizer": Parameter("optimizer", torch.optim.Optimizer, MISSING),
        "total_steps": Parameter("total_steps", int, MISSING),
        **own_parameters(cls, ("optimizer", "last_epoch", "scale_fn")),
        "warmup_steps": Parameter("warmup_steps", WarmupSteps, 0),
    }
    set_signature(build, known)
    return build


for _name, _cls in {
    "step": lr_scheduler.StepLR,
    "multi_step": lr_scheduler.MultiStepLR,
    "exponential": lr_scheduler.ExponentialLR,
    "linear": lr_scheduler.LinearLR,
    "cosine_restarts": lr_scheduler.CosineAnnealingWarmRestarts,
    "cyclic": lr_scheduler.CyclicLR,
}.items():
    SCHEDULERS.register(_name)(_factory(_cls))

SCHEDULERS.explain(
    "plateau",
    "the schedule 'plateau' needs a score at every step, which is computed at evaluations only;"
    " choose cosine or poly, or multi_step with the steps at which the learning rate falls",
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
