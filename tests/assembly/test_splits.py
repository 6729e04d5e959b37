"""The test split of a run is checked before anything is scored on it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from segtrain.assembly.check import check_config
from segtrain.assembly.splits import open_splits, open_test_split
from segtrain.cli.compose import compose_config
from segtrain.data import FileDataset, SegmentationDataset
from segtrain.engine.distributed import Processes
from segtrain.errors import DataError
from segtrain.schema.sections import Config

ONE = Processes(0, 1, torch.device("cpu"))


def write(root: Path, split: str, *names: str) -> None:
    for name in names:
        for kind, shape in (("images", (8, 8, 3)), ("masks", (8, 8))):
            path = root / kind / split / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng(sum(name.encode()))
            Image.fromarray(rng.integers(0, 2, shape, dtype=np.uint8)).save(path)


def opened(root: Path, *words: str) -> SegmentationDataset | None:
    given = ["dataset=folder", f"dataset.root={root}", "dataset.num_classes=2", *words]
    return open_test(check_config(compose_config(given)))


def open_test(config: Config) -> SegmentationDataset | None:
    return open_test_split(config, open_splits(config, ONE).opened, ONE)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "val", "test"):
        write(tmp_path, split, f"{split}0", f"{split}1", f"{split}2")
    return tmp_path


TEST = ("dataset.test.images=images/test", "dataset.test.masks=masks/test")


def test_no_test_split(root: Path) -> None:
    assert opened(root) is None


def test_a_test_split(root: Path) -> None:
    dataset = opened(root, *TEST)
    assert isinstance(dataset, FileDataset)
    assert [files.name for files in dataset.files] == ["test0", "test1", "test2"]


@pytest.mark.fault("F36")
def test_an_image_of_the_training_split_is_refused(root: Path) -> None:
    shutil.copy(root / "images/train/train1.png", root / "images/test/test1.png")
    with pytest.raises(DataError, match=r"in both dataset\.train and dataset\.test; remove them"):
        opened(root, *TEST)
    dataset: Any = opened(root, *TEST, "dataset.allow_overlap=true")
    assert len(dataset) == 3


@pytest.mark.fault("F36")
def test_an_image_of_the_validation_split_ends_a_run_unless_it_is_allowed(root: Path) -> None:
    shutil.copy(root / "images/val/val1.png", root / "images/test/test1.png")
    with pytest.raises(DataError, match=r"in both dataset\.val and dataset\.test"):
        opened(root, *TEST)
    assert opened(root, *TEST, "dataset.allow_overlap=true") is not None


@pytest.mark.fault("F28")
def test_a_wrong_mask_is_refused_and_a_damaged_one_may_be_left_out(root: Path) -> None:
    mask = root / "masks/test/test1.png"
    mask.write_bytes(mask.read_bytes()[:40])
    with pytest.raises(DataError, match=r"test1\.png: the mask file cannot be read"):
        opened(root, *TEST)
    dataset: Any = opened(root, *TEST, "dataset.max_bad=0.5")
    assert [files.name for files in dataset.files] == ["test0", "test2"]
    assert len(dataset.left_out) == 1
    Image.new("L", (8, 8), 7).save(mask)
    with pytest.raises(DataError, match="the mask holds value 7"):
        opened(root, *TEST, "dataset.max_bad=0.5")


def test_a_dataset_without_files() -> None:
    config = check_config(compose_config(["dataset=shapes", "dataset.num_test=2"]))
    dataset = open_test(config)
    assert dataset is not None
    assert len(dataset) == 2
