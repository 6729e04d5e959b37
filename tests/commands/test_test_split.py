"""The test split is scored once, after training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtrain.cli.main import run_command
from tests.helpers import TINY


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


def test_the_scores_of_several_views_have_no_loss(root: Path) -> None:
    assert run_command("train", [*words(root), "evaluation.flip=true"]) == 0
    result = json.loads((root / "run/results.json").read_text())
    assert result["val"].keys() == {"mIoU", "scores"}
    assert "test_loss" not in result


@pytest.mark.fault("F36")
def test_an_image_of_the_training_split_is_refused(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "test/i/0.png").write_bytes((root / "train/i/0.png").read_bytes())
    assert run_command("train", words(root)) == 3
    assert "in both dataset.train and dataset.test" in capsys.readouterr().err
    assert not (root / "run").exists()
