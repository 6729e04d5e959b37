"""Start several runs from one command line, with Hydra's sweepers and launchers."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segtrain.assembly.check import check_config
from segtrain.assembly.training import sweep_name
from segtrain.cli.compose import (
    compose_config,
    hydra_message,
    origin_of,
    plugins_in,
    quoted,
    rewrite,
    search_path,
    to_plain,
)
from segtrain.cli.foreign import check_folder
from segtrain.cli.launchers import enter_worker, ready_config
from segtrain.cli.sweep_tables import plan_table, runs_table
from segtrain.commands.train import train
from segtrain.engine.distributed import processes
from segtrain.engine.results import final_score
from segtrain.engine.status import StatusFile, read_status
from segtrain.engine.sweep_directory import Row, SweepDirectory
from segtrain.errors import (
    ConfigError,
    SegtrainError,
    describe_error,
    exit_code_of,
    one_line,
)
from segtrain.files import config_dir
from segtrain.metrics import larger_is_better
from segtrain.schema.plugins import load_plugins
from segtrain.schema.sections import CompareConfig
from segtrain.terminal import console, logger

MAX_CHECKED_RUNS = 200
_INTERRUPTED = (130, 143)  # exit codes of SIGINT and SIGTERM
_stopped: list[int] = []  # the exit code of a run of this process that a signal stopped


@dataclass(frozen=True)
class Sweep:
    """A sweep as the user typed it.

    Attributes:
        command: The words of the command line.
        words: The overrides as Hydra reads them.
        extra: A folder of the user's own configs.
        grid: The values of each swept key.
        runs: The overrides of each run, in the order of the grid; empty if a sweeper chooses them.
        directory: The directory of the sweep.
        resuming: Whether the directory may already hold runs.
        best: The score that a sweeper searches for, ``trainer.best``.
    """

    command: list[str]
    words: list[str]
    extra: Path | None
    grid: dict[str, list[str]]
    runs: list[list[str]]
    directory: SweepDirectory
    resuming: bool
    best: str


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
            _launch(sweep, directory)
        finally:
            directory.refresh()
        rows = directory.runs()
        console.print(runs_table(rows, directory, sweep.best))
        if any(row["state"] == "finished" for row in rows):
            _compare(directory, sweep.best)
        _raise_failures(rows, directory)


def plan_sweep(given: Sequence[str], extra: Path | None) -> Sweep:
    """Check a sweep and list its runs, without starting one.

    Every run is composed and checked first, so a mistake in one ends the sweep before it has
    written anything.

    Raises:
        ConfigError: When a run is not valid.
        ResourceError: When the launcher or the sweeper is not installed.
    """
    if extra is not None:
        check_folder(extra)
    words, sweep_dir, resuming = _without_own_keys(given)
    words = [ready_config(word) for word in words]
    load_plugins(plugins_in(words, extra))
    rewritten = rewrite(words, "train", extra)
    overrides = OverridesParser.create().parse_overrides(rewritten)
    searches = any(word.startswith("hydra/sweeper=") for word in words)
    if not searches:
        _check_listed(overrides)
    runs = [] if searches else list(BasicSweeper.split_arguments(_of_runs(overrides), None)[0])
    checked = [_plain(run) for run in runs] or [_lowest(_of_runs(overrides))]
    configs = [
        check_config(compose_config(run, "train", extra)) for run in checked[:MAX_CHECKED_RUNS]
    ]
    if sweep_dir is None:
        path = Path("outputs/sweeps") / sweep_name(configs[0]) / time.strftime("%Y-%m-%d_%H-%M-%S")
    else:
        path = Path(sweep_dir)
    return Sweep(
        command=["-m", *given],
        words=rewritten,
        extra=extra,
        grid={_key(item): _values(item) for item in overrides if item.is_sweep_override()},
        runs=checked if runs else [],
        directory=SweepDirectory(path),
        resuming=resuming,
        best=configs[0].trainer.best,
    )


def _without_own_keys(given: Sequence[str]) -> tuple[list[str], str | None, bool]:
    """Take the keys of the sweep itself from the words: the others, `sweep_dir`, and `resume`."""
    own: dict[str, str] = {}
    words = []
    for word in quoted(given):
        key, _, value = word.lstrip("+").partition("=")
        if key == "run_dir":
            raise ConfigError(f"{word}: a sweep has sweep_dir=, with a folder for each run")
        if key in ("sweep_dir", "resume"):
            own[key] = value.strip("'\"")
        else:
            words.append(word)
    resume = own.get("resume", "null")
    if resume not in ("auto", "null"):
        raise ConfigError(f"resume={resume}: a sweep takes resume=auto only")
    if resume == "auto" and "sweep_dir" not in own:
        raise ConfigError("resume=auto needs sweep_dir=..., the directory of the sweep to finish")
    return words, own.get("sweep_dir"), resume == "auto"


def _check_listed(overrides: Sequence[Override]) -> None:
    """Check that all values of a grid are listed; Hydra's own sweeper would not say why not."""
    swept = [override for override in overrides if override.is_sweep_override()]
    for override in swept:
        if not override.is_discrete_sweep():
            raise ConfigError(
                f"{str(override.input_line).lstrip('+')}: an interval needs a sweeper that chooses"
                " values: hydra/sweeper=optuna; or list the values, as in a,b"
            )
    if not swept:
        raise ConfigError("-m needs a key with several values, as in loss=focal,dice or seed=0,1,2")


def _of_runs(overrides: Sequence[Override]) -> list[Override]:
    return [override for override in overrides if not override.is_hydra_override()]


def _plain(words: Sequence[str]) -> list[str]:
    """Overrides without the marks that Hydra needs, as a user types them."""
    return [word.lstrip("+") for word in words]


def _key(override: Override) -> str:
    return str(override.key_or_group)


def _values(override: Override) -> list[str]:
    if override.is_discrete_sweep():
        return list(override.sweep_string_iterator())
    return [str(override.input_line).partition("=")[2]]


def _lowest(overrides: Sequence[Override]) -> list[str]:
    """Overrides with one value per key, to check a search with: the first, or the lowest one."""
    words = []
    for item in overrides:
        raw = item.value()
        if isinstance(raw, IntervalSweep):
            value = str(raw.start)
        elif item.is_sweep_override():
            value = next(item.sweep_string_iterator())
        else:
            value = item.get_value_element_as_str()
        words.append(f"{_key(item)}={value}")
    return words


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


def _launch(sweep: Sweep, directory: SweepDirectory) -> None:
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra passes errors on, and we print one line
    own = [f"hydra.sweep.dir={_quoted(directory.path)}"]
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
    except ValueError:
        # Optuna ends with it when no trial has a value; the reasons are in the folders.
        if sweep.runs or all(row["state"] != "failed" for row in directory.runs()):
            raise


def _compare(directory: SweepDirectory, metric: str) -> None:
    """Compare the finished runs; a comparison that is not possible must not hide failed runs."""
    from segtrain.commands.compare import compare_runs  # noqa: PLC0415  loads SciPy

    try:
        compare_runs(CompareConfig(directories=(str(directory.path),), metric=metric))
    except SegtrainError as error:
        logger.warning("no comparison: %s", error)


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("\\", "\\\\").replace("'", "\\'") + "'"


def run_one(raw: DictConfig) -> Any:
    """Train one run of a sweep, in whatever process a launcher calls it; it never raises.

    Returns:
        The row of the run in ``sweep.json``; for a sweeper that searches, the score of the run,
        ``trainer.best`` on the validation split at the last step.
    """
    job = HydraConfig.get()
    overrides = _plain(job.overrides.task)
    directory = SweepDirectory(Path(job.sweep.dir))
    path = directory.folder(overrides)
    launcher = OmegaConf.to_container(job.launcher, resolve=True)
    assert isinstance(launcher, dict)
    total = len(directory.runs())
    enter_worker({str(key): value for key, value in launcher.items()}, total)
    is_main = os.environ.get("RANK", "0") == "0"
    if is_main and not _stopped:
        directory.add(overrides)
        logger.info("run %d%s: %s", job.job.num + 1, f" of {total}" if total else "", path.name)
    status = read_status(path)
    if not _stopped and (status is None or status.state != "finished"):
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
    code = exit_code_of(error)
    is_stop = code in _INTERRUPTED
    reason = str(error) if isinstance(error, SegtrainError) else describe_error(error)
    if is_stop:
        _stopped.append(code)
        reason = reason if isinstance(error, SegtrainError) else "interrupted"
    logger.error("%s: %s", " ".join(overrides), one_line(reason))
    status = read_status(path)
    state: Literal["stopped", "failed"] = "stopped" if is_stop else "failed"
    if is_main and (status is None or status.state != state):
        file = StatusFile(path, 0 if status is None else status.step, state)
        file.write(state, exit_code=code, reason=reason)


def _raise_failures(rows: Sequence[Row], directory: SweepDirectory) -> None:
    """Raise the error of the first run that did not finish, in the order of the grid."""
    again = f"sweep_dir={directory.path} resume=auto"
    finished = sum(row["state"] == "finished" for row in rows)
    if _stopped:
        code = _stopped.pop()
        raise RunFailed(
            f"interrupted: {finished} of {len(rows)} runs are finished; add {again} to finish the"
            " others",
            code,
        )
    failed = [row for row in rows if row["state"] == "failed"]
    if not failed:
        return
    status = read_status(directory.path / failed[0]["dir"])
    assert status is not None
    raise RunFailed(
        f"{len(failed)} of {len(rows)} runs failed; the first is {failed[0]['dir']}:"
        f" {status.reason}; {again} starts them again",
        status.exit_code or 1,
    )
