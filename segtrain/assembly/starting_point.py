"""The checkpoint that a run resumes, the same in every process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from segtrain.engine.checkpoint import (
    LAST,
    PREVIOUS,
    State,
    find_checkpoint,
    load_checkpoint,
    load_latest,
)
from segtrain.engine.distributed import Processes
from segtrain.engine.status import read_status
from segtrain.errors import CheckpointError, SegtrainError
from segtrain.schema.sections import AUTO, Config


class StartingPoint(NamedTuple):
    """The checkpoint that a run resumes; a new run has no path and an empty state."""

    path: Path | None
    state: State

    @property
    def class_weights(self) -> dict[str, list[float]]:
        """The class weights that the run began with, by the name of their method."""
        return dict(self.state.get("metadata", {}).get("class_weights") or {})


class _Found(NamedTuple):
    """What one process found, for the others."""

    path: str | None
    step: int | None
    error: SegtrainError | None

    def __str__(self) -> str:
        if self.error is not None:
            return f"has this problem: {self.error}"
        return (
            "finds no checkpoint" if self.path is None else f"has {self.path} of step {self.step}"
        )


def open_checkpoint(config: Config, processes: Processes) -> StartingPoint:
    """Load the checkpoint that `config.resume` names.

    Raises:
        CheckpointError: When it cannot be loaded, or the processes find different ones.
    """
    if config.resume is None:
        return StartingPoint(None, {})
    found, error = None, None
    try:
        found = _open(config)
    except SegtrainError as problem:
        error = problem
    path, state = found or (None, {})
    all_found = processes.gather(
        _Found(None if path is None else str(path), state.get("step"), error)
    )
    _check_same(all_found, config)
    return StartingPoint(path, state)


def _open(config: Config) -> tuple[Path, State] | None:
    """The checkpoint that this process finds; None for a run that starts."""
    if config.resume not in (None, AUTO):
        given = Path(str(config.resume))
        if not given.is_dir() or not any(
            (given / "checkpoints" / name).is_file() for name in (LAST, PREVIOUS)
        ):
            path = find_checkpoint(given, LAST)
            return path, load_checkpoint(path)
        return load_latest(given)
    run_dir = Path(str(config.run_dir))
    found = load_latest(run_dir)
    if found is None and _saved_one(run_dir):
        raise CheckpointError(
            f"run_dir {run_dir} has logs of a run that saved a checkpoint, but no"
            f" checkpoints/{LAST}; copy it back, or choose another run_dir for a new run"
        )
    return found


def _saved_one(run_dir: Path) -> bool:
    """Whether the logs of a run show that it saved a checkpoint."""
    status = read_status(run_dir)
    if status is not None and status.checkpoint is not None:
        return True
    try:
        lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    return any(_is_evaluation(line) for line in lines)


def _is_evaluation(line: str) -> bool:
    try:
        return "evaluation" in json.loads(line)
    except (ValueError, TypeError):  # the last line of a killed process may be incomplete
        return False


def _check_same(found: list[_Found], config: Config) -> None:
    """Refuse to train on mixed states.

    Raises:
        SegtrainError: When a process has an error, or the processes found different checkpoints.
    """
    first = found[0]
    if len(found) == 1 or all(str(one) == str(first) for one in found):
        if first.error is not None:
            raise first.error
        return
    other = next(rank for rank, one in enumerate(found) if str(one) != str(first))
    where = config.run_dir if config.resume == AUTO else config.resume
    raise CheckpointError(
        f"the processes find different checkpoints at {where}: process 0 {first}, process {other}"
        f" {found[other]}; all machines must see the same files, so put them on a file system that"
        " they share"
    )
