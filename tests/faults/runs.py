"""Runs of ``tools/train.py`` that are disturbed from outside."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from segtrain.engine.checkpoint import load_checkpoint
from tests.helpers import ROOT, SMALL

ENDLESS = ["trainer.max_steps=100000", "trainer.evaluate_every=100000"]
TWO = [
    *("-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0"),
    *("--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"),
]


class Training:
    """A run in a session of its own; leaves no process behind.

    Args:
        run_dir: The run directory.
        *words: Overrides, after those that make the run small.
        processes: Number of processes, 1 or 2.
        restarts: How often torchrun starts two processes again.
        **environment: Variables of the environment.
    """

    def __init__(
        self,
        run_dir: Path,
        *words: str,
        processes: int = 1,
        restarts: int = 0,
        **environment: str,
    ) -> None:
        self.run_dir = run_dir
        launcher = [*TWO, f"--max-restarts={restarts}"] if processes == 2 else []
        self.process = subprocess.Popen(
            [
                *(sys.executable, *launcher, str(ROOT / "tools" / "train.py"), *SMALL),
                *(f"run_dir={run_dir}", *words),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "SEGTRAIN_TEST": str(run_dir),
                **environment,
            },
            start_new_session=True,
            # A shell lets processes in the background ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )

    def __enter__(self) -> Training:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()

    def wait_for(self, found: Any, seconds: float = 90) -> None:
        """Wait until a function returns true, while the run goes on."""
        deadline = time.monotonic() + seconds
        while not found():
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"nothing to wait for any more: {self.end(5)[1][-2000:]}")
            time.sleep(0.05)

    def wait_for_step(self, step: int = 1) -> None:
        """Wait until a step is logged."""
        self.wait_for(lambda: any(line["step"] >= step for line in self.lines()))

    def lines(self) -> list[dict[str, Any]]:
        path = self.run_dir / "metrics.jsonl"
        text = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in text if line.endswith("}")]

    def send(self, number: int) -> None:
        """Send a signal to the process."""
        self.process.send_signal(number)

    def send_to_group(self, number: int) -> None:
        """Send a signal to every process of the session, as SLURM and a terminal do."""
        os.killpg(self.process.pid, number)

    def end(self, seconds: float = 60) -> tuple[int, str]:
        """Wait for the end; return exit code and messages."""
        try:
            _, error = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            _, error = self.process.communicate()
            pytest.fail(f"the run did not end in {seconds} s: {error[-2000:]}")
        return self.process.returncode, error

    def kill(self) -> None:
        """Kill every process of the run."""
        for pid in self.group():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def group(self) -> list[int]:
        """The processes of the run that are left, also those in other sessions."""
        return [pid for pid, _ in self._environments()]

    def ranks(self) -> list[int]:
        """The numbers of the two processes, by rank."""
        found: dict[int, int] = {}
        for pid, text in self._environments():
            rank = re.search(rb"\0RANK=(\d)\0", text)
            if rank is not None:
                found.setdefault(int(rank[1]), pid)
        return [found[0], found[1]]

    def _environments(self) -> list[tuple[int, bytes]]:
        mark = f"\0SEGTRAIN_TEST={self.run_dir}\0".encode()
        found = []
        for path in sorted(Path("/proc").glob("[0-9]*/environ"), key=lambda one: int(one.parts[2])):
            with contextlib.suppress(OSError):
                text = b"\0" + path.read_bytes()
                is_zombie = ") Z " in path.with_name("stat").read_text()
                if mark in text and not is_zombie:
                    found.append((int(path.parts[2]), text))
        return found

    def no_orphans(self, seconds: float = 5) -> bool:
        """Whether every process of the session ends."""
        deadline = time.monotonic() + seconds
        while self.group() and time.monotonic() < deadline:
            time.sleep(0.1)
        return not self.group()

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.run_dir / "status.json").read_text())
        return found

    def last_step(self) -> int:
        """The step of the checkpoint, which can be loaded."""
        return int(load_checkpoint(self.run_dir / "checkpoints/last.pt")["step"])
