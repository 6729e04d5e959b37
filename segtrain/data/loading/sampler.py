"""The samples of each optimizer step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from segtrain.data.loading.seeds import SampleKey, Stream, epoch_generator
from segtrain.errors import ConfigError, DataError

Order = Callable[[int], NDArray[np.int64]]
"""A function from an epoch to the indices of its samples, the same at every call."""


class StepSampler(Sampler[list[SampleKey]]):
    """An endless stream of micro-batches of :data:`~segtrain.data.loading.seeds.SampleKey`.

    A step takes the next ``batch_size * accumulate * world_size`` samples in the order of its
    epoch. Only the product matters, so one process with a batch of 8 and two processes with 2
    accumulated batches of 2 take the same steps. The order of an epoch is a pure function of the
    epoch, so `start_step` is all that a run needs to resume. Samples at the end of an epoch that
    are too few for a step are dropped.

    Args:
        length: Number of samples in an epoch, those of the dataset.
        batch_size: Samples in a micro-batch.
        accumulate: Micro-batches of one process in a step.
        world_size: Number of processes.
        rank: The index of this process.
        seed: The seed of the run.
        start_step: The first step.
        order: Returns the `length` indices of an epoch; an index may occur several times or not at
            all. None: a permutation that depends on `seed`.

    Raises:
        ConfigError: When a number is out of range.
        DataError: When the dataset is smaller than one step.

    Example:
        >>> sampler = StepSampler(4, batch_size=2, seed=1)
        >>> stream = iter(sampler)
        >>> sorted(index for epoch, index in next(stream) + next(stream))
        [0, 1, 2, 3]
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        accumulate: int = 1,
        world_size: int = 1,
        rank: int = 0,
        seed: int = 0,
        start_step: int = 0,
        order: Order | None = None,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("accumulate", accumulate)):
            if value < 1:
                raise ConfigError(f"trainer.{name} must be at least 1, got {value}")
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank must be from 0 to {world_size - 1}, got {rank}")
        if seed < 0:
            raise ConfigError(f"seed must not be negative, got {seed}")
        self.length, self.batch_size, self.accumulate = length, batch_size, accumulate
        self.world_size, self.rank = world_size, rank
        self.seed, self.start_step = seed, start_step
        self.step_size = batch_size * accumulate * world_size
        self.order: Order = order or partial(epoch_order, seed, length=length)
        self._plan = lru_cache(maxsize=2)(lambda epoch: _with_repeats(self.order(epoch)))
        if length < self.step_size:
            fits = length // (accumulate * world_size)
            ready = f", here to trainer.batch_size={fits}" if fits else ""
            raise DataError(
                f"the train split has {length} samples, fewer than one step needs: batch_size "
                f"{batch_size} x accumulate {accumulate} x processes {world_size} = "
                f"{self.step_size}; lower trainer.batch_size or trainer.accumulate{ready}"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Number of optimizer steps in an epoch."""
        return self.length // self.step_size

    def __iter__(self) -> Iterator[list[SampleKey]]:
        step = self.start_step
        while True:
            for micro_batch in range(self.accumulate):
                yield self.keys(step, micro_batch)
            step += 1

    def keys(self, step: int, micro_batch: int) -> list[SampleKey]:
        """Return the samples of one micro-batch of this process."""
        epoch, position = divmod(step, self.steps_per_epoch)
        slot = micro_batch * self.world_size + self.rank
        start = position * self.step_size + slot * self.batch_size
        order, repeats = self._plan(epoch)
        part = slice(start, start + self.batch_size)
        return [
            (epoch, index, repeat) if repeat else (epoch, index)
            for index, repeat in zip(order[part].tolist(), repeats[part].tolist(), strict=True)
        ]


def epoch_order(seed: int, epoch: int, length: int) -> NDArray[np.int64]:
    """Return the order of the samples in an epoch, a permutation of ``0 .. length - 1``."""
    return epoch_generator(seed, Stream.EPOCH_ORDER, epoch).permutation(length)


def _with_repeats(order: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return an order, and for each position how often its sample occurred before it."""
    by_index = np.argsort(order, kind="stable")
    position = np.arange(len(order))
    starts = np.r_[True, np.diff(order[by_index]) != 0] if len(order) else np.zeros(0, bool)
    first = np.maximum.accumulate(np.where(starts, position, 0))
    repeats = np.empty_like(position)
    repeats[by_index] = position - first
    return order, repeats
