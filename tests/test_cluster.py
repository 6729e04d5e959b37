"""The commands of docs/cluster.md, with two processes on this machine as two machines."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.runs import Training
from tests.helpers import ROOT, SMALL, TINY, differences, state

PAGE = (ROOT / "docs" / "cluster.md").read_text()
SLOW = ROOT / "tests" / "faults" / "slow.py"
WORDS = [
    *(word for word in SMALL if not word.startswith(("plugins", "model"))),
    *(f"plugins=[{TINY},{SLOW}]", "model=slow", "trainer.max_steps=10", "dataset.num_val=2"),
    *("trainer.evaluate_every=10", "trainer.checkpoint_every=2", "run_dir=run"),
]
pytestmark = pytest.mark.slow


def block(heading: str) -> str:
    """The commands below a heading."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return "\n".join(re.findall(r"```bash[^\n]*\n(.*?)```", section, re.DOTALL))


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """The environment of a shell whose `torchrun` trains a small run."""
    folder = tmp_path / "bin"
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    words = " ".join(WORDS)
    script(
        folder / "torchrun",
        'case "$*" in *rdzv-endpoint*) ;; *) set -- --standalone "$@";; esac\n'
        f'exec {sys.executable} -m torch.distributed.run "$@" {words} $EXTRA',
    )
    return {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "PORT": str(port),
        "SEGTRAIN_TEST": str(tmp_path / "run"),
    }


@contextmanager
def started(commands: str, shell: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Commands that run; no process is left behind."""
    commands = commands.replace("node0:29500", f"localhost:{shell['PORT']}")
    process = subprocess.Popen(
        ["bash", "-c", commands],
        cwd=folder,
        env=shell,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        for pid in _left(shell):
            os.kill(pid, signal.SIGKILL)
        if process.stderr is not None:
            process.stderr.close()


def _left(shell: dict[str, str]) -> list[int]:
    run = object.__new__(Training)
    run.run_dir = Path(shell["SEGTRAIN_TEST"])
    return run.group()


def end(process: subprocess.Popen[str], seconds: float = 150) -> int:
    _, error = process.communicate(timeout=seconds)
    assert process.returncode == 0, error[-3000:]
    return process.returncode


@pytest.fixture
def whole(tmp_path: Path, shell: dict[str, str]) -> Path:
    """A run of two processes that nothing disturbed."""
    with started(block("One machine"), shell, tmp_path) as process:
        end(process)
    (tmp_path / "run").rename(tmp_path / "whole")
    return tmp_path / "whole"


def test_two_machines(tmp_path: Path, shell: dict[str, str], whole: Path) -> None:
    commands = block("Two machines")
    with started(commands, shell, tmp_path) as one, started(commands, shell, tmp_path) as two:
        end(one)
        end(two)
    assert differences(state(whole), state(tmp_path / "run")) == []


@pytest.mark.fault("F24")
def test_processes_that_die(tmp_path: Path, shell: dict[str, str], whole: Path) -> None:
    shell["KILL_ONCE"] = str(tmp_path / "once")
    commands = block("Processes that die")
    with started(commands, shell, tmp_path) as one, started(commands, shell, tmp_path) as two:
        end(one)
        end(two)
    assert (tmp_path / "once").exists()
    assert "resuming from" in (tmp_path / "run/train.log").read_text()
    assert differences(state(whole), state(tmp_path / "run")) == []


@pytest.mark.fault("F24")
def test_the_script_for_slurm(tmp_path: Path, shell: dict[str, str], whole: Path) -> None:
    """The job is queued again shortly before its time is up, and goes on bit for bit."""
    script(
        tmp_path / "bin" / "srun",
        'trap "kill -TERM \\$one \\$two; wait" TERM\n'
        '"$@" & one=$!\n"$@" & two=$!\nwait $one && wait $two',
    )
    script(
        tmp_path / "bin" / "scontrol",
        'if [ "$1" = show ]; then echo localhost; else echo "$@" > requeued; fi',
    )
    shell |= {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "node[0-1]"}
    commands = block("SLURM")
    with started(commands, {**shell, "STEP_SECONDS": "0.5"}, tmp_path) as job:
        log = tmp_path / "run" / "metrics.jsonl"
        while job.poll() is None and not (log.exists() and log.read_text().count("\n") >= 3):
            time.sleep(0.05)
        job.send_signal(signal.SIGTERM)
        job.communicate(timeout=60)
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"
    assert 3 <= state(tmp_path / "run")["step"] < 10
    with started(commands, {**shell, "SLURM_RESTART_COUNT": "1"}, tmp_path) as job:
        end(job)
    assert differences(state(whole), state(tmp_path / "run")) == []


def test_logs_of_each_process(tmp_path: Path, shell: dict[str, str]) -> None:
    with started(block("Logs of each process"), shell, tmp_path) as process:
        end(process)
    found = sorted(path.parent.name for path in (tmp_path / "logs").rglob("stderr.log"))
    assert found == ["0", "1"]


@pytest.mark.parametrize("heading", ["Models larger than a GPU", "Losses over all processes"])
def test_the_other_commands(tmp_path: Path, shell: dict[str, str], heading: str) -> None:
    for index, command in enumerate(block(heading).splitlines()):
        own = {**shell, "EXTRA": f"run_dir=run{index}"}
        with started(command, own, tmp_path) as process:
            end(process)
