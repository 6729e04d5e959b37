"""Training from the command line: what a run writes, and what ends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from segtrain.assembly.check import check_config
from segtrain.cli import main as cli
from segtrain.cli.compose import compose_config
from segtrain.cli.main import run_command
from segtrain.commands import train as commands
from segtrain.losses import LOSSES
from tests.helpers import ROOT, THREE_STEPS, TINY


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_loss_of_the_users_own(
    tmp_path: Path, last_line: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOSSES, "_factories", dict(LOSSES._factories))
    (tmp_path / "my_losses.py").write_text(
        "import segtrain\n\n\n"
        '@segtrain.register_loss("mine_in_test")\n'
        "def mine(logits, target, *, power: float = 2.0):\n"
        "    return (1 - logits.softmax(1).gather(1, target[:, None])[:, 0]) ** power\n"
    )
    words = [*THREE_STEPS[1:], f"plugins=[my_losses.py,{TINY}]", "loss=mine_in_test", "run_dir=run"]
    assert run_command("train", [*words, "loss.pwr=3"]) == 2
    assert "did you mean 'power'?" in last_line()
    assert run_command("train", [*words, "loss.power=abc"]) == 2
    assert "loss.power must be a number" in last_line()
    mined = ["mining=ohem", "mining.min_kept=50", "criterion.strip_rows=7"]
    assert run_command("train", [*words, "loss.power=3", *mined]) == 0
    assert yaml.safe_load(Path("run/config.yaml").read_text())["loss"]["power"] == 3.0


def test_a_run_writes_its_directory(tmp_path: Path) -> None:
    assert (
        run_command(
            "train", [*THREE_STEPS, "name=mine", "criterion.output_weights={out:1,aux:0.2}"]
        )
        == 0
    )
    (run,) = (tmp_path / "outputs" / "mine").iterdir()
    found = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    expected = {"checkpoints/last.pt", "checkpoints/best.pt", "config.yaml", "metrics.jsonl"}
    assert expected | {"results.json", "train.log"} <= found
    assert any(name.startswith("tensorboard/") for name in found)
    result = json.loads((run / "results.json").read_text())
    assert result["step"] == 3
    assert list(result["per_class_iou"]) == ["background", "disc", "box", "line", "ring", "dot"]
    assert {"mIoU", "pixel_accuracy", "mean_accuracy", "seconds"} <= result.keys()
    first = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert first["parts"].keys() == {"out/cross_entropy", "aux/cross_entropy"}
    assert first["loss"] == pytest.approx(
        first["parts"]["out/cross_entropy"] + 0.2 * first["parts"]["aux/cross_entropy"], rel=1e-5
    )


@pytest.mark.fault("F46")
def test_a_loss_that_is_not_finite_ends_the_run_before_the_step(
    tmp_path: Path, last_line: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOSSES, "_factories", dict(LOSSES._factories))
    (tmp_path / "bad.py").write_text(
        "import segtrain\n\ncalls = []\n\n\n"
        '@segtrain.register_loss("nan_in_test")\n'
        "def bad(logits, target):\n"
        "    calls.append(1)\n"  # three trials come first, then one call for each step
        "    return logits.pow(2).mean(1) * (float('nan') if len(calls) == 7 else 1.0)\n"
    )
    words = [
        *THREE_STEPS[1:],
        f"plugins=[bad.py,{TINY}]",
        "loss=nan_in_test",
        "run_dir=run",
        "model.aux=false",
    ]
    words += ["trainer.max_steps=9", "trainer.checkpoint_every=1", "criterion.strip_rows=null"]
    assert run_command("train", words) == 5
    assert "at step" in last_line()
    from segtrain.engine.checkpoint import load_checkpoint

    state = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")
    assert all(weights.isfinite().all() for weights in state["model"].values())


@pytest.mark.fault("F20")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_ends_the_run(tmp_path: Path, number: int, code: int) -> None:
    words = [
        *THREE_STEPS,
        "run_dir=run",
        "trainer.max_steps=100000",
        "trainer.evaluate_every=100000",
    ]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tools" / "train.py"), *words],
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 90
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code, error
    assert "resume=auto" in error.strip().splitlines()[-1]
    assert (tmp_path / "run" / "checkpoints" / "last.pt").is_file()


@pytest.mark.fault("F31")
def test_a_wrong_label_stops_before_training(tmp_path: Path, last_line: Callable[[], str]) -> None:
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (tmp_path / kind / split).mkdir(parents=True)
        for index in range(4):
            pixels = np.full((40, 40, 3), index * 20 + (split == "val"), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / split / f"{index}.png")
            mask = np.zeros((40, 40), dtype=np.uint8)
            mask[:2, :3] = 7 if (split, index) == ("val", 2) else 1
            Image.fromarray(mask).save(tmp_path / "masks" / split / f"{index}.png")
    words = [*(word for word in THREE_STEPS if not word.startswith("dataset.")), "dataset=folder"]
    assert run_command("train", [*words, "dataset.num_classes=2", "run_dir=run"]) == 3
    message = last_line()
    assert "masks/val/2.png" in message
    assert "7" in message
    assert "6 pixels" in message
    assert not (tmp_path / "run").exists()
    assert (
        run_command("train", [*words, "dataset.num_classes=2", "dataset.label_map={0:0,1:1,7:1}"])
        == 0
    )


def test_commands_can_be_used_without_a_shell(tmp_path: Path) -> None:
    result = commands.train(check_config(compose_config([*THREE_STEPS, "run_dir=run"])))
    assert result["run_dir"] == "run"
    assert 0 <= result["mIoU"] <= 1


def test_a_refused_resume_leaves_the_run_as_it_was(
    tmp_path: Path, last_line: Callable[[], str]
) -> None:
    assert run_command("train", [*THREE_STEPS, "run_dir=run"]) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").glob("*.*")}
    assert (
        run_command("train", [*THREE_STEPS, "run_dir=run", "resume=auto", "model.aux=false"]) == 2
    )
    assert (
        run_command("train", [*THREE_STEPS, "run_dir=run", "resume=auto", "trainer.max_steps=2"])
        == 2
    )
    assert "beyond the" in last_line()
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").glob("*.*")}


@pytest.mark.fault("F7")
def test_another_runs_directory_is_not_taken_over(last_line: Callable[[], str]) -> None:
    for name in ("one", "two"):
        assert run_command("train", [*THREE_STEPS, f"run_dir={name}"]) == 0
    words = ["run_dir=two", "resume=one/checkpoints/last.pt"]
    assert run_command("train", [*THREE_STEPS, *words]) == 7
    assert "two" in last_line()


@pytest.mark.fault("F7")
def test_two_processes_cannot_write_one_run(tmp_path: Path, last_line: Callable[[], str]) -> None:
    assert run_command("train", [*THREE_STEPS, "run_dir=run"]) == 0
    from segtrain.engine.run_directory import Run

    first = Run(tmp_path / "run", {})
    assert run_command("train", [*THREE_STEPS, "run_dir=run", "resume=auto"]) == 7
    assert "in use" in last_line()
    first.close()
    assert run_command("train", [*THREE_STEPS, "run_dir=run", "resume=auto"]) == 0


def test_precision_may_change_on_resume() -> None:
    assert run_command("train", [*THREE_STEPS, "run_dir=run", "trainer.stop_after=2"]) == 0
    words = ["run_dir=run", "resume=auto", "trainer.precision=fp16"]
    words.append("resume_allow=[trainer.precision]")
    assert run_command("train", [*THREE_STEPS, *words]) == 0


@pytest.mark.fault("F34")
def test_images_of_one_stem_are_refused(tmp_path: Path, last_line: Callable[[], str]) -> None:
    assert run_command("train", [*THREE_STEPS, "run_dir=run"]) == 0
    (tmp_path / "in").mkdir()
    for name in ("a.png", "a.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / "in" / name)
    assert run_command("predict", ["checkpoint=run", "input=in", "output=out"]) == 3
    assert "in/a.jpg and in/a.png" in last_line()


@pytest.mark.fault("F40")
@pytest.mark.parametrize(
    "words",
    [
        ["augmentation.crop_size=[16,16]"],
        ["model=encoder_decoder", "model.backbone=hrnet_w18_small_v1", "model.head=aspp"],
    ],
)
def test_a_batch_too_small_for_batch_norm_is_one_sentence(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    small = ["trainer.batch_size=1", "trainer.max_steps=1", "loader.num_workers=0"]
    size = ["dataset.num_train=2", "dataset.num_val=1", f"run_dir={run_dir}"]
    assert cli.run_command("train", [*small, *size, *words]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "one value per channel" in error
    assert "trainer.batch_size" in error
    if "crop_size" in words[0]:
        assert not run_dir.exists()
