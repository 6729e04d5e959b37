"""Signals end a run with a checkpoint, whoever sends them and whatever the run does."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.faults.runs import ENDLESS, Training
from tests.helpers import TINY

SLOW = [f"plugins=[{TINY},{Path(__file__).with_name('slow.py')}]", "model=slow"]


def ends_well(run: Training, code: int, seconds: float = 30) -> str:
    start = time.monotonic()
    found, error = run.end(60)
    assert found == code, error
    assert time.monotonic() - start < seconds
    assert "Traceback" not in error, error
    assert run.no_orphans(), run.group()
    return error


@pytest.mark.fault("F20")
def test_sigterm_to_the_process_group(tmp_path: Path) -> None:
    """As SLURM and timeout send it, to the data workers as well."""
    with Training(tmp_path / "run", *ENDLESS, "loader.num_workers=2") as run:
        run.wait_for_step(3)
        run.send_to_group(signal.SIGTERM)
        error = ends_well(run, 143)
        assert f"run_dir={tmp_path / 'run'} resume=auto" in error.strip().splitlines()[-1]
        assert run.last_step() >= 3
        assert run.status()["state"] == "stopped"
        assert run.status()["exit_code"] == 143
        assert run.status()["checkpoint"] == run.last_step()


@pytest.mark.slow
@pytest.mark.fault("F20")
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGHUP])
def test_signals_of_schedulers_and_terminals(number: int, tmp_path: Path) -> None:
    with Training(tmp_path / "run", *ENDLESS) as run:
        run.wait_for_step()
        run.send(number)
        ends_well(run, 128 + number)
        assert run.last_step() >= 1


@pytest.mark.slow
@pytest.mark.fault("F21")
@pytest.mark.parametrize("group", [True, False])
def test_sigterm_under_torchrun(group: bool, tmp_path: Path) -> None:
    with Training(tmp_path / "run", *ENDLESS, "loader.num_workers=1", processes=2) as run:
        run.wait_for_step(2)
        (run.send_to_group if group else run.send)(signal.SIGTERM)
        run.end(60)
        assert run.no_orphans(), run.group()
        assert run.last_step() >= 2
        assert (run.status()["state"], run.status()["exit_code"]) == ("stopped", 143)


@pytest.mark.slow
@pytest.mark.fault("F21")
def test_sigterm_to_one_rank(tmp_path: Path) -> None:
    with Training(tmp_path / "run", *ENDLESS, processes=2) as run:
        run.wait_for_step(2)
        os.kill(run.ranks()[1], signal.SIGTERM)
        run.end(60)
        assert run.last_step() >= 2
        assert run.status()["exit_code"] == 143


@pytest.mark.fault("F19", "F20")
def test_a_signal_during_validation(tmp_path: Path) -> None:
    words = ["trainer.max_steps=4", "trainer.evaluate_every=2", "dataset.num_val=200"]
    with Training(tmp_path / "run", *SLOW, *words) as run:
        run.wait_for_step(2)
        time.sleep(1)
        run.send(signal.SIGTERM)
        ends_well(run, 143)
        assert run.last_step() == 2
        assert not any("evaluation" in line for line in run.lines())


@pytest.mark.slow
@pytest.mark.fault("F22")
def test_a_second_ctrl_c_ends_a_long_step_at_once(tmp_path: Path) -> None:
    words = [*SLOW, *ENDLESS, "loader.num_workers=2"]
    with Training(tmp_path / "run", *words, STEP_SECONDS="8") as run:
        run.wait_for((tmp_path / "run/status.json").exists)
        time.sleep(3)
        run.send_to_group(signal.SIGINT)
        time.sleep(1.5)
        assert run.process.poll() is None
        run.send_to_group(signal.SIGINT)
        error = ends_well(run, 130, seconds=2)
        assert "interrupted twice" in error
        assert run.status()["exit_code"] == 130


@pytest.mark.fault("F22")
@pytest.mark.parametrize("seconds", [0.4, 1.5])
def test_ctrl_c_at_start_up(seconds: float, tmp_path: Path) -> None:
    with Training(tmp_path / "run", *ENDLESS) as run:
        time.sleep(seconds)
        run.send(signal.SIGINT)
        error = ends_well(run, 130)
        assert error.strip().splitlines()[-1].startswith("error: ")
        assert "interrupted" in error
