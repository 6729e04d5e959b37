"""The caches of a run: the required memory is printed first, and too much is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image

from segtrain.assembly.caching import cache_splits, fill_caches
from segtrain.data import FolderDataset, SegmentationDataset
from segtrain.data.loading.memory_cache import CachedDataset, CacheKind
from segtrain.engine.distributed import Processes
from segtrain.errors import ResourceError
from segtrain.schema.sections import LoaderConfig
from segtrain.terminal import logger

ONE = Processes(0, 1, torch.device("cpu"))


@pytest.fixture
def messages() -> Iterator[Callable[[], list[str]]]:
    found: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    handler, level = Keep(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lambda: found
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def splits(tmp_path: Path) -> list[SegmentationDataset]:
    for folder, shape in (("images", (40, 50, 3)), ("masks", (40, 50))):
        (tmp_path / folder).mkdir()
        for number in range(3):
            Image.fromarray(np.zeros(shape, np.uint8)).save(tmp_path / folder / f"{number}.png")
    places = {"images": "images", "masks": "masks"}
    return [
        FolderDataset(root=str(tmp_path), train=places, split="train", num_classes=3)
        for _ in range(2)
    ]


def loader_config(cache: Literal["none", "compressed", "decoded"]) -> LoaderConfig:
    return LoaderConfig(cache=cache, num_workers=2)


def test_none(splits: list[SegmentationDataset]) -> None:
    found = cache_splits(splits, loader_config("none"), ONE)
    assert all(one is other for one, other in zip(found, splits, strict=True))
    fill_caches(found, loader_config("none"), ONE)


@pytest.mark.parametrize("kind", ["compressed", "decoded"])
def test_its_memory_is_stated_before(
    splits: list[SegmentationDataset],
    kind: CacheKind,
    messages: Callable[[], list[str]],
) -> None:
    found = cache_splits(splits, loader_config(kind), ONE)
    assert all(isinstance(cache, CachedDataset) and not cache.num_bytes for cache in found)
    assert messages() == []
    fill_caches(found, loader_config(kind), ONE)
    before, after = messages()
    assert before.startswith(f"loader.cache={kind} takes about 0.0 MB of memory")
    assert after.startswith("the cache is filled: 0.0 MB")
    assert all(isinstance(cache, CachedDataset) and cache.num_bytes for cache in found)


def test_too_much_is_refused(
    splits: list[SegmentationDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segtrain.assembly.caching.free_memory", lambda: 59_000)
    with pytest.raises(ResourceError) as caught:  # 48 kB are more than 80 % of 59
        cache_splits(splits, loader_config("decoded"), ONE)
    text = "0.0 MB of memory, 0.1 MB are free, of which it may use 80%; use loader.cache=comp"
    assert text in str(caught.value)
    monkeypatch.setattr("segtrain.assembly.caching.free_memory", lambda: 61_000)
    cache_splits(splits, loader_config("decoded"), ONE)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ResourceError, match="in each of 2 processes"):
        cache_splits(splits, loader_config("decoded"), ONE)
    monkeypatch.setattr("segtrain.assembly.caching.free_memory", lambda: None)
    cache_splits(splits, loader_config("decoded"), ONE)
