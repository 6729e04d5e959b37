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


def evaluation_part(
    starts: Sequence[int] | NDArray[np.int64], rank: int, nodes: Sequence[int]
) -> Sequence[int]:
    """Return the samples that one process evaluates, in the order of the shards.

    Each machine gets whole shards, so that a shard is fetched and cached on one machine only. The
    processes of a machine take its samples in turn, so that they read one shard at a time. If there
    are fewer shards than machines, all processes take all samples in turn.

    Args:
        starts: As in :func:`shard_order`.
        rank: The process.
        nodes: The number of the machine of each process.

    Example:
        >>> [evaluation_part([0, 2, 3, 6], rank, nodes=[0, 0, 1]) for rank in range(3)]
        [[2, 4], [3, 5], [0, 1]]
    """
    starts = np.asarray(starts, dtype=np.int64)
    sizes = np.diff(starts)
    machines = sorted(set(nodes))
    if np.count_nonzero(sizes) < len(machines):
        return range(rank, int(starts[-1]), len(nodes))
    # Large shards first, each to the machine with the fewest samples per process.
    taken = dict.fromkeys(machines, 0)
    mine = []
    for shard in np.argsort(-sizes, kind="stable").tolist():
        machine = min(
            machines, key=lambda node: ((taken[node] + sizes[shard]) / nodes.count(node), node)
        )
        taken[machine] += int(sizes[shard])
        if machine == nodes[rank]:
            mine.append(shard)
    samples = [index for shard in sorted(mine) for index in range(starts[shard], starts[shard + 1])]
    neighbours = [other for other, node in enumerate(nodes) if node == nodes[rank]]
    return samples[neighbours.index(rank) :: len(neighbours)]
