"""Cross-validation: which samples are in which fold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segtrain.data import DATASETS, FileDataset, SampleFiles, find_duplicates
from segtrain.data.datasets.folds import Folds
from segtrain.errors import ConfigError, DataError

FOLDERS = {"images": "i", "masks": "m"}
PATIENTS = [
    f"{patient}_{slice_}" for patient in "abcdefg" for slice_ in range(2 + ord(patient) % 4)
]


def fill(root: Path, *names: str) -> None:
    for folder in FOLDERS.values():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            pixels = np.full((2, 3), sum(name.encode()) % 2, dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{name}.png")


def build(root: Path, split: str, **keys: Any) -> FileDataset:
    spec = {"name": "folder", "root": str(root), "num_classes": 2, "train": FOLDERS, **keys}
    dataset = DATASETS.build(spec, split=split)
    assert isinstance(dataset, FileDataset)
    return dataset


def names_of(root: Path, split: str, **keys: Any) -> list[str]:
    return [files.name for files in build(root, split, **keys).files]


def samples(names: list[str]) -> list[SampleFiles]:
    return [SampleFiles(Path(f"{name}.png"), (None,), name) for name in names]


def folds_of(names: list[str], folds: int, **keys: Any) -> list[list[str]]:
    parts = [Folds(folds=folds, fold=fold, **keys).part(samples(names), "val")
             for fold in range(folds)]  # fmt: skip
    return [sorted(names[index] for index in part) for part in parts]


@pytest.mark.parametrize(("count", "folds"), [(2, 2), (10, 5), (23, 5), (101, 10)])
def test_each_sample_is_in_one_fold_and_sizes_differ_by_one(count: int, folds: int) -> None:
    names = [f"image_{number:03d}" for number in range(count)]
    parts = folds_of(names, folds)
    assert sorted(name for part in parts for name in part) == names
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    for fold in range(folds):
        train = Folds(folds=folds, fold=fold).part(samples(names), "train")
        assert {names[index] for index in train} == {*names} - {*parts[fold]}
        assert train == sorted(train)  # the order of the files stays


def test_the_folds_are_always_the_same() -> None:
    """They must stay: runs of several versions are compared, and checkpoints are scored later."""
    assert folds_of(list("abcdefgh"), 3) == [["a", "b", "d"], ["e", "f", "g"], ["c", "h"]]


def test_the_order_of_the_files_does_not_matter() -> None:
    names = [f"é{number}" for number in range(50)]
    assert folds_of(names, 4) == folds_of(names[::-1], 4)
    assert folds_of(names[::2] + names[1::2], 4, fold_groups=r"\d") == folds_of(
        names, 4, fold_groups=r"\d"
    )


def test_a_group_is_in_one_fold() -> None:
    for pattern in ("^[a-g]", "([a-g])_", "^(.)_(.)"):
        parts = folds_of(PATIENTS, 3, fold_groups=pattern)
        assert sorted(name for part in parts for name in part) == sorted(PATIENTS)
        owners = [{name[0] for name in part} for part in parts]
        assert sum(map(len, owners)) == len(set.union(*owners)) == 7
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 2  # the larger groups are dealt out first


def test_a_group_for_each_sample_is_no_group() -> None:
    names = [f"{number}" for number in range(17)]
    assert folds_of(names, 4, fold_groups=".+") == folds_of(names, 4)


def test_the_splits_of_a_dataset(tmp_path: Path) -> None:
    names = [f"{number:02d}" for number in range(11)]
    fill(tmp_path, *names)
    fill(tmp_path / "other", "v", "w")
    other = {"images": "other/i", "masks": "other/m"}
    seen: list[str] = []
    for fold in range(4):
        keys = {"folds": 4, "fold": fold, "val": other, "test": other}
        train, val = (names_of(tmp_path, split, **keys) for split in ("train", "val"))
        assert sorted(train + val) == names
        assert train == sorted(train)
        assert names_of(tmp_path, "test", **keys) == ["v", "w"]
        assert names_of(tmp_path, "val", folds=4, fold=fold) == val  # no val split is needed
        seen += val
    assert sorted(seen) == names
    assert names_of(tmp_path, "val", val=other) == ["v", "w"]


def test_names_are_chosen_before_the_cut(tmp_path: Path) -> None:
    fill(tmp_path, *"abcdefgh")
    train = {**FOLDERS, "names": ["a", "b", "c", "d"]}
    parts = [names_of(tmp_path, "val", train=train, folds=2, fold=fold) for fold in range(2)]
    assert [sorted(part) for part in parts] == folds_of(list("abcd"), 2)


def test_lists_have_folds_and_their_order_does_not_matter(tmp_path: Path) -> None:
    fill(tmp_path, *"abcdefgh")
    for file, names in (("one.txt", "abcdefgh"), ("two.txt", "hgfedcba")):
        lines = [f"i/{name}.png\tm/{name}.png\n" for name in names]
        (tmp_path / file).write_text("".join(lines))
    parts = [
        {files.image.stem for files in build(
            tmp_path, "val", name="list", train={"list": file}, folds=3, fold=1).files}
        for file in ("one.txt", "two.txt")
    ]  # fmt: skip
    assert parts[0] == parts[1]
    assert len(parts[0]) in (2, 3)


def test_an_image_that_is_in_two_folds_is_found(tmp_path: Path) -> None:
    fill(tmp_path, *"ab")
    (tmp_path / "i/b.png").write_bytes((tmp_path / "i/a.png").read_bytes())
    train, val = (build(tmp_path, split, folds=2, fold=0) for split in ("train", "val"))
    (found,) = find_duplicates(train, val)
    assert (found.kind, found.splits) == ("overlap", ("train", "val"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"folds": 1, "fold": 0}, r"dataset\.folds must be at least 2, got 1; leave it out to"),
        ({"folds": 5}, r"dataset\.folds=5 needs dataset\.fold, the fold to validate on, from 0 to"
         r" 4; to train on each of them, use -m and dataset\.fold=0,1,2,3,4$"),
        ({"folds": 50}, r"dataset\.folds=50 .* from 0 to 49; .* dataset\.fold=0,1,2,3,4,5,\.\.\.$"),
        ({"folds": 5, "fold": 5}, r"dataset\.fold must be from 0 to 4, got 5; dataset\.folds is"),
        ({"folds": 5, "fold": -1}, r"dataset\.fold must be from 0 to 4, got -1"),
        ({"fold": 0}, r"dataset\.fold=0 needs dataset\.folds, the number of folds; set it, or"),
        ({"fold_groups": "a"}, r"dataset\.fold_groups=a needs dataset\.folds"),
        ({"folds": 2.5, "fold": 0}, r"dataset\.folds must be a whole number or null, got 2\.5"),
        ({"folds": 2, "fold": "x"}, r"dataset\.fold must be a whole number or null, got 'x'"),
        ({"folds": 2, "fold": True}, r"dataset\.fold must be a whole number or null, got True"),
        ({"folds": 2, "fold": 0, "fold_groups": "("}, r"dataset\.fold_groups='\(' is not a reg"),
        ({"folds": 2, "fold": 0, "val_share": 0.2}, r"dataset\.folds=2 and dataset\.val_share=0\.2"
         r" both choose the validation samples; leave one of them out"),
        ({"fold": 0, "folds": 2, "flods": 2}, r"dataset\.flods: .* did you mean 'folds'"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_wrong_keys(tmp_path: Path, split: str, keys: dict[str, Any], message: str) -> None:
    fill(tmp_path, *"abcdef")
    with pytest.raises(ConfigError, match=rf"^{message}"):
        build(tmp_path, split, test=FOLDERS, **keys)


def test_data_that_does_not_fit(tmp_path: Path) -> None:
    fill(tmp_path, "p1_a", "p1_b", "p2_a")
    for keys, message in (
        ({"folds": 4}, r"dataset\.folds=4 needs at least 4 samples, but the training split has 3;"
         r" lower dataset\.folds, or add samples$"),
        ({"folds": 3, "fold_groups": r"p\d"}, r"dataset\.folds=3 needs at least 3 groups, but"
         r" dataset\.fold_groups='p\\\\d' finds 2 in 3 samples \(p1, p2\); lower dataset\.folds, or"
         r" change the expression$"),
        ({"folds": 2, "fold_groups": "p1"}, r"i/p2_a\.png: dataset\.fold_groups='p1' finds no group"
         r" in the name 'p2_a'; give an expression that matches the name of every sample$"),
        ({"folds": 2, "fold_groups": "(p1)|p2"}, "finds no group in the name 'p2_a'"),
        ({"folds": 2, "fold_groups": "x*"}, "finds no group in the name 'p1_a'"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=message):
            build(tmp_path, "val", fold=0, **keys)


def test_a_dataset_without_files_has_no_folds() -> None:
    with pytest.raises(ConfigError, match=r"dataset 'shapes' has no parameter 'folds'"):
        DATASETS.build({"name": "shapes", "folds": 2, "fold": 0}, split="val")
