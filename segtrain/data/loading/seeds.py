"""Every random number that decides what a run trains on, as a function of the seed of the run.

Each use of the seed has a stream of its own, named in :class:`Stream`. So the order of an epoch
tells nothing about the augmentation, and none of them depends on the number of workers or on the
state of a global generator.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch

SampleKey = tuple[int, ...]
"""Epoch and index: together with the seed of the run they determine a training sample.

A sample that occurs several times in an epoch has a third number: how often it occurred before.
"""

_MIXING = 1  # keeps the mixing of a batch independent of the augmentation of its first sample


class Stream(IntEnum):
    """The uses of the seed of a run. The numbers must stay, so that runs can be repeated."""

    EPOCH_ORDER = 0
    AUGMENTATION = 1
    SHARD_ORDER = 2
    ORDER_WITHIN_SHARDS = 3
    RARE_CLASSES = 4
    IMAGES_OF_RARE_CLASSES = 5
    GLOBAL_GENERATORS = 6


def epoch_generator(seed: int, stream: Stream, epoch: int) -> np.random.Generator:
    """Return the generator of one stream in one epoch.

    Args:
        seed: The seed of the run.
        stream: The use of the random numbers.
        epoch: From 0.

    Example:
        >>> epoch_generator(0, Stream.EPOCH_ORDER, epoch=0).permutation(5)
        array([2, 4, 3, 0, 1])
    """
    return _generator(seed, stream, epoch)


def sample_seed(seed: int, key: SampleKey) -> int:
    """Return the seed of the augmentation of one sample in one epoch."""
    entropy = np.random.SeedSequence([seed, Stream.AUGMENTATION, *key])
    return int(entropy.generate_state(1, np.uint64)[0])


@contextmanager
def seeded_globals(seed: int, key: SampleKey) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and torch in this block.

    A dataset of a user may draw from them. What it draws is a function of the seed of the run and
    of the sample, so it differs between workers, processes and epochs, and a run that resumes draws
    the same. Afterwards the generators continue as before.
    """
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    words = np.random.SeedSequence([seed, Stream.GLOBAL_GENERATORS, *key]).generate_state(1)
    random.seed(int(words[0]))
    np.random.seed(int(words[0]))  # noqa: NPY002  the global generator is meant
    torch.default_generator.manual_seed(int(words[0]))
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])


def mixing_generator(first_sample_seed: int) -> np.random.Generator:
    """Return the generator that mixes a batch.

    Args:
        first_sample_seed: The :func:`sample_seed` of the first sample of the batch.
    """
    return _generator(_MIXING, first_sample_seed)


def _generator(*entropy: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
