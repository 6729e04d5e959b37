"""Keep the splits of a run in memory, as ``loader.cache`` says."""

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

_MAX_SHARE = 0.8  # of the free memory; training needs some too


def cache_splits(
    splits: Sequence[SegmentationDataset], loader: LoaderConfig, processes: Processes
) -> list[SegmentationDataset]:
    """Wrap each split in an empty cache if ``loader.cache`` asks for one.

    Args:
        splits: The datasets that the run reads repeatedly.
        loader: The section `loader` of the configuration.
        processes: The processes of the run; each has its own caches.

    Raises:
        ConfigError: When ``loader.cache=compressed`` is set for a dataset without files.
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
    # All processes check the memory before any of them starts to fill it.
    if processes.any(int(problem is not None)):
        raise problem or ResourceError("another process cannot use loader.cache, see its message")
    return list(caches)


def fill_caches(
    splits: Sequence[SegmentationDataset], loader: LoaderConfig, processes: Processes
) -> None:
    """Fill the caches of :func:`cache_splits` before any worker is started.

    The expected size is logged before, and the actual size afterwards.

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
    """The memory that caches need, and the memory that is free."""

    def __init__(self, caches: Sequence[CachedDataset], loader: LoaderConfig) -> None:
        self.each = sum(cache.expected_bytes for cache in caches)
        # The copies on this machine.
        self.copies = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) * copies_of(loader.num_workers)
        self.free = free_memory()
        self.kind = loader.cache

    def __str__(self) -> str:
        times = "" if self.copies == 1 else f" in each of {self.copies} processes"
        free = "" if self.free is None else f", {_size(self.free)} are free"
        return f"loader.cache={self.kind} takes about {_size(self.each)} of memory{times}{free}"

    def check(self) -> None:
        """Refuse caches that do not fit into memory."""
        if self.free is not None and self.each * self.copies > _MAX_SHARE * self.free:
            other = "compressed or none" if self.kind == "decoded" else "none"
            raise ResourceError(
                f"{self}, of which it may use {_MAX_SHARE:.0%}; use loader.cache={other}"
            )


def _size(num_bytes: float) -> str:
    """A number of bytes in MB or GB.

    Example:
        >>> _size(2_500_000), _size(12_340_000_000)
        ('2.5 MB', '12.3 GB')
    """
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"
