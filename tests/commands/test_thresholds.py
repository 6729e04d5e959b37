"""Thresholds: chosen on val, stored in the checkpoint, and used later."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from segtrain import Predictor
from segtrain.assembly.thresholds import store_thresholds
from segtrain.cli.main import run_command
from segtrain.engine.checkpoint import load_checkpoint
from segtrain.engine.status import lock
from segtrain.errors import CheckpointError, RunDirectoryBusyError
from tests.helpers import TINY, differences, in_two_processes


def write(root: Path, folders: tuple[str, ...]) -> None:
    """Images whose brightness tells, with noise, where the object is; 4 per split."""
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for number in range(4):
            masks = rng.random((len(folders), 4, 4)) < 0.3
            masks = masks.repeat(8, 1).repeat(8, 2)
            image = 90 * masks.sum(0)[..., None] + rng.integers(0, 140, (32, 32, 3))
            arrays = {"images": image.clip(0, 255), **dict(zip(folders, masks, strict=True))}
            for folder, array in arrays.items():
                path = root / split / folder / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array.astype(np.uint8)).save(path)


def words(root: Path, run: str, *more: str) -> list[str]:
    return [
        *(f"plugins=[{TINY}]", "model=tiny", "dataset=folder", f"dataset.root={root}"),
        *("trainer.batch_size=4", "loader.num_workers=0", "trainer.device=cpu"),
        *("trainer.max_steps=8", "trainer.log_images=0", "loss=bce", "trainer.ema_decay=null"),
        *("scheduler=constant", "optimizer.lr=0.05", f"run_dir={root / run}", *more),
    ]


def split_words(masks: str) -> list[str]:
    return [
        f"++dataset.{split}.{key}={value.format(split=split)}"
        for split in ("train", "val", "test")
        for key, value in (("images", "{split}/images"), ("masks", masks))
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("thresholds")
    write(root, ("masks",))
    more = ("dataset.num_classes=1", "dataset.class_names=[vessel]")
    assert run_command("train", words(root, "run", *more, *split_words("{split}/masks"))) == 0
    return root


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained / "run", tmp_path / "run")
    return tmp_path / "run"


def score(run: Path, *given: str) -> dict[str, Any]:
    output = run / "scores.json"
    common = [f"checkpoint={run}", "device=cpu", "loader.num_workers=0", f"output={output}"]
    assert run_command("evaluate", [*common, *given]) == 0
    found: dict[str, Any] = json.loads(output.read_text())
    return found


def test_a_sweep_stores_what_later_evaluations_use(
    run: Path, trained: Path, messages: list[str]
) -> None:
    before = load_checkpoint(run / "checkpoints/best.pt")
    half = score(run)
    assert "thresholds" not in half
    swept = score(run, "thresholds=sweep")
    chosen = swept["thresholds"]["vessel"]
    assert chosen != 0.5
    assert swept["per_class_iou"]["vessel"] > half["per_class_iou"]["vessel"]
    curve = swept["threshold_sweep"]
    assert len(curve["thresholds"]) == 99
    for at in (0.25, 0.5, 0.75):
        one = score(run, f"thresholds={at}")
        place = curve["thresholds"].index(at)
        assert curve["per_class"]["vessel"]["iou"][place] == one["per_class_iou"]["vessel"]
        dice = one["scores"]["dice"]["per_class"]["vessel"]
        assert curve["per_class"]["vessel"]["dice"][place] == pytest.approx(dice)
        assert one["per_class_iou"]["vessel"] <= swept["per_class_iou"]["vessel"]

    after = load_checkpoint(run / "checkpoints/best.pt")
    assert after["metadata"].pop("thresholds") == [chosen]
    assert differences(before, after) == []
    assert not list((run / "checkpoints").glob(".*"))

    messages.clear()
    test = score(run, "split=test")
    said = f"chosen on its val split: vessel {chosen:g}; thresholds=0.5 overrides them"
    assert said in "".join(messages)
    assert test["thresholds"] == {"vessel": chosen}
    assert "threshold_sweep" not in test
    given = score(run, "split=test", f"thresholds=[{chosen}]")
    assert given["per_class_iou"] == test["per_class_iou"]
    assert score(run, "split=test", "thresholds=0.5")["per_class_iou"] != test["per_class_iou"]

    predictor = Predictor.from_checkpoint(run, device="cpu")
    counts = np.zeros(3)
    for number in range(4):
        ids = predictor(trained / f"test/images/{number}.png") == 1
        mask = np.asarray(Image.open(trained / f"test/masks/{number}.png")) == 1
        counts += [(ids & mask).sum(), (ids & ~mask).sum(), (~ids & mask).sum()]
    iou = counts[0] / counts.sum()
    assert iou == pytest.approx(test["per_class_iou"]["vessel"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["thresholds=sweep", "split=test"],
            "would fit the thresholds to the split that is scored",
        ),
        (["thresholds=sweep", "class_map={}"], "leave out class_map"),
        (["thresholds=[0.5,0.5]"], "thresholds has 2 numbers, but the model has 1 logits: vessel"),
        (["thresholds=1"], "thresholds must be between 0 and 1, got 1.0"),
        (["thresholds=swepe"], "thresholds must be"),
    ],
)
def test_what_cannot_be_a_threshold_is_refused(
    run: Path, given: list[str], message: str, last_line: Callable[[], str]
) -> None:
    before = (run / "checkpoints/best.pt").read_bytes()
    assert run_command("evaluate", [f"checkpoint={run}", "device=cpu", *given]) == 2
    assert message in last_line()
    assert (run / "checkpoints/best.pt").read_bytes() == before


def test_exclusive_classes_have_no_thresholds(tmp_path: Path, last_line: Callable[[], str]) -> None:
    write(tmp_path, ("masks",))
    more = ("dataset.num_classes=2", "loss=cross_entropy", "trainer.max_steps=1")
    assert run_command("train", words(tmp_path, "run", *more, *split_words("{split}/masks"))) == 0
    for given in ("0.5", "sweep"):
        given_words = [f"checkpoint={tmp_path / 'run'}", "device=cpu", f"thresholds={given}"]
        assert run_command("evaluate", given_words) == 2
        assert "the model has 2 classes that exclude each other" in last_line()


def test_labels_have_a_threshold_each(tmp_path: Path, last_line: Callable[[], str]) -> None:
    write(tmp_path, ("a", "b"))
    more = (
        *("dataset.num_classes=2", "dataset.multi_label=true", "dataset.class_names=[one,two]"),
        *split_words("{{one: {split}/a, two: {split}/b}}"),
    )
    assert run_command("train", words(tmp_path, "run", *more)) == 0
    half, swept = score(tmp_path / "run"), score(tmp_path / "run", "thresholds=sweep")
    assert swept["thresholds"].keys() == {"one", "two"}
    for name, value in half["per_class_iou"].items():
        assert swept["per_class_iou"][name] >= value
    stored = score(tmp_path / "run")
    assert stored["per_class_iou"] == swept["per_class_iou"]
    path = tmp_path / "run/checkpoints/best.pt"
    state = load_checkpoint(path)
    state["metadata"]["thresholds"] = [0.5]
    torch.save(state, path)
    assert run_command("evaluate", [f"checkpoint={path}", "device=cpu"]) == 4
    assert "holds 1 thresholds for 2 logits" in last_line()


@pytest.mark.slow
@pytest.mark.fault("F39")
def test_two_processes_choose_the_thresholds_of_one(run: Path, tmp_path: Path) -> None:
    one = score(run, "thresholds=sweep")
    common = ("thresholds=sweep", "device=cpu", "loader.num_workers=0")
    words = (f"checkpoint={run}", f"output={tmp_path / 'two.json'}", *common)
    done = in_two_processes("evaluate", f"plugins=[{TINY}]", *words)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "two.json").read_text()) == one


def test_the_checkpoint_of_a_running_training_is_left_alone(run: Path) -> None:
    path = run / "checkpoints" / "best.pt"
    before, step = path.read_bytes(), load_checkpoint(path)["step"]
    with lock(run), pytest.raises(RunDirectoryBusyError, match="in use by another process"):
        store_thresholds(path, (0.3,), step)
    with pytest.raises(CheckpointError, match="was replaced while it was scored"):
        store_thresholds(path, (0.3,), step + 1)
    assert path.read_bytes() == before
