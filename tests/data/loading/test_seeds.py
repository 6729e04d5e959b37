"""Random numbers are pinned, because a resumed run must see the same samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segtrain.data import Mixing
from segtrain.data.loading.seeds import Stream, epoch_generator, mixing_generator, sample_seed


def test_the_random_numbers_are_those_of_earlier_versions() -> None:
    found = {
        stream.name: int(epoch_generator(3, stream, epoch=2).integers(1_000_000))
        for stream in Stream
    }
    assert found == {
        "EPOCH_ORDER": 986545,
        "AUGMENTATION": 765850,
        "SHARD_ORDER": 491826,
        "ORDER_WITHIN_SHARDS": 741710,
        "RARE_CLASSES": 294156,
        "IMAGES_OF_RARE_CLASSES": 44886,
        "GLOBAL_GENERATORS": 490042,
    }
    assert sample_seed(3, (2, 5)) == 5090928859870199286
    assert sample_seed(3, (2, 5, 1)) == 10998617879042350627
    assert int(mixing_generator(7).integers(1_000_000)) == 777838


def test_streams_and_epochs_are_independent() -> None:
    drawn = [
        epoch_generator(0, stream, epoch).permutation(50).tolist()
        for stream in Stream
        for epoch in range(3)
    ]
    assert len({tuple(order) for order in drawn}) == len(drawn)


def test_the_augmentation_of_the_first_sample_does_not_tell_whether_it_is_mixed() -> None:
    """Both come from the seed of that sample; equal streams would tie the two together."""
    images, target = torch.arange(2.0).reshape(2, 1, 1, 1).expand(2, 1, 8, 8), torch.zeros(2, 8, 8)
    mixing = Mixing("cutmix", probability=0.5)
    facts = []
    for seed in range(300):
        mixed = not torch.equal(mixing(images, target, mixing_generator(seed))[0][0], images[0])
        facts.append((float(mixed), np.random.default_rng(seed).random()))
    assert np.array(facts)[:, 0].mean() == pytest.approx(0.5, abs=0.1)
    assert abs(np.corrcoef(np.array(facts).T)[0, 1]) < 0.2
