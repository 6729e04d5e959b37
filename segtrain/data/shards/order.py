"""The order of an epoch over shards: random, but with few shards in use at a time.

A plain permutation needs every shard all the time, which is more than a bounded cache holds. Here
the shards are shuffled, and the samples within each. The result is cut into `streams` runs of equal
length, and the epoch takes one sample from each run in turn. About `streams` shards are then in use
at any time, each shard is used in one stretch, and the runs can be divided among processes.
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
    """Return the order of the samples in an epoch, a permutation of ``0 .. starts[-1] - 1``.

    Each group of `group` consecutive samples is sorted by stream. Process `r` of `n` takes the
    `r`-th part of each group, so it needs only ``streams / n`` streams, provided that `n` divides
    `streams`, and that one of `group` and `streams` divides the other. Otherwise a process needs
    more streams, and nothing else changes.

    The samples of a group do not depend on the number of processes, and a step consists of whole
    groups. With the same `seed`, a step therefore has the same samples for any number of processes.

    Args:
        starts: Index of the first sample of each shard, and at the end the number of samples.
        streams: Number of shards that are mixed at a time.
        seed: The seed of the run.
        epoch: Number of the epoch, from 0.
        group: Number of samples that the processes divide at a time: batch size times processes.

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
    # Run lengths differ by at most one, longer runs first: position p belongs to run p % streams.
    order = order[np.lexsort((position, position % streams, position // max(group, 1)))]
    order.flags.writeable = False  # callers may keep and share it
    return order
