"""One or several processes: everything that differs between them; one process needs no launcher."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from segtrain.engine.device import choose_device
from segtrain.errors import ConfigError


@dataclass(frozen=True)
class Processes:
    """This process among those of the run.

    Attributes:
        rank: From 0 to ``world_size - 1``; rank 0 writes the run directory.
        world_size: Number of processes.
        device: The device of this process.
        control: The process group for small messages between CPUs; None: the default group.
    """

    rank: int
    world_size: int
    device: torch.device
    control: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, the process that writes."""
        return self.rank == 0

    @property
    def is_first_on_node(self) -> bool:
        """Whether this is the first process of its machine; without a launcher, every one is."""
        return self.world_size == 1 or os.environ.get("LOCAL_RANK", "0") == "0"

    def nodes(self) -> list[int]:
        """Return the number of the machine of each process; every process calls this."""
        named = self.gather(os.environ.get("GROUP_RANK") or socket.gethostname())
        known = sorted(set(named))
        return [known.index(name) for name in named]

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of `value` over all processes."""
        if self.world_size == 1:
            return value
        value = value.clone()
        dist.all_reduce(value)
        return value

    def any(self, value: int) -> int:
        """Return the largest `value` over all processes, so that all see a flag that one sets."""
        if self.world_size == 1:
            return value
        flag = torch.tensor(value)  # on the CPU, so that no step waits for a GPU
        dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self.control)
        return int(flag)

    def gather(self, value: object) -> list[Any]:
        """Return the `value` of every process, by rank; plain values and CPU tensors."""
        if self.world_size == 1:
            return [value]
        found: list[Any] = [None] * self.world_size
        dist.all_gather_object(found, value, group=self.control)
        return found

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Copy tensors of rank 0, such as running statistics, to every process."""
        if self.world_size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Average the gradients of parameters outside the wrapped model over all processes."""
        if self.world_size == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)
            parameter.grad /= self.world_size

    def wait(self) -> None:
        """Wait until every process has called this."""
        if self.world_size > 1:
            dist.barrier(group=self.control)  # on the CPU, so that it does not wait for a GPU

    def wrap(self, model: nn.Module, *, sync_batchnorm: bool) -> nn.Module:
        """Wrap `model` for training; several processes average its gradients."""
        if self.world_size == 1:
            return model
        if sync_batchnorm and self.device.type == "cuda":
            model = with_sync_batchnorm(model)
        devices = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=devices)


def with_sync_batchnorm(model: nn.Module) -> nn.Module:
    """Let the batch norms of a model average over all processes, which needs GPUs."""
    synced: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return synced


_ALONE = "start several processes with torchrun, or unset WORLD_SIZE to use one process"


def _world_size() -> int:
    """The number of processes, from the variables that ``torchrun`` sets.

    Raises:
        ConfigError: When one is missing or wrong, since the processes would wait for ever.
    """
    world_size = _variable("WORLD_SIZE", "1")
    if world_size < 1:
        raise ConfigError(f"WORLD_SIZE={world_size} must be at least 1; {_ALONE}")
    if world_size == 1:
        return 1
    needed = ("RANK", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in needed if not os.environ.get(name)]
    if missing:
        raise ConfigError(f"WORLD_SIZE={world_size}, but {missing[0]} is not set; {_ALONE}")
    rank = _variable("RANK")
    _variable("MASTER_PORT")
    if not 0 <= rank < world_size:
        raise ConfigError(
            f"RANK={rank} must be from 0 to {world_size - 1}, since WORLD_SIZE={world_size};"
            f" {_ALONE}"
        )
    return world_size


def _variable(name: str, default: str = "") -> int:
    text = os.environ.get(name, default)
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{name}={text} is not a whole number; {_ALONE}") from None


_groups = itertools.count()  # process groups that this process has entered


def _own_store() -> dict[str, Any]:
    """The store in which processes find each other if there was a process group before this one.

    torchrun keeps the store of the first group, with addresses that are gone. Restarts are counted
    alike by all processes on one machine only.
    """
    before = next(_groups)
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if os.environ.get("GROUP_WORLD_SIZE") != "1":
        restarts = "0"
    if restarts == "0" and before == 0:
        return {}
    store, rank, world_size = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
    store = dist.PrefixStore(f"restart_{restarts}_group_{before}", store)  # type: ignore[attr-defined]
    return {"store": store, "rank": rank, "world_size": world_size}


@contextmanager
def processes(device: str = "auto") -> Iterator[Processes]:
    """Enter the process group that ``torchrun`` started, or use this process alone."""
    chosen = choose_device(device)
    world_size = _world_size()
    if chosen.type == "cuda" and chosen.index is not None:  # also for tensors without an index
        torch.cuda.set_device(chosen)
    if world_size == 1:
        yield Processes(0, 1, chosen)
        return
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    dist.init_process_group(backend, **_own_store())
    try:
        control = dist.new_group(backend="gloo") if chosen.type == "cuda" else None
        yield Processes(dist.get_rank(), world_size, chosen, control)
    finally:
        dist.destroy_process_group()
