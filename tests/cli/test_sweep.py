"""Sweeps: several runs from one command line, in one directory."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segtrain.cli.main import run_command
from segtrain.engine.status import lock, read_status
from segtrain.engine.sweep_directory import SweepDirectory
from tests.helpers import ROOT, THREE_STEPS

LOSSES = [*THREE_STEPS, "-m", "loss=cross_entropy,focal", "sweep_dir=sweep"]


@pytest.fixture(autouse=True)
def _own_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py"])


def sweep(words: list[str]) -> int:
    return run_command("train", words)


def content(directory: str = "sweep") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(directory) / "sweep.json").read_text())
    return found


def states(directory: str = "sweep") -> list[str]:
    return [row["state"] for row in content(directory)["runs"]]


def folder(word: str) -> Path:
    (found,) = Path("sweep").glob(f"*{word}*")
    return found


# ---------------------------------------------------------------- the directory


def test_a_sweep_is_one_directory(capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep([*LOSSES, "seed=0,1"]) == 0
    found = content()
    assert found["grid"] == {"loss": ["cross_entropy", "focal"], "seed": ["0", "1"]}
    assert found["command"][0] == "-m"
    assert states() == ["finished"] * 4
    names = [row["dir"] for row in found["runs"]]
    assert [name.rpartition("-")[0] for name in names] == [
        *("loss=cross_entropy,seed=0", "loss=cross_entropy,seed=1"),
        *("loss=focal,seed=0", "loss=focal,seed=1"),
    ]
    for row in found["runs"]:
        path = Path("sweep") / row["dir"]
        assert json.loads((path / "results.json").read_text())["step"] == 3
        assert "after 3 steps" in (path / "train.log").read_text()
        assert row["overrides"][-2].startswith("loss=")
    groups = json.loads(Path("sweep/comparison.json").read_text())["groups"]
    assert [group["seeds"] for group in groups] == [[0, 1], [0, 1]]
    shown = " ".join(capsys.readouterr().err.split())
    assert "between focal and cross_entropy" in shown or "than cross_entropy" in shown


def test_without_sweep_dir_it_lies_in_outputs() -> None:
    assert sweep([*THREE_STEPS, "-m", "seed=0,1", "name=mine"]) == 0
    (found,) = Path("outputs/sweeps/mine").glob("*/sweep.json")
    assert len(json.loads(found.read_text())["runs"]) == 2


def test_a_sweep_is_checked_before_it_starts(last_line: Callable[[], str]) -> None:
    assert sweep([*LOSSES, "loss.gamma=2"]) == 2
    assert "'cross_entropy' has no parameter 'gamma'" in last_line()
    assert sweep([*THREE_STEPS, "-m", "loss=cross_entropy,focall", "sweep_dir=sweep"]) == 2
    assert "did you mean 'focal'?" in last_line()
    assert not Path("sweep").exists()


def test_a_dry_run_lists_and_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep([*LOSSES, "seed=range(0,2)", "--dry-run"]) == 0
    shown = capsys.readouterr().err
    assert "4 runs in sweep" in shown
    assert "loss=focal,seed=1-" in shown
    assert not Path("sweep").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-m"], "-m needs a key with several values"),
        (["-m", "seed=0,0"], "the grid has the run seed=0 twice"),
        (["-m", "seed=0,1", "run_dir=x"], "run_dir=x: a sweep has sweep_dir="),
        (["-m", "seed=0,1", "resume=auto"], "resume=auto needs sweep_dir="),
        (["-m", "seed=0,1", "resume=x.pt"], "a sweep takes resume=auto only"),
        (["-m", "optimizer.lr=interval(0,1)"], "optimizer.lr=interval(0,1): an interval needs"),
        (["sweep_dir=x"], "one run has run_dir="),
        (["--dry-run"], "add -m"),
        (["-m", "seed=0,1", "hydra.sweeper.custom_search_space=os.system"], "names code to run"),
        (["-m", "seed=0,1", "hydra/launcher=jobib"], "did you mean 'joblib'?"),
        (["-m", "seed=0,1", "hydra/sweeper=basic,optuna"], "hydra/sweeper takes one value"),
        (["-m", "seed=0,1", "hydra.launcher.n_jobs=2"], "hydra.launcher.n_jobs: Key 'n_jobs' not"),
        (["-m", "seed=0,1", "hydra.sweeper.storage=sqlite:///x.db"], "kept in memory"),
    ],
)
def test_mistakes(words: list[str], message: str, last_line: Callable[[], str]) -> None:
    assert sweep([*THREE_STEPS, *words]) == 2
    assert message in last_line()
    assert not Path("outputs").exists()


def test_awkward_values_have_folders_that_are_safe() -> None:
    words = ["augmentation.crop_size=[32,32],[48,48]", "name='a b/../c','ünï'"]
    assert sweep([*THREE_STEPS, "-m", *words, "sweep_dir=sweep"]) == 0
    names = [row["dir"] for row in content()["runs"]]
    assert len(set(names)) == 4
    assert all(len(name) <= 100 and "/" not in name for name in names)
    assert states() == ["finished"] * 4


def test_a_sweep_leaves_the_loggers_of_libraries_alone() -> None:
    library = logging.getLogger("timm.models._builder")
    assert sweep([*THREE_STEPS, "-m", "seed=0,1"]) == 0
    assert not library.disabled


# ---------------------------------------------------------------- runs that fail


def test_a_failed_run_does_not_end_the_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*THREE_STEPS, "trainer.max_steps=4", "-m", "optimizer.lr=1e30,0.001", "seed=0,1"]
    assert sweep([*words, "sweep_dir=sweep"]) == 5
    assert states() == ["failed", "failed", "finished", "finished"]
    shown = capsys.readouterr().err
    assert "NaN or infinite" in shown.splitlines()[-1]
    assert "2 of 4 runs failed; the first is optimizer.lr=1e+30,seed=0-" in shown
    failed = json.loads(Path("sweep/comparison.json").read_text())["failed"]
    assert [item["exit_code"] for item in failed] == [5, 5]


def test_a_run_that_dies_on_its_data_is_a_row() -> None:
    """The exit code is that of the first failure in the order of the grid."""
    base = [word for word in THREE_STEPS if not word.startswith("dataset.")]
    words = [*base, "dataset=folder", "dataset.num_classes=2", "dataset.root=nowhere"]
    assert sweep([*words, "-m", "seed=0,1", "sweep_dir=sweep"]) == 3
    assert states() == ["failed", "failed"]
    status = read_status(folder("seed=0"))
    assert status is not None
    assert status.exit_code == 3
    assert "nowhere" in str(status.reason)
    assert not (folder("seed=0") / "results.json").exists()


def test_a_folder_that_cannot_be_written_ends_no_other_run(
    monkeypatch: pytest.MonkeyPatch, last_line: Callable[[], str]
) -> None:
    add = SweepDirectory.add

    def full(self: SweepDirectory, overrides: list[str]) -> Path:
        if "seed=0" in overrides and Path("sweep/sweep.json").exists():
            raise OSError(28, "No space left on device")
        return add(self, overrides)

    monkeypatch.setattr(SweepDirectory, "plan", lambda *_: None)
    monkeypatch.setattr(SweepDirectory, "add", full)
    Path("sweep").mkdir()
    content = {"command": [], "grid": {"seed": ["0", "1"]}, "runs": []}
    Path("sweep/sweep.json").write_text(json.dumps(content))
    assert sweep([*THREE_STEPS, "-m", "seed=0,1", "sweep_dir=sweep", "resume=auto"]) == 0
    assert states() == ["finished"]


# ---------------------------------------------------------------- finishing a sweep


def test_only_what_is_missing_runs(last_line: Callable[[], str]) -> None:
    assert sweep(LOSSES) == 0
    assert sweep(LOSSES) == 7
    assert "is not empty: add resume=auto" in last_line()
    before = folder("focal").joinpath("results.json").stat().st_mtime_ns
    assert sweep([*LOSSES, "seed=0,1", "resume=auto"]) == 0
    assert folder("loss=focal-").joinpath("results.json").stat().st_mtime_ns == before
    assert len(content()["runs"]) == 6
    assert sweep([*LOSSES, "loader.num_workers=0", "trainer.device=cpu", "resume=auto"]) == 0
    assert len(content()["runs"]) == 6


def test_failed_runs_start_again_and_stopped_ones_resume() -> None:
    words = [*THREE_STEPS, "-m", "loss=cross_entropy,focal", "sweep_dir=sweep"]
    assert sweep([*words, "trainer.stop_after=2"]) == 0
    assert states() == ["stopped", "stopped"]
    focal = folder("focal")
    status = json.loads((focal / "status.json").read_text())
    (focal / "status.json").write_text(json.dumps({**status, "state": "failed"}))
    assert sweep([*words, "trainer.stop_after=2", "resume=auto"]) == 0
    assert (focal / "attempt-1/checkpoints/last.pt").exists()
    assert not (folder("cross_entropy") / "attempt-1").exists()
    lines = (folder("cross_entropy") / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def test_runs_of_an_earlier_command_do_not_fail_a_later_one() -> None:
    words = [*THREE_STEPS, "-m", "loss=focal", "seed=0,1", "sweep_dir=sweep"]
    assert sweep([*words, "trainer.max_steps=4", "optimizer.lr=1e30"]) == 5
    assert sweep([*words, "optimizer.lr=0.001", "resume=auto"]) == 0
    assert states() == ["failed", "failed", "finished", "finished"]


@pytest.mark.fault("F7")
def test_two_sweeps_in_one_directory_are_kept_apart(last_line: Callable[[], str]) -> None:
    Path("sweep").mkdir()
    with lock(Path("sweep")):
        assert sweep([*LOSSES, "resume=auto"]) == 7
    assert last_line() == "error: sweep_dir sweep is in use by another process"


def test_a_damaged_list_is_named(last_line: Callable[[], str]) -> None:
    Path("sweep").mkdir()
    Path("sweep/sweep.json").write_text("{")
    assert sweep([*LOSSES, "resume=auto"]) == 4
    assert "sweep/sweep.json is not a valid sweep" in last_line()
    Path("sweep/sweep.json").unlink()
    assert sweep([*LOSSES, "resume=auto"]) == 0
    assert states() == ["finished", "finished"]


def start(words: list[str]) -> subprocess.Popen[str]:
    """Start a sweep in a process group of its own."""
    command = [sys.executable, str(ROOT / "tools/train.py"), *words]
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=Path.cwd()
    )


def wait_for_step(pattern: str, step: int) -> None:
    """Wait until a run of the sweep has done a step."""
    for _ in range(1200):
        for path in Path("sweep").glob(f"{pattern}/metrics.jsonl"):
            if f'"step": {step},' in path.read_text():
                return
        time.sleep(0.05)
    pytest.fail(f"no run {pattern} reached step {step}")


LONG = [*THREE_STEPS, "trainer.max_steps=4000", "-m", "seed=0,1", "sweep_dir=sweep"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_sweep_and_names_how_to_finish_it(number: int) -> None:
    process = start(LONG)
    wait_for_step("seed=0*", 3)
    process.send_signal(number)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert shown.splitlines()[-1] == (
        "error: interrupted: 0 of 2 runs are finished; add sweep_dir=sweep resume=auto to finish"
        " the others"
    )
    assert states() == ["stopped", "pending"]


@pytest.mark.fault("F1")
def test_a_killed_run_resumes() -> None:
    process = start([*LONG, "trainer.checkpoint_every=1"])
    wait_for_step("seed=0*", 3)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert read_status(folder("seed=0")).state == "killed"  # type: ignore[union-attr]
    step = json.loads((folder("seed=0") / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    words = [*LONG, "trainer.checkpoint_every=1", "resume=auto"]
    process = start(words)
    wait_for_step("seed=0*", step + 20)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    log = (folder("seed=0") / "train.log").read_text()
    assert "resuming from" in log
