"""The order of an epoch over shards: random, and yet each machine needs few shards at a time.

A plain permutation asks for every shard all the time, more than a bounded cache holds. Here the
samples, shard after shard in random order, are cut into `streams` runs of equal length, and the
epoch takes one sample of each run in turn. So at any time about `streams` shards are in use, each
is used in one stretch, and the runs can be shared out over the processes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segtrain.data.loading.seeds import Stream, epoch_generator


def shard_order(
    starts: Sequence[int] | NDArray[np.int64],
    streams: int,
    *,
    seed: int,
    epoch: int,
    group: int = 1,
) -> NDArray[np.int64]:
    """The order of the samples in an epoch, a permutation of ``0 .. starts[-1] - 1``.

    Every `group` samples in a row are sorted by stream, so that process `r` of `n`, which takes the
    `r`-th part of each group, meets ``streams / n`` streams only. This holds when `n` divides
    `streams`, and one of `group` and `streams` divides the other; otherwise a process meets more
    streams, and nothing else changes. Which samples a group holds does not depend on how it is
    shared out, and steps are made of whole groups; so with one `seed` the steps are the same sets
    of samples for every number of processes.

    Args:
        starts: First sample of each shard, and the number of samples.
        streams: Shards that are mixed at a time.
        seed: The seed of the run.
        epoch: From 0.
        group: Samples that the processes share out at a time: batch size times processes.

    Example:
        >>> shard_order([0, 2, 4, 6, 8], 2, seed=0, epoch=0, group=4).reshape(2, 4)
        array([[4, 5, 0, 1],
               [3, 2, 7, 6]])
    """
    starts = np.asarray(starts, dtype=np.int64)
    length = int(starts[-1])
    chosen = epoch_generator(seed, Stream.SHARD_ORDER, epoch).permutation(len(starts) - 1)
    within = epoch_generator(seed, Stream.ORDER_WITHIN_SHARDS, epoch)
    runs = [
        starts[shard] + within.permutation(starts[shard + 1] - starts[shard]) for shard in chosen
    ]
    whole = np.concatenate(runs) if runs else np.zeros(0, np.int64)
    streams = max(1, min(streams, length))
    longest = -(-length // streams)
    table = np.full((streams, longest), -1, dtype=np.int64)
    for row, run in zip(table, np.array_split(whole, streams), strict=True):
        row[: len(run)] = run
    order = table.T[table.T >= 0]
    position = np.arange(length)
    # Runs differ in length by one at most, the longer ones first: position p is of run p % streams.
    order = order[np.lexsort((position, position % streams, position // max(group, 1)))]
    order.flags.writeable = False  # whoever keeps it shares it
    return order
