"""Remote shards fetched before a batch needs them, so that training does not wait for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from segtrain.data.dataset import SegmentationDataset
from segtrain.data.loading.sampler import StepSampler
from segtrain.data.shards.dataset import ShardDataset

_B = TypeVar("_B")
_MOST_STEPS = 2_000  # how far to look


def fetch_ahead(
    batches: Iterable[_B], dataset: SegmentationDataset, sampler: StepSampler
) -> Iterator[_B]:
    """`batches`, while a thread fetches the shards that come next.

    It never changes what is in a batch. No more shards are fetched than the cache has room for
    besides those in use, and with a dataset that is on disk nothing is done.

    Args:
        batches: Those that `sampler` chose, from its `start_step` on.
        dataset: What it chose from.
        sampler: Which samples make up which step of this process.
    """
    spare = dataset.spare_shards(sampler.world_size) if isinstance(dataset, ShardDataset) else 0
    if not isinstance(dataset, ShardDataset) or not spare:
        yield from batches
        return
    pool = ThreadPoolExecutor(1, "shards")
    try:
        ahead = _Ahead(dataset, sampler, pool, spare)
        for batch in batches:
            ahead.advance()
            yield batch
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class _Ahead:
    """Where training is, how far ahead was looked, and what has been asked for in between."""

    def __init__(
        self, dataset: ShardDataset, sampler: StepSampler, pool: ThreadPoolExecutor, spare: int
    ) -> None:
        self.dataset, self.sampler, self.pool, self.spare = dataset, sampler, pool, spare
        self.batch = self.looked = sampler.start_step * sampler.accumulate
        self.in_use: dict[int, int] = {}  # shard to the last batch that was seen to need it
        self.asked: dict[int, tuple[int, Future[None]]] = {}  # shard to its first batch

    def advance(self) -> None:
        """One more batch has come."""
        self.batch += 1
        self.asked = {
            shard: (first, future)
            for shard, (first, future) in self.asked.items()
            if first > self.batch
        }
        last = self.batch + _MOST_STEPS * self.sampler.accumulate
        while len(self.asked) < self.spare and self.looked < last:
            self._look(self.looked)
            self.looked += 1

    def _look(self, batch: int) -> None:
        step, micro_batch = divmod(batch, self.sampler.accumulate)
        for _, index, *_ in self.sampler.keys(step, micro_batch):
            shard = self.dataset.shard_of(index)
            if shard not in self.in_use and batch > self.batch:
                self.asked[shard] = (batch, self.pool.submit(self._fetch, index))
            self.in_use[shard] = batch
        if len(self.in_use) > 2 * (self.dataset.streams + self.spare):
            old = sorted(self.in_use, key=lambda shard: self.in_use[shard])
            for shard in old[: len(old) // 2]:
                del self.in_use[shard]

    def _fetch(self, index: int) -> None:
        self.dataset.fetch(index)  # an error will come again, where it is told, with the sample
