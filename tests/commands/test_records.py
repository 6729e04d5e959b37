"""Each run records what it was and how it ended."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import segtrain
from segtrain.cli.main import run_command
from segtrain.engine.status import read_status
from segtrain.terminal import logger
from tests.helpers import ROOT, THREE_STEPS


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The warnings of a test, in the order in which they were logged."""
    found: list[str] = []
    monkeypatch.setattr(logger, "warning", lambda text, *values: found.append(text % values))
    return found


def read(path: str) -> Any:
    return json.loads(Path(path).read_text())


def test_a_finished_run(tmp_path: Path) -> None:
    words = [*THREE_STEPS, "loss=ce_dice", "mining=ohem", "seed=3"]
    assert run_command("train", words) == 0
    (run,) = tmp_path.glob("outputs/*/*")
    assert run.parent.name == "shapes_tiny_ce_dice+ohem"
    result = read(f"{run}/results.json")
    assert result["overrides"] == words
    assert (result["preset"], result["seed"], result["state"]) == ("ce_dice+ohem", 3, "finished")
    assert (result["loss"]["name"], result["mining"]["name"]) == ("sum", "ohem")
    assert result["versions"]["torch"] == torch.__version__.split("+")[0]
    assert result["device"]["type"] == "cpu"
    assert result["scored_weights"] == "moving_average"
    assert 0 < result["seconds_per_step"] < result["seconds"]
    assert result["peak_memory_bytes"] > 2**20
    hashes = result["dataset_hash"]
    assert hashes.keys() == {"train", "val"}
    assert hashes["train"] != hashes["val"]
    status = read_status(run)
    assert status is not None
    assert (status.state, status.exit_code, status.step) == ("finished", 0, 3)


def test_the_scores_follow_from_the_counts_of_each_image() -> None:
    assert run_command("train", [*THREE_STEPS, "run_dir=run"]) == 0
    result, images = read("run/results.json"), np.load("run/per_image.npz")
    assert images["tp"].shape == (4, 6)
    assert images["tp"].dtype == np.int64
    assert sorted(images["names"]) == list(images["names"])
    assert list(images["classes"]) == list(result["per_class_iou"])
    tp, fp, fn = (images[key].sum(0) for key in ("tp", "fp", "fn"))
    with np.errstate(invalid="ignore"):
        dice = 2 * tp / (2 * tp + fp + fn)
    per_class = result["scores"]["dice"]["per_class"].values()
    found = [np.nan if value is None else value for value in per_class]
    assert found == pytest.approx(list(dice), nan_ok=True)
    assert result["scores"]["dice"]["mean"] == pytest.approx(np.nanmean(dice))
    assert result["scores"]["iou"]["mean"] == result["mIoU"]


def test_a_failed_run() -> None:
    words = [*THREE_STEPS, "run_dir=run", "optimizer.lr=1e30", "trainer.max_steps=20"]
    assert run_command("train", words) == 5
    status = read_status("run")
    assert status is not None
    assert (status.state, status.exit_code) == ("failed", 5)
    assert status.reason is not None
    assert "step" in status.reason
    result = read("run/results.json")
    assert (result["state"], result["mIoU"], result["preset"]) == ("failed", None, "cross_entropy")


def test_a_stopped_run_resumes_to_a_finished_one() -> None:
    words = [*THREE_STEPS, "run_dir=run"]
    assert run_command("train", [*words, "trainer.stop_after=2"]) == 0
    status = read_status("run")
    assert status is not None
    assert (status.state, status.step, status.exit_code) == ("stopped", 2, 0)
    assert status.reason == "trainer.stop_after is reached"
    assert read("run/results.json")["state"] == "stopped"
    assert run_command("train", [*words, "resume=auto"]) == 0
    status = read_status("run")
    assert status is not None
    assert (status.state, status.reason) == ("finished", None)
    assert read("run/results.json")["mIoU"] is not None


@pytest.mark.fault("F1")
def test_a_killed_run(tmp_path: Path) -> None:
    words = [*THREE_STEPS, "run_dir=run", "trainer.max_steps=100000"]
    command = [sys.executable, str(ROOT / "tools" / "train.py"), *words]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=tmp_path)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 90
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.1)
    running = read_status("run")
    process.kill()
    process.wait()
    killed = read_status("run")
    assert running is not None
    assert killed is not None
    assert (running.state, killed.state) == ("running", "killed")
    assert killed.pid == process.pid


def test_a_run_evaluates_at_most_twenty_times() -> None:
    words = [*THREE_STEPS, "dataset.num_train=4", "run_dir=run", "trainer.max_steps=43"]
    assert run_command("train", words) == 0
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if "evaluation" in line]
    assert steps == [*range(3, 43, 3), 43]
    assert len(steps) <= 20


@pytest.mark.fault("F8")
def test_the_best_score_may_be_of_any_metric(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*THREE_STEPS, "trainer.evaluate_every=1"]
    assert run_command("train", [*words, "run_dir=run", "trainer.best=dice[background]"]) == 0
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    scores = [line["evaluation"]["scores"] for line in lines if "evaluation" in line]
    values = [score["dice"]["per_class"]["background"] for score in scores]
    assert read("run/results.json")["best"]["dice[background]"] == max(values)
    for best, message in (
        ("dise", "metric 'dise' is not computed; did you mean 'dice'?"),
        ("hd95", "metric 'hd95' is not computed; add it to evaluation.metrics"),
        ("iou[dott]", "unknown class 'dott'; did you mean 'dot'?"),
        ("accuracy[dot]", "metric 'accuracy' has no value per class; use accuracy"),
    ):
        assert run_command("train", [*words, f"trainer.best={best}"]) == 2
        assert f"trainer.best={best}: {message}" in capsys.readouterr().err


@pytest.mark.fault("F8")
def test_a_score_to_minimise() -> None:
    words = [*THREE_STEPS, "trainer.evaluate_every=1", "evaluation.metrics=[iou,nll]"]
    assert run_command("train", [*words, "run_dir=run", "trainer.best=nll"]) == 0
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    values = [line["evaluation"]["scores"]["nll"]["mean"] for line in lines if "evaluation" in line]
    assert read("run/results.json")["best"]["nll"] == min(values)


def test_the_validation_loss_is_the_criterion_without_mining() -> None:
    words = [*THREE_STEPS, "model.aux=false", "evaluation.metrics=[iou,nll]"]
    for mining in ("none", "ohem"):
        assert run_command("train", [*words, f"run_dir={mining}", f"mining={mining}"]) == 0
    result = read("none/results.json")
    # The cross entropy without weights is the negative log-likelihood.
    assert result["val_loss"] == pytest.approx(result["scores"]["nll"]["mean"], rel=1e-4)
    result = read("ohem/results.json")
    assert result["val_loss"] == pytest.approx(result["scores"]["nll"]["mean"], rel=1e-4)


def test_train_in_python() -> None:
    result = segtrain.train(*THREE_STEPS, "run_dir=run", "loss=focal")
    assert result.run_dir == Path("run")
    assert result.scores["mIoU"] == read("run/results.json")["mIoU"]
    with pytest.raises(segtrain.ConfigError, match="did you mean 'gamma'"):
        segtrain.train(*THREE_STEPS, "loss=focal", "loss.gama=1")


def test_the_log_says_which_weights_are_scored(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("train", [*THREE_STEPS, "run_dir=run"]) == 0
    assert "those of the moving average of the weights" in Path("run/train.log").read_text()
    assert "moving average of the weights" in capsys.readouterr().err
    assert run_command("train", [*THREE_STEPS, "run_dir=raw", "trainer.ema_decay=null"]) == 0
    assert "moving average" not in Path("raw/train.log").read_text()
    assert read("raw/results.json")["scored_weights"] == "model"


def test_a_finished_run_is_not_relabelled(
    capsys: pytest.CaptureFixture[str], messages: list[str]
) -> None:
    words = [*THREE_STEPS, "run_dir=run"]
    assert run_command("train", words) == 0
    before = read("run/results.json")
    assert run_command("train", [*words, "resume=auto", "loss=dice"]) == 2
    assert (
        "last.pt is finished, but this configuration differs from its own: loss cross_en"
        in capsys.readouterr().err
    )
    assert read("run/results.json") == before
    stopped = [*THREE_STEPS, "run_dir=stopped"]
    assert run_command("train", [*stopped, "trainer.stop_after=2"]) == 0
    again = [*stopped, "resume=auto", "seed=1"]
    assert run_command("train", again) == 4
    assert run_command("train", [*again, "resume_allow=[seed]"]) == 0
    assert any(message.endswith("the new ones are used: seed 0 -> 1") for message in messages)


def test_fewer_steps_than_done_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*THREE_STEPS, "run_dir=run"]
    assert run_command("train", [*words, "trainer.stop_after=2"]) == 0
    assert run_command("train", [*words, "resume=auto", "trainer.max_steps=1"]) == 2
    assert "is at step 2, beyond the 1 steps of this run" in capsys.readouterr().err


@pytest.mark.fault("F8")
def test_a_best_score_that_is_never_defined() -> None:
    words = [*THREE_STEPS, "run_dir=run", "trainer.max_steps=1", "optimizer.lr=1e-9"]
    words += ["dataset.num_val=1", "trainer.best=recall[dot]"]  # the first image has no dot
    assert run_command("train", words) == 0
    log = Path("run/train.log").read_text()
    assert "recall[dot] n/a, best n/a" in log
    assert "there is no best.pt" in log
    assert not Path("run/checkpoints/best.pt").exists()
