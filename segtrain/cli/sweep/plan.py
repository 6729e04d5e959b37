"""Plan a sweep: check every run of the grid before one starts."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from segtrain.assembly.check import check_config
from segtrain.assembly.training import sweep_name
from segtrain.cli.compose import compose_config, hydra_message, plugins_in, quoted, rewrite
from segtrain.cli.foreign import check_folder
from segtrain.cli.sweep.launchers import check_launcher, ready_config
from segtrain.engine.sweep_directory import SweepDirectory, run_folder
from segtrain.errors import ConfigError
from segtrain.files import config_dir
from segtrain.schema.plugins import load_plugins

MAX_CHECKED_RUNS = 200


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
    _check_hydra([override for override in overrides if override.is_hydra_override()])
    searches = any(word.startswith("hydra/sweeper=") for word in words)
    if not searches:
        _check_listed(overrides)
    runs = [] if searches else list(BasicSweeper.split_arguments(_of_runs(overrides), None)[0])
    grid = {_key(item): _values(item) for item in overrides if item.is_sweep_override()}
    checked = [plain(run) for run in runs] or [_lowest(_of_runs(overrides))]
    _check_different(checked, grid)
    configs = [
        check_config(compose_config(run, "train", extra)) for run in checked[:MAX_CHECKED_RUNS]
    ]
    path = _new_directory(sweep_name(configs[0])) if sweep_dir is None else Path(sweep_dir)
    return Sweep(
        command=["-m", *given],
        words=rewritten,
        extra=extra,
        grid=grid,
        runs=checked if runs else [],
        directory=SweepDirectory(path),
        resuming=resuming,
        best=configs[0].trainer.best,
    )


def _new_directory(name: str) -> Path:
    """A directory in ``outputs`` that does not exist yet."""
    base = Path("outputs/sweeps") / name / time.strftime("%Y-%m-%d_%H-%M-%S")
    others = (base.with_name(f"{base.name}-{number}") for number in itertools.count(1))
    return next(path for path in itertools.chain([base], others) if not path.exists())


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


def _check_hydra(overrides: Sequence[Override]) -> None:
    """Check the launcher, the sweeper and their keys, before anything is written."""
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            loader = GlobalHydra.instance().config_loader()
            for override in overrides:
                if override.is_sweep_override():
                    raise ConfigError(f"{override.input_line}: {_key(override)} takes one value")
                group, name = _key(override), override.get_value_element_as_str()
                if group in ("hydra/launcher", "hydra/sweeper"):
                    check_launcher(group, name, loader.get_group_options(group))
            compose("train", overrides=[str(override.input_line) for override in overrides])
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(hydra_message(error)) from error


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


def _check_different(runs: Sequence[Sequence[str]], grid: Mapping[str, Sequence[str]]) -> None:
    """Check that no two runs of a grid are the same, since they would share a folder."""
    known: dict[str, None] = {}
    for run in runs:
        folder = run_folder(run, grid)
        if folder in known:
            words = " ".join(word for word in run if word.partition("=")[0] in grid)
            raise ConfigError(f"the grid has the run {words} twice; list each value once")
        known[folder] = None


def _of_runs(overrides: Sequence[Override]) -> list[Override]:
    return [override for override in overrides if not override.is_hydra_override()]


def plain(words: Sequence[str]) -> list[str]:
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
