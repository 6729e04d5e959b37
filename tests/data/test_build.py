"""Datasets by name, and which of their splits are configured."""

from __future__ import annotations

from typing import Any

import pytest

from segtrain.data import DATASETS, ShapesDataset
from segtrain.data.build import has_split
from segtrain.errors import ConfigError
from segtrain.schema.registry import Registry

PLACES = {"images": "i", "masks": "m"}


@pytest.mark.parametrize(
    ("spec", "split", "expected"),
    [
        ({"name": "folder", "train": PLACES}, "train", True),
        ({"name": "folder", "train": PLACES}, "val", False),
        ({"name": "folder", "train": PLACES, "val_share": 0.2}, "val", True),
        ({"name": "folder", "train": PLACES, "val_share": 0.2}, "test", False),
        ({"name": "folder", "train": PLACES, "folds": 5, "fold": 0}, "val", True),
        ({"name": "folder", "train": PLACES, "folds": 5, "fold": 0}, "test", False),
        ({"name": "folder", "train": PLACES, "folds": None}, "val", False),
        ({"name": "folder", "test": PLACES}, "test", True),
        ({"name": "folder", "test": {}}, "test", False),
        ({"name": "list", "test": None}, "test", False),
        ({"name": "webdataset", "test": {"shards": "x"}}, "test", True),
        ({"name": "coco", "test": {"annotations": "x"}}, "test", True),
        ({"name": "shapes"}, "val", True),
        ({"name": "shapes", "num_val": 0}, "val", False),
        ({"name": "shapes", "num_test": 0}, "test", False),
        ({"name": "shapes", "num_test": 1}, "test", True),
    ],
)
def test_which_splits_are_configured(spec: dict[str, Any], split: str, expected: bool) -> None:
    assert has_split(spec, split) == expected


def test_a_dataset_that_does_not_know_a_test_split(monkeypatch: pytest.MonkeyPatch) -> None:
    registry: Registry[Any] = Registry("dataset")

    @registry.register("own")
    def own(*, split: str = "train", path: str = "") -> Any:
        return ShapesDataset(split=split)

    monkeypatch.setattr(DATASETS, "_factories", registry._factories)
    assert [has_split({"name": "own"}, split) for split in ("train", "val", "test")] == [
        True,
        True,
        False,
    ]


def test_unknown_names() -> None:
    with pytest.raises(ConfigError, match="unknown dataset 'foldr'"):
        has_split({"name": "foldr"}, "test")
    with pytest.raises(ConfigError, match="split must be"):
        has_split({"name": "folder"}, "tset")
