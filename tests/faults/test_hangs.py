"""Processes and workers that hang, are killed or fail, and shared memory that is too small."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from segtrain.assembly import batches
from segtrain.cli.main import run_command
from tests.faults.runs import ENDLESS, Training
from tests.helpers import SMALL, TINY

HANGS = f"plugins=[{TINY},{Path(__file__).with_name('slow.py')}]"


@pytest.mark.fault("F25")
def test_a_killed_data_worker_says_so(tmp_path: Path) -> None:
    with Training(tmp_path / "run", *ENDLESS, "loader.num_workers=2") as run:
        run.wait_for_step(2)
        workers = [pid for pid in run.group() if pid != run.process.pid]
        os.kill(workers[-1], signal.SIGKILL)
        code, error = run.end(30)
        assert code == 6, error
        last = error.strip().splitlines()[-1]
        assert "data worker" in last
        assert "was killed by SIGKILL, most often because the memory is full" in last
        assert "Traceback" not in error
        assert run.no_orphans()
        assert run.status()["exit_code"] == 6


@pytest.mark.slow
@pytest.mark.fault("F25")
def test_a_data_worker_that_hangs_ends_the_run(tmp_path: Path) -> None:
    words = [*ENDLESS, HANGS, "dataset=hangs", "loader.num_workers=1", "trainer.timeout=0.1"]
    with Training(tmp_path / "run", *words, HANG_AFTER="30") as run:
        code, error = run.end(60)
        assert code == 6, error
        last = error.strip().splitlines()[-1]
        assert "process 0 made no progress for 0.1 minutes, in loading data after step" in last
        assert "a data worker hangs" in last
        assert run.no_orphans()
        assert (run.status()["state"], run.status()["exit_code"]) == ("failed", 6)


@pytest.mark.slow
@pytest.mark.fault("F23")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_hangs_ends_all(rank: int, tmp_path: Path) -> None:
    with Training(tmp_path / "run", *ENDLESS, "trainer.timeout=0.1", processes=2) as run:
        run.wait_for_step(2)
        stopped, other = run.ranks()[rank], 1 - rank
        os.kill(stopped, signal.SIGSTOP)
        time.sleep(12)
        os.kill(stopped, signal.SIGCONT)  # else torchrun waits half a minute before it kills it
        code, error = run.end(60)
        assert code != 0
        assert f"process {other} made no progress for 0.1 minutes" in error
        assert run.no_orphans(15)


@pytest.mark.slow
@pytest.mark.fault("F23")
def test_a_process_that_is_killed_ends_all(tmp_path: Path) -> None:
    with Training(tmp_path / "run", *ENDLESS, processes=2) as run:
        run.wait_for_step(2)
        begun = time.monotonic()
        os.kill(run.ranks()[1], signal.SIGKILL)
        _, error = run.end(40)
        assert time.monotonic() - begun < 40
        assert "the connection to another process was lost" in error or "SIGTERM" in error
        assert run.no_orphans(15)
        assert run.status()["state"] in ("failed", "stopped")


@pytest.mark.slow
@pytest.mark.fault("F23")
def test_a_process_that_fails_names_the_cause_in_all(tmp_path: Path) -> None:
    words = [*ENDLESS, HANGS, "model=slow"]
    with Training(tmp_path / "run", *words, processes=2, FAIL_RANK="1") as run:
        _, error = run.end(60)
        assert "error: process 1 failed: ValueError: it broke" in error
        assert run.no_orphans(15)
        assert run.status()["reason"].startswith("process 1 failed: ValueError: it broke")


@pytest.mark.slow
@pytest.mark.fault("F50")
def test_a_mistake_in_the_configuration_is_said_once(tmp_path: Path) -> None:
    with Training(tmp_path / "run", "loss.gama=3", "loss=focal", processes=2) as run:
        _, error = run.end(60)
        assert error.count("did you mean 'gamma'") == 1


@pytest.mark.fault("F26")
def test_shared_memory_that_is_too_small(
    monkeypatch: pytest.MonkeyPatch, last_line: Callable[[], str], tmp_path: Path
) -> None:
    class Usage:
        free = 30_000

    monkeypatch.setattr(batches.shutil, "disk_usage", lambda path: Usage)
    words = [*SMALL, "augmentation.crop_size=[32,32]", "trainer.max_steps=1"]
    assert run_command("train", [*words, "loader.num_workers=2", f"run_dir={tmp_path}/a"]) == 6
    assert "/dev/shm has 0 MB free, but 2 data workers need 0 MB" in last_line()
    monkeypatch.undo()
    assert run_command("train", [*words, "loader.num_workers=2", f"run_dir={tmp_path}/b"]) == 0
