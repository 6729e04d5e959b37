"""The splits of a run in memory, as ``loader.cache`` says: judged first, filled last."""

from __future__ import annotations

import os
from collections.abc import Sequence

from segtrain.data import SegmentationDataset
from segtrain.data.loading.free_memory import free_memory
from segtrain.data.loading.memory_cache import CachedDataset, copies_of
from segtrain.engine.distributed import Processes
from segtrain.errors import ResourceError, SegtrainError
from segtrain.schema.sections import LoaderConfig
from segtrain.terminal import logger, progress

_MOST = 0.8  # of the free memory; training needs some too


def cache_splits(
    splits: Sequence[SegmentationDataset], loader: LoaderConfig, processes: Processes
) -> list[SegmentationDataset]:
    """The splits, or a cache, still empty, round each of them.

    Args:
        splits: The datasets that the run reads again and again.
        loader: Its `cache` and `num_workers`.
        processes: Those of the run, each of which has caches of its own.

    Raises:
        ConfigError: When the bytes of files are to be kept and a dataset has none.
        ResourceError: When there is not enough memory.
    """
    if loader.cache == "none":
        return list(splits)
    problem = None
    try:
        caches = [CachedDataset(split, loader.cache) for split in splits]
        _Need(caches, loader).check()
    except SegtrainError as error:
        problem = error
    # Every process has looked before any of them starts to fill its memory.
    if processes.any(int(problem is not None)):
        raise problem or ResourceError("another process cannot have loader.cache, see its message")
    return list(caches)


def fill_caches(
    splits: Sequence[SegmentationDataset], loader: LoaderConfig, processes: Processes
) -> None:
    """Read what :func:`cache_splits` gave into memory, before any worker is started.

    What it takes is stated before, and what it took afterwards.

    Raises:
        DataError: When a file cannot be read.
    """
    caches = [split for split in splits if isinstance(split, CachedDataset)]
    if not caches:
        return
    if processes.is_main:
        logger.info("%s", _Need(caches, loader))
    total = sum(cache.num_items for cache in caches)
    with progress("fill the cache", total, shown=processes.is_main) as bar:
        for cache in caches:
            cache.fill(bar.advance)
    if processes.is_main:
        logger.info("the cache is filled: %s", _size(sum(cache.num_bytes for cache in caches)))


class _Need:
    """What caches take of what memory there is."""

    def __init__(self, caches: Sequence[CachedDataset], loader: LoaderConfig) -> None:
        self.each = sum(cache.expected_bytes for cache in caches)
        # Those on this machine.
        self.copies = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) * copies_of(loader.num_workers)
        self.free = free_memory()
        self.kind = loader.cache

    def __str__(self) -> str:
        times = "" if self.copies == 1 else f" in each of {self.copies} processes"
        free = "" if self.free is None else f", {_size(self.free)} are free"
        return f"loader.cache={self.kind} takes about {_size(self.each)} of memory{times}{free}"

    def check(self) -> None:
        """Refuse what does not fit."""
        if self.free is not None and self.each * self.copies > _MOST * self.free:
            other = "compressed or none" if self.kind == "decoded" else "none"
            raise ResourceError(
                f"{self}, of which it may have {_MOST:.0%}; use loader.cache={other}"
            )


def _size(num_bytes: float) -> str:
    """Bytes in words.

    Example:
        >>> _size(2_500_000), _size(12_340_000_000)
        ('2.5 MB', '12.3 GB')
    """
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"
