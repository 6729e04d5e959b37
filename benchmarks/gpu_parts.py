"""Shared by the parts of ``benchmarks/gpu.py``: the time left, rows, timings and peak memory."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from segtrain.errors import is_out_of_memory

Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """The device, the time and the sizes of a part.

    Attributes:
        device: The GPU; the CPU in a dry pass.
        seconds: The time cap of the part.
        tiny: Whether this is a dry pass, at sizes that make the figures meaningless.
        started: When the part started.
    """

    device: torch.device
    seconds: float
    tiny: bool
    started: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds until the cap."""
        return self.seconds - (time.monotonic() - self.started)


Item = Callable[[Setting], Iterator[Row]]


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of a call, until the device has finished."""
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - start


def peak_mib(call: Callable[[], object], device: torch.device) -> float | None:
    """Return the peak memory that a call allocates, in MiB; None on a CPU."""
    if device.type != "cuda":
        call()
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def fits(call: Callable[[], object], device: torch.device) -> bool:
    """Run a call; return False if the device has too little memory for it."""
    try:
        call()
        synchronize(device)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    else:
        return True
    free_memory(device)  # not in the handler, where the error still holds the tensors
    return False


def free_memory(device: torch.device) -> None:
    """Return cached memory that no tensor uses to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def alternate(
    calls: Mapping[str, Callable[[], object]], rounds: int, setting: Setting
) -> dict[str, list[float]]:
    """Time several calls in turns, so that other work on the machine slows all of them alike.

    Returns:
        The seconds of each round, by name. There are fewer rounds when the time is up.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            seconds[name].append(timed(call, setting.device))
        if setting.left <= 0:
            break
    return seconds


def milliseconds(seconds: list[float]) -> float:
    """Return the median, in milliseconds."""
    return 1000 * statistics.median(seconds)
