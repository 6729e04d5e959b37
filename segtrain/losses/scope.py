"""Losses over the pixels of all processes: what the processes exchange, and its gradient.

Every process computes the same loss from the same numbers. Data-parallel training then averages the
gradients over the processes, each of which knows those of its own pixels only. So the gradient of
its own part is multiplied by the number of processes.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

Scope = Literal["process", "global"]
"""The pixels that a loss is computed from: those of this process, or of all processes."""


def world_size() -> int:
    """The number of processes."""
    is_one = not dist.is_available() or not dist.is_initialized()
    return 1 if is_one else dist.get_world_size()


def gathered(value: Tensor) -> Tensor:
    """The parts of all processes, one after the other.

    Shape:
        - value: ``(N, ...)``, the same in every process, any type.
        - output: ``(processes * N, ...)``, the same type.
    """
    found: Tensor = _Gathered.apply(value)
    return found


def summed(value: Tensor) -> Tensor:
    """The sum over all processes, with the shape and the type of `value`."""
    found: Tensor = _Summed.apply(value)
    return found


def averaged(value: Tensor) -> Tensor:
    """The mean over all processes, without a gradient."""
    return summed(value.detach()) / world_size()


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        ctx.length = len(value)
        # Not every backend exchanges truth values.
        sent = (value.byte() if value.dtype == torch.bool else value).contiguous()
        parts = [torch.empty_like(sent) for _ in range(world_size())]
        dist.all_gather(parts, sent)
        return torch.cat(parts).to(value.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        own = gradients[0].narrow(0, dist.get_rank() * ctx.length, ctx.length)
        return own * world_size()


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:  # noqa: ARG004
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        return gradients[0] * world_size()
