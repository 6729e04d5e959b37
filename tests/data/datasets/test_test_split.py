"""The test split: configured like the others, and scored once, after training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segtrain.cli.main import run_command
from segtrain.data import DATASETS, FolderDataset, ShapesDataset
from segtrain.data.build import has_test_split
from segtrain.errors import ConfigError
from tests.helpers import THREE_STEPS, TINY

PLACES = {split: {"images": f"{split}/i", "masks": f"{split}/m"} for split in ("train", "test")}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for folder, shape in (("i", (32, 32, 3)), ("m", (32, 32))):
            (tmp_path / split / folder).mkdir(parents=True)
            for number in range(4):
                pixels = rng.integers(0, 256 if folder == "i" else 2, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / folder / f"{number}.png")
    return tmp_path


def test_shapes_are_the_same_with_and_without_a_test_split() -> None:
    plain, more = (ShapesDataset(split="val", num_test=number) for number in (0, 5))
    assert (plain[3].image == more[3].image).all()
    test = ShapesDataset(split="test", num_test=5)
    assert (len(test), test[0].name) == (5, "test_00000")
    assert not (test[0].image == plain[0].image).all()


def test_only_a_configured_split_exists(root: Path) -> None:
    places: dict[str, Any] = {"train": PLACES["train"], "num_classes": 2, "root": str(root)}
    with pytest.raises(ConfigError, match=r"^dataset\.test\.images is not set"):
        FolderDataset(split="test", **places)
    assert len(FolderDataset(split="test", test=PLACES["test"], **places)) == 4
    assert not has_test_split({"name": "folder", "test": None})
    assert has_test_split({"name": "folder", "test": PLACES["test"]})
    assert has_test_split({"name": "shapes", "num_test": 1})
    with pytest.raises(ConfigError, match="split must be 'train', 'val', 'test', got 'tset'"):
        DATASETS.build({"name": "shapes"}, split="tset")


def test_val_share_leaves_the_test_split_alone(root: Path) -> None:
    given: dict[str, Any] = {**PLACES, "num_classes": 2, "root": str(root), "val_share": 0.5}
    parts = [FolderDataset(split=split, **given) for split in ("train", "val", "test")]
    assert len(parts[0]) + len(parts[1]) == len(parts[2]) == 4


def words(root: Path) -> list[str]:
    return [
        *(f"plugins=[{TINY}]", "model=tiny", "dataset=folder", f"dataset.root={root}"),
        *("dataset.num_classes=2", "trainer.batch_size=2", "loader.num_workers=0"),
        *(f"dataset.{s}.{k}={s}/{k[0]}" for s in ("train", "val") for k in ("images", "masks")),
        *("++dataset.test.images=test/i", "++dataset.test.masks=test/m", "trainer.device=cpu"),
        *("trainer.max_steps=2", f"run_dir={root / 'run'}"),
    ]


def test_the_final_scores_are_those_of_the_test_split(root: Path) -> None:
    assert run_command("train", words(root)) == 0
    result = json.loads((root / "run/results.json").read_text())
    assert result["split"] == "test"
    assert result["val"]["mIoU"] == result["best"]["mIoU"]
    assert result["dataset_hash"].keys() == {"train", "val", "test"}
    output = root / "scores.json"
    checkpoint = f"checkpoint={root / 'run/checkpoints/last.pt'}"
    assert run_command("evaluate", [checkpoint, "split=test", f"output={output}"]) == 0
    assert json.loads(output.read_text())["mIoU"] == pytest.approx(result["mIoU"])
    arrays = [np.load(path) for path in (root / "run/per_image.npz", root / "scores.npz")]
    assert (arrays[0]["tp"] == arrays[1]["tp"]).all()


def test_an_image_of_the_training_split_is_refused(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "test/i/0.png").write_bytes((root / "train/i/0.png").read_bytes())
    assert run_command("train", words(root)) == 3
    assert "in both dataset.train and dataset.test" in capsys.readouterr().err
    assert not (root / "run").exists()


def test_evaluate_without_a_test_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command("train", [*THREE_STEPS, "run_dir=run"]) == 0
    assert run_command("evaluate", ["checkpoint=run", "split=test"]) == 2
    assert "dataset.num_test is 0, so there is no test split" in capsys.readouterr().err
