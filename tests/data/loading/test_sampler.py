from itertools import islice

import numpy as np
import pytest

from segtrain.data import StepSampler
from segtrain.errors import ConfigError, DataError


def take(count, *arguments, **keywords):
    return list(islice(StepSampler(*arguments, **keywords), count))


@pytest.mark.fault("F13")
@pytest.mark.parametrize(
    ("batch_size", "accumulate", "world_size"), [(4, 1, 1), (2, 1, 2), (1, 2, 2)]
)
def test_an_epoch_covers_every_sample_once(batch_size, accumulate, world_size):
    keys = []
    for rank in range(world_size):
        sampler = StepSampler(12, batch_size, accumulate, world_size, rank)
        assert sampler.steps_per_epoch == 3
        keys += [key for batch in islice(sampler, 3 * accumulate) for key in batch]
    assert sorted(keys) == [(0, index) for index in range(12)]


@pytest.mark.fault("F13")
def test_a_step_is_the_same_set_for_every_split():
    def steps(batch_size, accumulate, world_size):
        ranks = [take(6 * accumulate, 17, batch_size, accumulate, world_size, r, seed=5)
                 for r in range(world_size)]  # fmt: skip
        return [
            {key for rank in ranks for batch in rank[s * accumulate : (s + 1) * accumulate]
             for key in batch}
            for s in range(6)
        ]  # fmt: skip

    assert steps(4, 1, 1) == steps(2, 2, 1) == steps(2, 1, 2) == steps(1, 2, 2)


@pytest.mark.fault("F10")
def test_a_resumed_stream_continues_the_first():
    whole = take(20, 10, 3, 2, seed=1)
    for step in (0, 1, 5, 9):
        assert take(20 - 2 * step, 10, 3, 2, seed=1, start_step=step) == whole[2 * step :]


def test_orders_differ_between_epochs_and_seeds():
    def order(seed, step):
        return [index for _, index in take(1, 64, 64, seed=seed, start_step=step)[0]]

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


@pytest.mark.fault("F35")
def test_too_few_samples():
    with pytest.raises(DataError) as caught:
        StepSampler(3, 8, 1, 2)
    for part in ("3 samples", "batch_size 8", "accumulate 1", "processes 2", "= 16"):
        assert part in str(caught.value)


def test_numbers_out_of_range():
    with pytest.raises(ConfigError, match="batch_size"):
        StepSampler(3, 0)
    with pytest.raises(ConfigError, match="rank"):
        StepSampler(3, 1, world_size=2, rank=2)


def test_repeats_are_counted_in_the_order_of_the_epoch():
    def order(epoch):
        return np.array([7, 2, 7, 7, 2, 0]) + epoch

    (keys,) = islice(StepSampler(6, 6, order=order), 1)
    assert keys == [(0, 7), (0, 2), (0, 7, 1), (0, 7, 2), (0, 2, 1), (0, 0)]


def test_the_order_is_requested_once_per_epoch():
    asked = []

    def order(epoch):
        asked.append(epoch)
        return np.arange(8)

    list(islice(StepSampler(8, 2, order=order), 12))
    assert asked == [0, 1, 2]
