"""One run of a sweep, in whatever process a launcher calls it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from segtrain.assembly.check import check_config
from segtrain.cli.compose import origin_of, to_plain
from segtrain.cli.sweep.launchers import enter_worker
from segtrain.cli.sweep.plan import plain
from segtrain.commands.train import train
from segtrain.engine.results import final_score
from segtrain.engine.status import StatusFile, read_status
from segtrain.engine.sweep_directory import SweepDirectory
from segtrain.errors import (
    RunDirectoryBusyError,
    SegtrainError,
    describe_error,
    exit_code_of,
    one_line,
)
from segtrain.schema.plugins import load_plugins
from segtrain.terminal import logger

FOLDER = "SEGTRAIN_SWEEP_FOLDER"
"""The environment variable with the current folder of the sweep; a process may start elsewhere."""
_INTERRUPTED = (130, 143)  # exit codes of SIGINT and SIGTERM
stopped: list[int] = []
"""The exit code of a run of this process that a signal stopped; the runs after it do not start."""


def run_one(raw: DictConfig) -> Any:
    """Train one run of a sweep, in whatever process a launcher calls it; it never raises.

    Returns:
        The row of the run in ``sweep.json``; for a sweeper that searches, the score of the run,
        ``trainer.best`` on the validation split at the last step. None if the folder of the run
        cannot be written.
    """
    try:
        return _run(raw)
    except BaseException as error:  # noqa: BLE001  a launcher would end the other runs
        _note_stop(error)
        logger.error("%s", describe_error(error))
        return None


def _run(raw: DictConfig) -> Any:
    job = HydraConfig.get()
    os.chdir(os.environ[FOLDER])
    overrides = plain(job.overrides.task)
    directory = SweepDirectory(Path(job.sweep.dir))
    path = directory.folder(overrides)
    launcher = OmegaConf.to_container(job.launcher, resolve=True)
    assert isinstance(launcher, dict)
    total = len(directory.runs())
    enter_worker({str(key): value for key, value in launcher.items()}, total)
    is_main = os.environ.get("RANK", "0") == "0"
    if is_main and not stopped:
        directory.add(overrides)
        logger.info("run %d%s: %s", job.job.num + 1, f" of {total}" if total else "", path.name)
    status = read_status(path)
    if not stopped and (status is None or status.state != "finished"):
        try:
            load_plugins([str(item) for item in raw.get("plugins") or ()])
            origin = origin_of(overrides, job.runtime.choices)
            config = check_config(to_plain(raw))
            train(replace(config, run_dir=str(path), resume="auto"), origin)
        except BaseException as error:  # noqa: BLE001  whatever it is, the other runs do not depend on it
            _record(error, path, overrides, is_main=is_main)
    if is_main:
        directory.refresh()
    if job.runtime.choices.get("hydra/sweeper") != "basic":
        return final_score(path, str(raw.trainer.best))
    return directory.row(path)


def _record(error: BaseException, path: Path, overrides: Sequence[str], *, is_main: bool) -> None:
    """Record in ``status.json`` why a run ended, unless the run itself could do so."""
    code, is_stop = exit_code_of(error), _note_stop(error)
    reason = str(error) if isinstance(error, SegtrainError) else describe_error(error)
    if isinstance(error, KeyboardInterrupt):
        reason = "interrupted"
    logger.error("%s: %s", " ".join(overrides), one_line(reason))
    status = read_status(path)
    state: Literal["stopped", "failed"] = "stopped" if is_stop else "failed"
    is_elsewhere = isinstance(error, RunDirectoryBusyError)  # its process writes the status
    if is_main and not is_elsewhere and (status is None or status.state != state):
        file = StatusFile(path, 0 if status is None else status.step, state)
        file.write(state, exit_code=code, reason=reason)


def _note_stop(error: BaseException) -> bool:
    """Whether a signal ended a run; then the runs after it do not start."""
    code = exit_code_of(error)
    if code in _INTERRUPTED:
        stopped.append(code)
    return code in _INTERRUPTED
