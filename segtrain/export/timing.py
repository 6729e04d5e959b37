"""Latency and throughput of several formats, measured in turns."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segtrain.export.base import Run
from segtrain.terminal import progress

WARMUP = 2


class Timing(NamedTuple):
    """The times of one format with one batch size.

    Attributes:
        name: The format.
        batch_size: Images per call.
        seconds: The time of each call.
    """

    name: str
    batch_size: int
    seconds: Sequence[float]

    def quantile(self, share: float) -> float:
        """The time that this share of the calls does not exceed, in milliseconds."""
        return float(np.quantile(self.seconds, share)) * 1000

    @property
    def images_per_second(self) -> float:
        """Throughput at the median time."""
        return self.batch_size / float(np.median(self.seconds))


def measure(
    runs: Mapping[str, Run], batches: Sequence[NDArray[Any]], repetitions: int
) -> list[Timing]:
    """Time each run on each batch.

    The runs take turns, so that a machine that is slow for a while is slow for all of them.

    Args:
        runs: What is timed, by name.
        batches: The inputs.
        repetitions: Timed calls of each run on each batch, after two that are not timed.
    """
    timings: list[Timing] = []
    with progress("benchmark", len(batches) * (repetitions + WARMUP)) as bar:
        for batch in batches:
            seconds: dict[str, list[float]] = {name: [] for name in runs}
            for _ in range(WARMUP + repetitions):
                for name, run in runs.items():
                    start = time.perf_counter()
                    run(batch)
                    seconds[name].append(time.perf_counter() - start)
                bar.advance(f"batch {len(batch)}")
            timings += [Timing(name, len(batch), seconds[name][WARMUP:]) for name in runs]
    return timings
