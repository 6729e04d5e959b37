"""Every command sees the same folds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from segtrain.cli.main import run_command
from segtrain.data import DATASETS, FileDataset
from tests.helpers import TINY

LOG = (
    "dataset.folds=3: the val split is fold 1 of the training files, and the train split is the"
    " other folds; dataset.val is not used"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Seven samples for training; the paths of the validation split, images/val, do not exist."""
    rng = np.random.default_rng(0)
    for folder, shape in (("images", (32, 32, 3)), ("masks", (32, 32))):
        (tmp_path / folder / "train").mkdir(parents=True)
        for number in range(7):
            pixels = rng.integers(0, 256 if folder == "images" else 2, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / "train" / f"{number}.png")
    return tmp_path


def words(root: Path) -> list[str]:
    return [
        *("dataset=folder", f"dataset.root={root}", "dataset.num_classes=2"),
        *(f"plugins=[{TINY}]", "model=tiny", "trainer.batch_size=2", "loader.num_workers=0"),
        *("trainer.max_steps=2", "trainer.device=cpu", f"run_dir={root / 'run'}"),
    ]


def val_names(section: dict[str, Any]) -> list[str]:
    dataset = DATASETS.build(section, split="val")
    assert isinstance(dataset, FileDataset)
    return [files.name for files in dataset.files]


def per_image(path: Path) -> list[str]:
    return sorted(str(name) for name in np.load(path)["names"])


def test_a_checkpoint_is_scored_on_its_fold(root: Path, messages: list[str]) -> None:
    run = root / "run"
    assert run_command("train", [*words(root), "dataset.folds=3", "dataset.fold=1"]) == 0
    assert "".join(messages).count(LOG) == 1
    section = yaml.safe_load((run / "config.yaml").read_text())["dataset"]
    assert (section["folds"], section["fold"], section["fold_groups"]) == (3, 1, None)
    fold = val_names(section)
    assert len(fold) == 2
    assert per_image(run / "per_image.npz") == sorted(fold)
    output = root / "scores.json"
    given = [f"checkpoint={run / 'checkpoints/last.pt'}", f"output={output}", "device=cpu"]
    assert run_command("evaluate", given) == 0
    result = json.loads((run / "results.json").read_text())
    assert json.loads(output.read_text())["mIoU"] == pytest.approx(result["mIoU"])
    assert per_image(output.with_suffix(".npz")) == sorted(fold)
    assert run_command("evaluate", [*given, "dataset.fold=0"]) == 0
    assert not {*per_image(output.with_suffix(".npz"))} & {*fold}


def test_a_sweep_validates_on_each_sample_once(root: Path) -> None:
    given = ["-m", "dataset.folds=3", "dataset.fold=0,1,2", f"sweep_dir={root / 'sweep'}"]
    assert run_command("train", [*words(root)[:-1], *given]) == 0
    paths = (root / "sweep").glob("*/per_image.npz")
    found = [name for path in paths for name in per_image(path)]
    assert sorted(found) == [f"{number}" for number in range(7)]


def test_inspect_sees_the_fold(root: Path, messages: list[str]) -> None:
    given = [*words(root)[:3], "dataset.folds=3", "dataset.fold=1", f"output={root / 'report'}"]
    assert run_command("inspect", given) == 0
    assert "".join(messages).count(LOG) == 1
    splits = json.loads((root / "report/report.json").read_text())["splits"]
    assert {name: split["images"] for name, split in splits.items()} == {"train": 5, "val": 2}


@pytest.mark.fault("F36")
def test_an_image_that_is_in_two_folds_is_refused_where_it_is_in_two_splits(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "images/train/6.png").write_bytes((root / "images/train/0.png").read_bytes())
    codes = [
        run_command(
            "train",
            [
                *words(root),
                "dataset.folds=7",
                f"dataset.fold={fold}",
                f"run_dir={root / str(fold)}",
            ],
        )
        for fold in fold_of(root, "0", "1", "6")
    ]
    assert codes == [3, 0, 3]
    assert capsys.readouterr().err.count("in both dataset.train and dataset.val") == 2


def fold_of(root: Path, *names: str) -> list[int]:
    """The fold of each name, if every sample is a fold of its own."""
    folder = {"images": "images/train", "masks": "masks/train"}
    spec = {"name": "folder", "root": str(root), "num_classes": 2, "train": folder, "folds": 7}
    held = [val_names({**spec, "fold": fold}) for fold in range(7)]
    return [held.index([name]) for name in names]


def test_wrong_keys_and_too_few_samples(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given, code, message in (
        (["dataset.folds=3"], 2, "dataset.folds=3 needs dataset.fold, the fold to validate on"),
        (["dataset.folds=3", "dataset.fold=3"], 2, "dataset.fold must be from 0 to 2, got 3"),
        (["dataset.folds=9", "dataset.fold=3"], 3, "dataset.folds=9 needs at least 9 samples, but"),
    ):
        for command in ("train", "inspect"):
            keys = words(root) if command == "train" else words(root)[:3]
            assert run_command(command, [*keys, *given]) == code
            assert message in capsys.readouterr().err
    assert not (root / "run").exists()
