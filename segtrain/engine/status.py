"""``status.json``: what a run is doing, or how it ended."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Literal

from segtrain.errors import CheckpointError, RunDirectoryBusyError, one_line
from segtrain.files import write_text

FILE = "status.json"
HEARTBEAT = 10.0
"""Seconds between two updates of the file while a run is running."""
_LOCK = ".lock"

RunState = Literal["pending", "running", "finished", "stopped", "failed", "killed"]


@dataclass(frozen=True, kw_only=True)
class Status:
    """The state of a run.

    Attributes:
        state: ``pending`` (a run of a sweep that has not started), ``running``, ``finished``,
            ``stopped`` (by a signal or ``trainer.stop_after``) or ``failed``. A killed run cannot
            write its end: :func:`read_status` finds it out.
        exit_code: The exit code of the command; None while the run is running.
        reason: Why the run stopped or failed, on one line.
        step: Optimizer steps done.
        checkpoint: The step of the last checkpoint that was saved; None: none yet.
        pid: Number of the process.
        host: Name of the machine.
        updated: Time of the last update, in seconds since 1970.
    """

    state: RunState
    exit_code: int | None = None
    reason: str | None = None
    step: int = 0
    checkpoint: int | None = None
    pid: int = 0
    host: str = ""
    updated: float = 0.0


class StatusFile:
    """Writes the status of a run, always completely.

    Args:
        run_dir: The run directory.
        step: The step at which the run starts or resumes.
        state: The state to write at once.

    Attributes:
        step: The last known step.
    """

    def __init__(self, run_dir: Path, step: int, state: RunState = "running") -> None:
        self.path = run_dir / FILE
        self.step = step
        self.checkpoint = step or None  # a run that resumes has one
        self._written = 0.0
        self.write(state)

    def heartbeat(self, step: int) -> None:
        """Record the step of a running run; writes at most every :data:`HEARTBEAT` seconds."""
        self.step = step
        if time.monotonic() - self._written >= HEARTBEAT:
            self.write("running")

    def note_checkpoint(self, step: int) -> None:
        """Record the step of a checkpoint."""
        self.step = self.checkpoint = step
        self.write("running")

    def write(
        self, state: RunState, *, exit_code: int | None = None, reason: str | None = None
    ) -> None:
        """Write the state at the last known step."""
        self._written = time.monotonic()
        status = Status(
            state=state,
            exit_code=exit_code,
            reason=None if reason is None else one_line(reason, 1000),
            step=self.step,
            checkpoint=self.checkpoint,
            pid=os.getpid(),
            host=socket.gethostname(),
            updated=time.time(),
        )
        write_text(self.path, json.dumps(asdict(status), indent=2) + "\n")


def read_status(run_dir: str | Path) -> Status | None:
    """Read the status of a run; None if the directory has none.

    A run that is recorded as running, but no longer holds the lock of its directory, was killed.

    Raises:
        CheckpointError: When ``status.json`` is not valid.
    """
    path = Path(run_dir) / FILE
    try:
        status = Status(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is not a valid status: {one_line(error)}") from error
    if status.state == "running" and not is_locked(path.parent):
        return Status(**{**asdict(status), "state": "killed"})
    return status


def lock(directory: Path, key: str = "run_dir") -> IO[str]:
    """Lock a directory for this process, until the returned file is closed.

    Args:
        directory: The directory of a run or a sweep.
        key: The key that names it in the configuration, for the message.

    Raises:
        RunDirectoryBusyError: When another process holds the lock.
    """
    file = (directory / _LOCK).open("w", encoding="utf-8")
    if not _try_lock(file):
        file.close()
        raise RunDirectoryBusyError(f"{key} {directory} is in use by another process")
    return file


@contextmanager
def wait_for_lock(path: Path) -> Iterator[None]:
    """Lock the file `path`, after every other process has released it."""
    with path.open("w", encoding="utf-8") as file:
        _try_lock(file, wait=True)
        yield


def is_locked(run_dir: Path) -> bool:
    """Whether a process holds the lock of a run directory."""
    try:
        with (run_dir / _LOCK).open("r+", encoding="utf-8") as file:
            return not _try_lock(file)
    except FileNotFoundError:
        return False


def _try_lock(file: IO[str], *, wait: bool = False) -> bool:
    try:
        import fcntl  # noqa: PLC0415  Windows has none, and there a run works without a lock

        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except ImportError:
        return True
    except OSError:
        return False
    return True
