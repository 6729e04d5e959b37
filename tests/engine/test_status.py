"""``status.json`` tells how a run ended, also if the run could not write it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segtrain.engine import status as status_module
from segtrain.engine.status import StatusFile, is_locked, lock, read_status
from segtrain.errors import CheckpointError, RunDirectoryBusyError


def test_a_directory_without_a_run(tmp_path: Path) -> None:
    assert read_status(tmp_path) is None
    assert not is_locked(tmp_path)


def test_a_running_run_holds_its_lock(tmp_path: Path) -> None:
    with lock(tmp_path):
        StatusFile(tmp_path, 7)
        status = read_status(tmp_path)
        assert status is not None
        assert (status.state, status.step, status.exit_code) == ("running", 7, None)
        assert time.time() - status.updated < 60
        with pytest.raises(RunDirectoryBusyError, match="in use by another process"):
            lock(tmp_path)


def test_without_its_lock_it_was_killed(tmp_path: Path) -> None:
    lock(tmp_path).close()
    StatusFile(tmp_path, 7)
    status = read_status(tmp_path)
    assert status is not None
    assert (status.state, status.step) == ("killed", 7)
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "running"


@pytest.mark.fault("F7")
def test_a_killed_process_frees_its_lock(tmp_path: Path) -> None:
    code = (
        "import sys, os, pathlib; from segtrain.engine.status import StatusFile, lock;"
        "path = pathlib.Path(sys.argv[1]); held = lock(path); StatusFile(path, 3); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    status = read_status(tmp_path)
    assert status is not None
    assert status.state == "killed"


def test_the_heartbeat_writes_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = StatusFile(tmp_path, 0)
    file.heartbeat(1)
    assert json.loads((tmp_path / "status.json").read_text())["step"] == 0
    monkeypatch.setattr(status_module, "HEARTBEAT", 0.0)
    file.heartbeat(2)
    assert json.loads((tmp_path / "status.json").read_text())["step"] == 2


def test_an_end_has_a_reason_on_one_line(tmp_path: Path) -> None:
    StatusFile(tmp_path, 4).write("failed", exit_code=5, reason="the loss\nis NaN")
    status = read_status(tmp_path)
    assert status is not None
    assert (status.state, status.exit_code, status.reason) == ("failed", 5, "the loss is NaN")


@pytest.mark.parametrize("text", ["{", "[]", '{"state": "running", "speed": 1}'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "status.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"status\.json is not a valid status"):
        read_status(tmp_path)
