import itertools

import numpy as np

from segtrain.data.shards.order import shard_order
from tests.data.shards.helpers import NUM, build, samplers


def test_an_epoch_has_every_sample_once_in_another_order(shards):
    dataset = build(shards, streams=2)
    orders = [dataset.epoch_order(0, epoch, 3) for epoch in range(2)]
    assert all(sorted(order) == list(range(NUM)) for order in orders)
    assert orders[0].tolist() != orders[1].tolist()
    again = build(shards, streams=2)
    assert again.epoch_order(0, 1, 3).tolist() == orders[1].tolist()
    assert again.epoch_order(1, 1, 3).tolist() != orders[1].tolist()


def test_the_order_resumes_at_a_step(shards):
    dataset = build(shards)
    (whole,) = samplers(dataset, 1)
    (later,) = samplers(dataset, 1, start_step=7)
    stream = list(itertools.islice(whole, 20))
    assert list(itertools.islice(later, 13)) == stream[7:]


def test_a_step_is_the_same_samples_for_any_number_of_processes(shards):
    dataset = build(shards, streams=4)
    steps = []
    for world_size, batch_size in ((1, 4), (2, 2), (4, 1)):
        ranks = samplers(dataset, world_size, batch_size)
        keys = [[key for rank in ranks for key in rank.keys(step, 0)] for step in range(9)]
        steps.append([sorted(step) for step in keys])
    assert steps[0] == steps[1] == steps[2]


def test_a_process_needs_few_shards_at_a_time():
    starts = np.arange(0, 101) * 50
    order = shard_order(starts, 16, seed=0, epoch=0, group=32)
    shard = np.searchsorted(starts, order, side="right") - 1
    steps = shard[: len(shard) // 32 * 32].reshape(-1, 4, 8)  # step, process, sample
    for process in range(4):
        for start in range(0, len(steps) - 10, 10):
            # Four streams at a time; each may move to its next shard in between.
            assert len(set(steps[start : start + 10, process].ravel())) <= 8
    met = [set(steps[:, process].ravel()) for process in range(4)]
    assert max(map(len, met)) <= 100 / 4 + 5


def test_an_order_of_more_streams_than_samples():
    assert sorted(shard_order([0, 2, 2, 3], 16, seed=0, epoch=0)) == [0, 1, 2]
