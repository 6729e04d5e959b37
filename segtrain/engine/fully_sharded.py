"""Fully sharded training: each process holds a part of the weights, gradients and moments.

Checkpoints hold whole tensors, so that a run goes on with or without sharding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import get_total_norm

from segtrain.engine.distributed import Processes, with_sync_batchnorm
from segtrain.engine.parallel import Parallel
from segtrain.schema.sections import TrainerConfig

MIN_PARAMETERS = 1_000_000
"""Parameters of a block that is gathered on its own."""
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class FullySharded(Parallel):
    """Each process has a part of every parameter; FSDP2 of torch gathers them where they are used.

    Large blocks, such as those of a vision transformer, are gathered one after the other while the
    model runs; all other parameters are gathered together.
    """

    def __init__(self, processes: Processes, options: TrainerConfig) -> None:
        super().__init__(processes, options)
        self._evaluated: list[FSDPModule] = []

    def place(self, model: nn.Module) -> None:
        if self.options.sync_batchnorm and self.processes.device.type == "cuda":
            with_sync_batchnorm(model)
        for block in _large_blocks(model):
            fully_shard(block)
        fully_shard(model)  # of the memory formats, it takes the contiguous one alone

    def wrap(self, model: nn.Module) -> Any:
        return model

    def averaging(self, forward: Any, *, averages: bool) -> AbstractContextManager[None]:
        forward.set_requires_gradient_sync(averages)
        return nullcontext()

    def clip(self, parameters: Sequence[Tensor]) -> Tensor:
        gradients = [one.grad for one in parameters if one.grad is not None]
        limit = self.options.clip_grad_value
        if limit:
            for gradient in gradients:
                _local(gradient).clamp_(-limit, limit)
        norm = self._norm(gradients)
        if self.options.clip_grad_norm:
            factor = (self.options.clip_grad_norm / (norm + 1e-6)).clamp(max=1)
            torch._foreach_mul_([_local(one) for one in gradients], factor)
        return norm

    def _norm(self, gradients: Sequence[Tensor]) -> Tensor:
        """The norm of the gradients, of which all processes hold parts, and of those they share."""
        sharded = [_local(one) for one in gradients if isinstance(one, DTensor)]
        shared = [one for one in gradients if not isinstance(one, DTensor)]
        square = self.processes.sum(get_total_norm(sharded).square())
        return (square + get_total_norm(shared).square()).sqrt() if shared else square.sqrt()

    def whole(self, state: Any) -> Any:
        if isinstance(state, DTensor):
            gathered = state.full_tensor()  # in every process, kept by the one that writes
            return gathered.cpu() if self.processes.is_main else None
        if isinstance(state, Mapping):
            return {key: self.whole(part) for key, part in state.items()}
        if isinstance(state, (list, tuple)):
            return type(state)(self.whole(part) for part in state)
        return state

    def parts(self, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: _part(value, own.get(name)) for name, value in state.items()}

    def moments(self, saved: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        parameters = [one for group in optimizer.param_groups for one in group["params"]]
        state = {
            index: {name: _part(value, parameters[index]) for name, value in moments.items()}
            for index, moments in saved["state"].items()
        }
        return {**saved, "state": state}

    def after_saving(self) -> None:
        for module in self._evaluated:
            module.unshard()

    @contextmanager
    def evaluating(self, model: nn.Module) -> Iterator[None]:
        # Processes may score different numbers of images, so none may wait for another's weights.
        self._evaluated = [module for module in model.modules() if isinstance(module, FSDPModule)]
        for module in self._evaluated:
            module.set_reshard_after_forward(False)
        self.after_saving()
        try:
            yield
        finally:
            sharded, self._evaluated = self._evaluated, []
            for index, module in enumerate(sharded):
                module.set_reshard_after_forward(index > 0)  # torch's default: not the root
                module.reshard()


def _large_blocks(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the large modules in lists and sequences, inner ones first."""
    for module in reversed(list(model.modules())):
        if not isinstance(module, (nn.Sequential, nn.ModuleList)):
            continue
        for block in module:
            is_large = sum(one.numel() for one in block.parameters()) >= MIN_PARAMETERS
            # The parts of a container may be called without the container itself.
            if is_large and not isinstance(block, _CONTAINERS):
                yield block


def _local(value: Tensor) -> Tensor:
    """The part of a tensor that this process holds, in the same memory."""
    return value.to_local() if isinstance(value, DTensor) else value


def _part(value: Any, own: Tensor | None) -> Any:
    if not isinstance(own, DTensor) or not isinstance(value, Tensor) or value.shape != own.shape:
        return value
    # Each process cuts out its own part, since all have read the same file.
    here = value.to(own.device)
    return distribute_tensor(here, own.device_mesh, own.placements, src_data_rank=None)
