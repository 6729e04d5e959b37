"""Evaluation from the command line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segtrain.cli.main import run_command
from segtrain.metrics import METRICS
from segtrain.models import MODELS
from tests.helpers import THREE_STEPS, TINY


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_evaluate_gives_the_number_of_training(tmp_path: Path) -> None:
    words = ["run_dir=run", "trainer.ema_decay=0.5", "trainer.precision=bf16"]
    assert run_command("train", [*THREE_STEPS, *words]) == 0
    trained = json.loads(Path("run/results.json").read_text())
    for checkpoint in ("run", "run/checkpoints/last.pt"):
        given = [f"checkpoint={checkpoint}", "split=val", "output=scores.json", "device=cpu"]
        assert run_command("evaluate", given) == 0
        scores = json.loads(Path("scores.json").read_text())
        assert scores["mIoU"] == trained["mIoU"]
        assert scores["per_class_iou"] == trained["per_class_iou"]
        assert scores["checkpoint"] == checkpoint
        assert scores["evaluation"]["window"] is None
        assert scores["precision"] == "bf16"
    assert run_command("evaluate", [*given, "precision=fp32"]) == 0
    found = json.loads(Path("scores.json").read_text())
    assert found["precision"] == "fp32"
    counts = np.load("scores.npz")
    iou = counts["tp"].sum(0) / (counts["tp"] + counts["fp"] + counts["fn"]).sum(0)
    assert found["mIoU"] == pytest.approx(iou.mean())
    assert found["mIoU"] == pytest.approx(trained["mIoU"], abs=0.02)


def test_the_worst_and_best_images_are_listed() -> None:
    assert run_command("train", [*THREE_STEPS, "run_dir=run", "trainer.best=dice"]) == 0
    given = ["checkpoint=run", "output=scores.json", "device=cpu", "list_images=1"]
    assert run_command("evaluate", given) == 0
    images = json.loads(Path("scores.json").read_text())["images"]
    counts = np.load("scores.npz")
    twice, wrong = 2 * counts["tp"], counts["fp"] + counts["fn"]
    with np.errstate(invalid="ignore"):
        dice = np.nanmean(twice / (twice + wrong), axis=1)
    assert images["score"] == "dice"
    for kind, place in (("worst", dice.argmin()), ("best", dice.argmax())):
        (image,) = images[kind]
        assert (image["name"], image["value"]) == (
            counts["names"][place],
            pytest.approx(dice[place]),
        )
        assert image["class"] in counts["classes"]
    given = ["checkpoint=run", "output=scores.json", "device=cpu", "evaluation.metrics=[accuracy]"]
    assert run_command("evaluate", given) == 0
    assert json.loads(Path("scores.json").read_text())["images"]["score"] == "mIoU"
    assert run_command("evaluate", [*given, "list_images=0"]) == 0
    assert "images" not in json.loads(Path("scores.json").read_text())


def test_evaluate_on_another_dataset(last_line: Callable[[], str]) -> None:
    assert run_command("train", [*THREE_STEPS, "run_dir=run"]) == 0
    assert run_command("evaluate", ["checkpoint=run", "dataset.num_val=2", "device=cpu"]) == 0
    assert (
        run_command("evaluate", ["checkpoint=run", "dataset=folder", "dataset.num_classes=2"]) == 3
    )
    assert run_command("evaluate", ["checkpoint=nothing"]) == 4
    assert "nothing" in last_line()
    assert run_command("evaluate", []) == 2
    assert "checkpoint" in last_line()
    assert run_command("evaluate", ["checkpoint=run", "spilt=val"]) == 2
    assert "did you mean 'split'?" in last_line()


def test_evaluate_on_the_test_split(last_line: Callable[[], str]) -> None:
    assert run_command("train", [*THREE_STEPS, "run_dir=run"]) == 0
    given = ["checkpoint=run", "split=test", "output=scores.json", "device=cpu"]
    assert run_command("evaluate", given) == 2
    assert "dataset.num_test=0, so there is no test split" in last_line()
    assert run_command("evaluate", [*given, "dataset.num_test=5"]) == 0
    scores = json.loads(Path("scores.json").read_text())
    assert scores["split"] == "test"
    assert len(scores["per_class_iou"]) == 6


@pytest.mark.fault("F4")
@pytest.mark.parametrize("command", ["evaluate", "predict"])
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"format": 1}, "lacks 'model'"),
        ({"format": 2}, "format 2"),
        ({"weights": 1}, "not written by segtrain"),
        (b"junk", "damaged or not a checkpoint"),
    ],
)
def test_what_is_no_checkpoint_is_refused(
    command: str, content: object, sentence: str, tmp_path: Path, last_line: Callable[[], str]
) -> None:
    if isinstance(content, bytes):
        (tmp_path / "a.pt").write_bytes(content)
    else:
        torch.save(content, tmp_path / "a.pt")
    (tmp_path / "in").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "in" / "a.png")
    words = ["checkpoint=a.pt", *(["input=in", "output=out"] if command == "predict" else [])]
    assert run_command(command, words) == 4
    assert sentence in last_line()


@pytest.mark.fault("F55")
def test_a_checkpoint_with_code_is_refused(tmp_path: Path, last_line: Callable[[], str]) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'canary'}",)

    torch.save({"format": 1, "model": Payload()}, tmp_path / "evil.pt")
    assert run_command("evaluate", ["checkpoint=evil.pt"]) == 4
    assert "could run code" in last_line()
    assert not (tmp_path / "canary").exists()


def test_a_plugin_model_is_asked_for_by_name(
    tmp_path: Path, last_line: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_command("train", [*THREE_STEPS, "run_dir=run"]) == 0
    monkeypatch.setattr(
        MODELS, "_factories", {k: v for k, v in MODELS._factories.items() if k != "tiny"}
    )
    assert run_command("evaluate", ["checkpoint=run"]) == 4
    assert f"plugins=[{TINY}]" in last_line()


def test_a_metric_of_a_plugin_is_asked_for_by_name(
    tmp_path: Path, last_line: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    factories = dict(METRICS._factories)
    monkeypatch.setattr(METRICS, "_factories", dict(factories))
    (tmp_path / "area.py").write_text(
        "import segtrain\n\n\n"
        '@segtrain.register_metric("area_in_test")\n'
        "class Area(segtrain.MaskMetric):\n"
        "    def image_value(self, prediction, target):\n"
        "        return abs(int(prediction.sum()) - int(target.sum()))\n"
    )
    words = [*THREE_STEPS[1:], f"plugins=[area.py,{TINY}]", "evaluation.metrics=[area_in_test]"]
    assert run_command("train", [*words, "run_dir=run"]) == 0
    monkeypatch.setattr(METRICS, "_factories", factories)
    assert run_command("evaluate", ["checkpoint=run"]) == 4
    assert "unknown metric 'area_in_test'" in (line := last_line())
    assert f"add plugins=[area.py,{TINY}]" in line
