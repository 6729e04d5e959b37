"""The directory of a sweep: a folder per run, and ``sweep.json``, which lists the runs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segtrain.engine.status import StatusFile, lock, read_status, wait_for_lock
from segtrain.errors import CheckpointError, RunDirectoryBusyError, one_line
from segtrain.files import write_text

FILE = "sweep.json"
_MAX_NAME = 100
_HASH_LENGTH = 8
_UNSAFE = re.compile(r"[^\w.,=+-]+")
_OF_SAMPLING = ("loader.sampling", "loader.rare_class_temperature")
_WITHOUT_EFFECT = ("run_dir", "name", "sweep_dir", "resume", "trainer.device")

Row = dict[str, Any]
"""A run in ``sweep.json``: ``overrides``, ``dir`` and ``state``."""


def has_effect(key: str) -> bool:
    """Whether a key of the configuration can change the scores of a run.

    Example:
        >>> has_effect("optimizer.lr"), has_effect("run_dir"), has_effect("loader.num_workers")
        (True, False, False)
        >>> has_effect("loader.sampling")
        True
    """
    if key.startswith("loader."):
        return key in _OF_SAMPLING
    return key not in _WITHOUT_EFFECT


def run_folder(overrides: Sequence[str], swept: Collection[str]) -> str:
    """The name of the folder of a run: its swept overrides, and a hash of all that have an effect.

    Args:
        overrides: The overrides of the run, as ``key=value``.
        swept: The keys that differ between the runs of the sweep; empty: all keys are named.

    Example:
        >>> run_folder(["loss=focal", "seed=1", "trainer.max_steps=300"], ["loss", "seed"])
        'loss=focal,seed=1-f9869b26'
    """
    words = [word for word in overrides if _key(word) in swept or has_effect(_key(word))]
    named = [word for word in words if not swept or _key(word) in swept]
    digest = hashlib.sha256("\n".join(sorted(words)).encode()).hexdigest()[:_HASH_LENGTH]
    name = _UNSAFE.sub("_", ",".join(named))[: _MAX_NAME - _HASH_LENGTH - 1]
    return f"{name}-{digest}"


class SweepDirectory:
    """The directory of a sweep.

    Every run has a folder with its own ``status.json``. ``sweep.json`` repeats the states for
    people and other programs; the folders are what counts.

    Args:
        path: The directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def locked(self, *, resuming: bool) -> Iterator[None]:
        """Create the directory and keep other sweeps out of it.

        Args:
            resuming: Whether the directory may already hold runs.

        Raises:
            RunDirectoryBusyError: When it holds runs that are not resumed, or is in use.
        """
        if not resuming and self.path.exists() and any(self.path.iterdir()):
            raise RunDirectoryBusyError(
                f"sweep_dir {self.path} is not empty: add resume=auto to finish the sweep in it, or"
                " choose another directory"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        with lock(self.path, "sweep_dir"):
            yield

    def plan(
        self, command: Sequence[str], grid: Mapping[str, list[str]], runs: Sequence[Sequence[str]]
    ) -> None:
        """Write ``sweep.json`` with all runs that are known before they start.

        Runs of an earlier command in the same directory are kept.

        Args:
            command: The words of the command line.
            grid: The values of each swept key.
            runs: The overrides of each run, in the order of the grid.
        """
        with self._update() as content:
            content["command"] = list(command)
            for key, values in grid.items():
                known = content["grid"].setdefault(key, [])
                known += [value for value in values if value not in known]
        for overrides in runs:
            self.add(overrides)

    def add(self, overrides: Sequence[str]) -> Path:
        """Add a run, if it is new, and return its folder, which has a ``status.json``.

        The files of an attempt that failed are moved to a folder ``attempt-N`` in it.
        """
        with self._update() as content:
            path = self.path / run_folder(overrides, content["grid"])
            row = {"overrides": list(overrides), "dir": path.name, "state": "pending"}
            if all(other["dir"] != path.name for other in content["runs"]):
                content["runs"].append(row)
            status = read_status(path)
            if status is not None and status.state == "failed":
                _move_attempt(path)
                status = None
            if status is None:
                path.mkdir(exist_ok=True)
                StatusFile(path, 0, "pending")
        return path

    @property
    def grid(self) -> dict[str, list[str]]:
        """The values of each swept key."""
        return dict(self._read()["grid"])

    def folder(self, overrides: Sequence[str]) -> Path:
        """The folder of the run with these overrides."""
        return self.path / run_folder(overrides, self.grid)

    def row(self, path: Path) -> Row | None:
        """The row of the run in the folder `path`; None: ``sweep.json`` has none."""
        return next((row for row in self.runs() if row["dir"] == path.name), None)

    def refresh(self) -> None:
        """Write the present state of every run to ``sweep.json``."""
        with self._update():
            pass

    def runs(self) -> list[Row]:
        """The runs in ``sweep.json``, with their present states."""
        content = self._read()
        self._add_states(content)
        rows: list[Row] = content["runs"]
        return rows

    @contextmanager
    def _update(self) -> Iterator[dict[str, Any]]:
        """Change ``sweep.json``, one process at a time."""
        with wait_for_lock(self.path / f".{FILE}.lock"):
            content = self._read()
            yield content
            self._add_states(content)
            write_text(self.path / FILE, json.dumps(content, indent=2) + "\n")

    def _read(self) -> dict[str, Any]:
        path = self.path / FILE
        if not path.exists():
            return {"command": [], "grid": {}, "runs": []}
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            content["grid"], content["runs"]
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path} is not a valid sweep: {one_line(error)}; delete it, and resume=auto lists"
                " the runs anew"
            ) from error
        return content

    def _add_states(self, content: dict[str, Any]) -> None:
        for row in content["runs"]:
            status = read_status(self.path / row["dir"])
            row["state"] = "pending" if status is None else status.state


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+")


def _move_attempt(path: Path) -> None:
    """Move the files of a failed attempt to the next free folder ``attempt-N``."""
    number = 1 + len(list(path.glob("attempt-*")))
    target = path / f"attempt-{number}"
    target.mkdir()
    for item in path.iterdir():
        if not item.name.startswith((".", "attempt-")):
            item.rename(target / item.name)
