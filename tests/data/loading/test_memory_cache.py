"""A cached dataset has the samples of its dataset and does not read its files again."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
import zipfile
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from segtrain.data import (
    FileDataset,
    FolderDataset,
    LabelContract,
    Reader,
    Sample,
    SampleFiles,
    SegmentationDataset,
    ShapesDataset,
    StepSampler,
    TrainTransform,
    build_train_loader,
    iterate,
)
from segtrain.data.loading import memory_cache as cache_module
from segtrain.data.loading.memory_cache import CachedDataset, CacheKind, copies_of
from segtrain.engine.distributed import Processes
from segtrain.errors import ConfigError, DataError
from segtrain.schema.sections import AugmentationConfig

KINDS: tuple[CacheKind, ...] = ("compressed", "decoded")
ONE = Processes(0, 1, torch.device("cpu"))
every_kind = pytest.mark.parametrize("kind", KINDS)


def write(root: Path, sizes: list[tuple[int, int]], suffix: str = ".png") -> None:
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number, (height, width) in enumerate(sizes):
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{number:02d}{suffix}")
        ids = rng.integers(0, 3, (height, width), dtype=np.uint8)
        Image.fromarray(ids).save(root / "masks" / f"{number:02d}.png")


def folder(root: Path, **given: Any) -> FolderDataset:
    places = {"images": "images", "masks": "masks"}
    return FolderDataset(root=str(root), train=places, split="train", num_classes=3, **given)


def same(one: Sample, other: Sample) -> bool:
    pairs = ((one.image, other.image), (one.target, other.target))
    return one.name == other.name and all(
        a.dtype == b.dtype and a.shape == b.shape and (a == b).all() for a, b in pairs
    )


def stored(tmp_path: Path, kind: CacheKind, **given: Any) -> tuple[list[Sample], CachedDataset]:
    write(tmp_path / "data", [(9, 7), (20, 33), (1, 1), (64, 5)])
    dataset = folder(tmp_path / "data", **given)
    expected = [dataset[index] for index in range(len(dataset))]
    cached = CachedDataset(dataset, kind)
    cached.fill()
    shutil.rmtree(tmp_path / "data")
    return expected, cached


@every_kind
@pytest.mark.parametrize("given", [{}, {"channels": 1}, {"channels": 3, "value_range": [0, 100]}])
def test_samples_equal_those_of_the_files(
    tmp_path: Path, kind: CacheKind, given: dict[str, Any]
) -> None:
    expected, cached = stored(tmp_path, kind, **given)
    assert len(cached) == 4
    for _ in range(2):  # at every access
        assert all(same(cached[index], sample) for index, sample in enumerate(expected))
    assert cached.labels.num_classes == 3
    assert cached.channels == expected[0].image.shape[2]


@every_kind
def test_changing_a_sample_does_not_change_the_cache(tmp_path: Path, kind: CacheKind) -> None:
    expected, cached = stored(tmp_path, kind)
    sample = cached[1]
    sample.image[...] = 0
    sample.target[...] = 0
    assert same(cached[1], expected[1])


@every_kind
def test_the_dataset_is_read_until_the_cache_is_filled(tmp_path: Path, kind: CacheKind) -> None:
    write(tmp_path, [(4, 4)])
    dataset = folder(tmp_path)
    cached = CachedDataset(dataset, kind)
    assert same(cached[0], dataset[0])
    assert cached.num_bytes == 0


@every_kind
def test_the_expected_size_is_the_actual_size(tmp_path: Path, kind: CacheKind) -> None:
    write(tmp_path, [(30, 40), (50, 60), (10, 200)])
    cached = CachedDataset(folder(tmp_path), kind)
    expected = cached.expected_bytes
    seen: list[int] = []
    cached.fill(lambda: seen.append(1))
    assert len(seen) == cached.num_items == {"compressed": 6, "decoded": 3}[kind]
    assert cached.num_bytes == expected
    held = sum(path.stat().st_size for path in tmp_path.rglob("*.png"))
    held = held if kind == "compressed" else (1200 + 3000 + 2000) * 4
    assert held <= cached.num_bytes <= held + 6 * 64
    cached.fill(lambda: seen.append(1))
    assert len(seen) == cached.num_items  # filling again does nothing


def test_an_estimate_from_some_of_the_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, [(40, 40)] * 10 + [(20, 20)] * 10)
    monkeypatch.setattr(cache_module, "_MAX_HEADERS", 4)
    cached = CachedDataset(folder(tmp_path), "decoded")
    expected = cached.expected_bytes
    cached.fill()
    assert cached.num_bytes == pytest.approx(expected, rel=0.02)


def test_more_than_one_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_CHUNK", 2048)  # smaller than the largest image
    for kind in KINDS:
        expected, cached = stored(tmp_path / kind, kind)
        assert all(same(cached[index], sample) for index, sample in enumerate(expected))


@every_kind
def test_a_mask_for_each_class(tmp_path: Path, kind: CacheKind) -> None:
    write(tmp_path, [(6, 8), (6, 8)])
    Image.fromarray(np.ones((6, 8), np.uint8)).save(tmp_path / "masks" / "00.png")
    labels = LabelContract(2, multi_label=True)
    image, mask = tmp_path / "images" / "00.png", tmp_path / "masks" / "00.png"
    files = [SampleFiles(image, (mask, None), "a"), SampleFiles(image, (mask, mask), "b")]
    dataset = FileDataset(labels, files, Reader())
    cached = CachedDataset(dataset, kind)
    cached.fill()
    assert all(same(cached[index], dataset[index]) for index in range(2))
    if kind == "compressed":  # each file is held once
        assert cached.num_items == 2
    assert not isinstance(
        dataset.reader, cache_module._MemoryReader
    )  # the original dataset is unchanged


@every_kind
def test_an_archive(tmp_path: Path, kind: CacheKind) -> None:
    write(tmp_path / "data", [(6, 8), (5, 5)])
    with zipfile.ZipFile(tmp_path / "data.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((tmp_path / "data").rglob("*.png")):
            archive.write(path, path.relative_to(tmp_path / "data"))
    plain, cached = folder(tmp_path / "data"), CachedDataset(folder(tmp_path / "data.zip"), kind)
    expected = cached.expected_bytes
    cached.fill()
    assert cached.num_bytes == expected
    assert all(same(cached[index], plain[index]) for index in range(2))


def test_a_dataset_without_files() -> None:
    shapes = ShapesDataset(size=(48, 48), num_train=5)
    cached = CachedDataset(shapes, "decoded")
    expected = cached.expected_bytes
    cached.fill()
    assert cached.num_bytes == expected
    assert all(same(cached[index], shapes[index]) for index in range(5))
    with pytest.raises(
        ConfigError, match=r"compressed .*\(ShapesDataset\) .* loader.cache=decoded$"
    ):
        CachedDataset(shapes, "compressed")


def test_a_dataset_with_a_custom_reader(tmp_path: Path) -> None:
    class Own(FolderDataset):
        def read_image(self, index: int) -> Any:
            return super().read_image(index)[::2, ::2]

        def read_mask(self, index: int) -> Any:
            mask = super().read_mask(index)
            assert isinstance(mask, np.ndarray)
            return mask[::2, ::2]

    write(tmp_path, [(6, 8), (10, 4)])
    places = {"images": "images", "masks": "masks"}
    own = Own(root=str(tmp_path), train=places, split="train", num_classes=3)
    with pytest.raises(ConfigError, match=r"Own.* use loader.cache=decoded"):
        CachedDataset(own, "compressed")
    cached = CachedDataset(own, "decoded")
    expected = cached.expected_bytes
    cached.fill()
    assert cached.num_bytes == expected
    assert all(same(cached[index], own[index]) for index in range(2))


def test_an_empty_dataset() -> None:
    cached = CachedDataset(ShapesDataset(num_train=0), "decoded")
    assert cached.expected_bytes == 0
    cached.fill()
    assert cached.num_bytes == 0


@every_kind
def test_a_damaged_file_is_named(tmp_path: Path, kind: CacheKind) -> None:
    write(tmp_path, [(6, 8)] * 3)
    dataset = folder(tmp_path)
    damaged = tmp_path / "images" / "01.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    cached = CachedDataset(dataset, kind)

    def fill_and_decode() -> None:
        cached.fill()
        cached[1]

    with pytest.raises(DataError, match=r"01.png: the image file cannot be read"):
        fill_and_decode()
    damaged.unlink()
    with pytest.raises(DataError, match=r"01.png: the (image )?file (does not exist|cannot be)"):
        CachedDataset(dataset, kind).fill()


class Once(SegmentationDataset):
    """A dataset whose samples can be read only once."""

    def __init__(self, samples: list[Sample]) -> None:
        super().__init__(LabelContract(6))
        self.samples: list[Sample | None] = [*samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        sample, self.samples[index] = self.samples[index], None
        assert sample is not None
        return sample


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_come_from_memory(num_workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_MAX_DECODED", 0)
    shapes = ShapesDataset(size=(48, 48), num_train=12)
    cached = CachedDataset(Once([shapes[index] for index in range(12)]), "decoded")
    cached.fill()
    transform = TrainTransform(shapes.labels, AugmentationConfig(crop_size=(32, 32)))
    found = []
    for dataset in (shapes, cached):
        loader = build_train_loader(
            dataset, transform, StepSampler(12, 4, seed=1), num_workers=num_workers
        )
        found.append(list(islice(iterate(loader), 9)))
    for one, other in zip(*found, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in ("images", "target", "index"))


@every_kind
def test_it_can_be_sent_to_a_spawned_worker(tmp_path: Path, kind: CacheKind) -> None:
    expected, cached = stored(tmp_path, kind)
    arrived = pickle.loads(pickle.dumps(cached))
    assert all(same(arrived[index], sample) for index, sample in enumerate(expected))


def test_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    for method, expected in (("fork", 1), ("spawn", 4), ("forkserver", 4)):
        monkeypatch.setattr(
            multiprocessing, "get_start_method", lambda allow_none, method=method: method
        )
        assert copies_of(3) == expected
        assert copies_of(0) == 1
