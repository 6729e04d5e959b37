"""Start several runs from one command line, with Hydra's sweepers and launchers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from segtrain.cli.compose import hydra_message, search_path
from segtrain.cli.sweep.job import FOLDER, run_one, stopped
from segtrain.cli.sweep.plan import Sweep, plan_sweep
from segtrain.cli.sweep.progress import watched
from segtrain.cli.sweep.tables import plan_table, runs_table
from segtrain.engine.distributed import processes
from segtrain.engine.results import final_score
from segtrain.engine.status import read_status
from segtrain.engine.sweep_directory import Row, SweepDirectory
from segtrain.errors import ConfigError, SegtrainError, describe_error
from segtrain.files import config_dir
from segtrain.metrics import larger_is_better
from segtrain.schema.sections import CompareConfig
from segtrain.terminal import console, logger


class RunFailed(SegtrainError):
    """Runs of a sweep failed or were stopped.

    Args:
        message: The message.
        exit_code: That of the first run that failed, in the order of the grid.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def train_many(words: Sequence[str], extra: Path | None, *, dry_run: bool = False) -> None:
    """Train one model per combination of values, in one directory.

    A run that fails does not end the sweep: the others follow, and its reason is recorded.

    Args:
        words: The overrides, with ``sweep_dir=`` and ``resume=auto`` among them.
        extra: A folder of the user's own configs.
        dry_run: Only list the runs.

    Raises:
        ConfigError: When a run is not valid; nothing was started.
        RunDirectoryBusyError: When the directory of the sweep is in use, or holds another sweep.
        RunFailed: When a run failed, after all others ended.
    """
    sweep = plan_sweep(words, extra)
    if dry_run:
        console.print(plan_table(sweep.runs, sweep.grid, sweep.directory))
        return
    with _entered(sweep) as directory:
        try:
            with watched(directory, len(sweep.runs)) if _is_elsewhere(sweep) else nullcontext():
                _launch(sweep, directory)
        finally:
            directory.refresh()
        rows = directory.runs()
        console.print(runs_table(rows, directory, sweep.best))
        if any(row["state"] == "finished" for row in rows):
            if sweep.runs:
                _compare(directory, sweep.best)
            else:
                _show_best(rows, directory, sweep.best)
        # Without listed runs a sweeper chose them. Runs of an earlier command do not count.
        own = {directory.folder(run).name for run in sweep.runs} or {row["dir"] for row in rows}
        _raise_failures([row for row in rows if row["dir"] in own], directory)


@contextmanager
def _entered(sweep: Sweep) -> Iterator[SweepDirectory]:
    """Lock the directory and list the runs in it, in the main process; the others wait for it."""
    with ExitStack() as stack:
        with processes("cpu") as here:
            path = here.gather(str(sweep.directory.path))[0]  # the time in it may differ
            directory, error = SweepDirectory(Path(path)), None
            if here.is_main:
                try:
                    stack.enter_context(directory.locked(resuming=sweep.resuming))
                    directory.plan(sweep.command, sweep.grid, sweep.runs)
                except SegtrainError as caught:
                    error = caught
            error = here.gather(error)[0]
        if error is not None:
            raise error
        yield directory


def _is_elsewhere(sweep: Sweep) -> bool:
    """Whether a launcher starts the runs in other processes, which print nothing."""
    chosen = [word for word in sweep.words if word.startswith("hydra/launcher=")]
    return bool(chosen) and chosen[-1] != "hydra/launcher=basic"


def _launch(sweep: Sweep, directory: SweepDirectory) -> None:
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra passes errors on, and we print one line
    own = [
        f"hydra.sweep.dir={_quoted(directory.path)}",
        f"+hydra.job.env_set.{FOLDER}={_quoted(Path.cwd())}",
    ]
    if not sweep.runs and not larger_is_better(sweep.best):
        own.append("hydra.sweeper.direction=minimize")
    sys.argv = [sys.argv[0], "--multirun", *own, *sweep.words, *search_path(sweep.extra)]
    GlobalHydra.instance().clear()
    try:
        hydra.main(config_path=str(config_dir()), config_name="train", version_base="1.3")(
            run_one
        )()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(hydra_message(error)) from error
    except Exception as error:
        # A launcher lost a process, or Optuna has no trial with a score: the folders say why.
        if all(row["state"] == "finished" for row in directory.runs()):
            raise
        logger.error("the sweep ended early: %s", describe_error(error))


def _compare(directory: SweepDirectory, metric: str) -> None:
    """Compare the finished runs; a comparison that is not possible must not hide failed runs."""
    from segtrain.commands.compare import compare_runs  # noqa: PLC0415  loads SciPy

    try:
        compare_runs(CompareConfig(directories=(str(directory.path),), metric=metric))
    except SegtrainError as error:
        logger.warning("no comparison: %s", error)


def _show_best(rows: Sequence[Row], directory: SweepDirectory, choice: str) -> None:
    """Print the run with the best score of a search, and how to train it with other seeds."""
    scores = {row["dir"]: final_score(directory.path / row["dir"], choice) for row in rows}
    sign = 1 if larger_is_better(choice) else -1
    known = [(sign * score, row) for row in rows if (score := scores[row["dir"]]) is not None]
    if not known:
        return
    score, best = max(known, key=lambda item: item[0])
    words = [word for word in best["overrides"] if word.partition("=")[0] in directory.grid]
    logger.info(
        "best %s %.4f with %s; one seed proves little: train it with others, as in -m %s"
        " seed=1,2,3",
        *(choice, sign * score, " ".join(words), " ".join(words)),
    )


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("\\", "\\\\").replace("'", "\\'") + "'"


def _raise_failures(rows: Sequence[Row], directory: SweepDirectory) -> None:
    """Raise the error of the first run that did not finish, in the order of the grid."""
    again = f"sweep_dir={directory.path} resume=auto"
    finished = sum(row["state"] == "finished" for row in rows)
    if stopped:
        code = stopped.pop()
        raise RunFailed(
            f"interrupted: {finished} of {len(rows)} runs are finished; add {again} to finish the"
            " others",
            code,
        )
    failed = [row for row in rows if row["state"] == "failed"]
    if not failed:
        lost = [row for row in rows if row["state"] in ("pending", "running", "killed")]
        if lost:
            raise RunFailed(
                f"{len(lost)} of {len(rows)} runs did not end; the first is {lost[0]['dir']}, which"
                f" is {lost[0]['state']}; {again} finishes them",
                1,
            )
        return
    status = read_status(directory.path / failed[0]["dir"])
    assert status is not None
    raise RunFailed(
        f"{len(failed)} of {len(rows)} runs failed; the first is {failed[0]['dir']}:"
        f" {status.reason}; {again} starts them again",
        status.exit_code or 1,
    )
