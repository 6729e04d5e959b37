from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtrain.data import FolderDataset, ShapesDataset, content_hash
from segtrain.data.scan import cache as module


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for folder, shape in (("images", (4, 5, 3)), ("masks", (4, 5))):
        (root / folder).mkdir(parents=True)
        for number in range(2):
            pixels = np.full(shape, number, np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{number}.png")
    return root


def hash_of(root: Path) -> str | None:
    places = {"images": "images", "masks": "masks"}
    return content_hash(FolderDataset(root=str(root), train=places, split="train", num_classes=2))


def test_the_hash_is_that_of_names_and_bytes(root: Path) -> None:
    names = ["images/0.png", "images/1.png", "masks/0.png", "masks/1.png"]
    lines = [f"{name} {hashlib.sha256((root / name).read_bytes()).hexdigest()}" for name in names]
    expected = hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
    assert hash_of(root) == expected


def test_a_copy_elsewhere_has_the_same_hash(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "copy")
    assert hash_of(tmp_path / "copy") == hash_of(root)


def test_a_changed_byte_or_name_changes_it(root: Path) -> None:
    before = hash_of(root)
    Image.fromarray(np.full((4, 5), 0, np.uint8)).save(root / "masks/1.png")
    changed = hash_of(root)
    assert changed != before
    for folder in ("images", "masks"):
        (root / folder / "1.png").rename(root / folder / "2.png")
    assert hash_of(root) not in (before, changed)


def test_unchanged_files_are_not_read_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = hash_of(root)
    opened: list[Path] = []
    monkeypatch.setattr(module, "open_file", lambda path: opened.append(path) or path.open("rb"))
    assert hash_of(root) == before
    assert not opened
    os.utime(root / "images/0.png", ns=(1, 1))
    assert hash_of(root) == before
    assert opened == [root / "images/0.png"]


def test_a_dataset_without_files_has_none() -> None:
    assert content_hash(ShapesDataset(split="train", num_train=2)) is None
