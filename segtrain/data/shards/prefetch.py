"""Fetch remote shards before a batch needs them, so that training does not wait for them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from typing import TypeVar

from segtrain.data.dataset import SegmentationDataset
from segtrain.data.loading.sampler import StepSampler
from segtrain.data.shards.dataset import ShardDataset

_B = TypeVar("_B")
_MAX_STEPS = 2_000  # how far ahead to look


def prefetch_shards(
    batches: Iterable[_B], dataset: SegmentationDataset, sampler: StepSampler
) -> Iterator[_B]:
    """Yield `batches` unchanged, while a thread fetches the shards that come next.

    No more shards are fetched than the cache has room for besides those in use. A dataset that is
    on disk needs no thread.

    Args:
        batches: The batches that `sampler` chose, from its `start_step` on.
        dataset: The dataset of the samples.
        sampler: Which samples form which step of this process.
    """
    spare = dataset.spare_shards(sampler.world_size) if isinstance(dataset, ShardDataset) else 0
    if not isinstance(dataset, ShardDataset) or not spare:
        yield from batches
        return
    thread = _FetchThread(dataset)
    try:
        prefetcher = _Prefetcher(dataset, sampler, thread, spare)
        for batch in batches:
            prefetcher.advance()
            yield batch
    finally:
        thread.stop()


class _FetchThread:
    """A thread that fetches the shards of samples, one after the other.

    The process does not wait for it at its end, as a request to a server may take long.
    """

    def __init__(self, dataset: ShardDataset) -> None:
        self.dataset = dataset
        self.is_stopped = False
        self._wanted: SimpleQueue[int] = SimpleQueue()
        threading.Thread(target=self._run, daemon=True, name="shards").start()

    def request(self, index: int) -> None:
        """Fetch the shard of a sample after those that were requested before."""
        self._wanted.put(index)

    def stop(self) -> None:
        """Fetch nothing more; a request that is under way is completed if the process lives on."""
        self.is_stopped = True
        self._wanted.put(-1)

    def _run(self) -> None:
        while (index := self._wanted.get()) >= 0 and not self.is_stopped:
            # An error is raised again, and then reported, when the sample is read.
            with contextlib.suppress(Exception):
                self.dataset.fetch(index)


class _Prefetcher:
    """Looks ahead of the current batch and requests the shards of later ones."""

    def __init__(
        self, dataset: ShardDataset, sampler: StepSampler, thread: _FetchThread, spare: int
    ) -> None:
        self.dataset, self.sampler, self.thread, self.spare = dataset, sampler, thread, spare
        self.batch = self.next_batch = sampler.start_step * sampler.accumulate
        self.last_use: dict[int, int] = {}  # of each shard, the last batch known to need it
        self.requested: dict[int, int] = {}  # shard to its first batch

    def advance(self) -> None:
        """Note that one more batch has come, and request more shards."""
        self.batch += 1
        self.requested = {
            shard: first for shard, first in self.requested.items() if first > self.batch
        }
        last = self.batch + _MAX_STEPS * self.sampler.accumulate
        while len(self.requested) < self.spare and self.next_batch < last:
            self._request(self.next_batch)
            self.next_batch += 1

    def _request(self, batch: int) -> None:
        """Request the shards of a batch that are not in use."""
        step, micro_batch = divmod(batch, self.sampler.accumulate)
        for _, index, *_ in self.sampler.keys(step, micro_batch):
            shard = self.dataset.shard_of(index)
            if shard not in self.last_use and batch > self.batch:
                self.requested[shard] = batch
                self.thread.request(index)
            self.last_use[shard] = batch
        if len(self.last_use) > 2 * (self.dataset.streams + self.spare):
            oldest = sorted(self.last_use, key=lambda shard: self.last_use[shard])
            for shard in oldest[: len(oldest) // 2]:
                del self.last_use[shard]
