"""Start several runs from one command line, with Hydra's sweepers."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.markup import escape
from rich.table import Table

from segtrain.assembly.check import check_config
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
from segtrain.commands.train import train
from segtrain.engine.signals import Interrupted
from segtrain.errors import ConfigError, SegtrainError, describe_error, one_line
from segtrain.files import config_dir
from segtrain.schema.plugins import load_plugins
from segtrain.schema.sections import Config
from segtrain.terminal import console, logger

MAX_CHECKED_JOBS = 200


def train_many(words: Sequence[str], extra: Path | None) -> None:
    """Train one model per combination of values, after all combinations were checked.

    A run that fails does not end the sweep: the others follow, and the table shows its reason.

    Raises:
        SegtrainError: The error of the first run that failed, after the table was printed.
    """
    if extra is not None:
        check_folder(extra)  # a sweep over a range composes nothing here
    for job in _jobs(words, extra):
        check_config(compose_config(job, "train", extra))
    table = Table(
        "overrides", "mIoU", "run directory or reason", title="sweep", title_justify="left"
    )
    failures: list[Exception] = []

    def run_job(raw: DictConfig) -> None:
        config = check_config(to_plain(raw))
        hydra_config = HydraConfig.get()
        overrides = [word.lstrip("+") for word in hydra_config.overrides.task]
        origin = origin_of(overrides, hydra_config.runtime.choices)
        label = escape(" ".join(overrides))
        try:
            result = train(_in_own_directory(config, hydra_config.job.num), origin)
        except Interrupted:
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, the other runs do not depend on it
            reason = str(error) if isinstance(error, SegtrainError) else describe_error(error)
            logger.error("%s: %s", " ".join(overrides), one_line(reason))
            failures.append(error)
            table.add_row(label, "failed", escape(one_line(reason)))
            return
        miou = "n/a" if result.get("mIoU") is None else f"{result['mIoU']:.4f}"
        table.add_row(label, miou, result["run_dir"])

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra passes errors on, and we print one line
    sys.argv = [sys.argv[0], "--multirun", *rewrite(words, "train", extra), *search_path(extra)]
    GlobalHydra.instance().clear()
    try:
        hydra.main(config_path=str(config_dir()), config_name="train", version_base="1.3")(
            run_job
        )()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(hydra_message(error)) from error
    if table.row_count:
        console.print(table)
    if failures:
        raise failures[0]


def _in_own_directory(config: Config, number: int) -> Config:
    """Give each run of a sweep a directory of its own inside `run_dir`."""
    if config.run_dir is None:
        return config
    return replace(config, run_dir=str(Path(config.run_dir) / str(number)))


def _jobs(words: Sequence[str], extra: Path | None) -> Iterable[list[str]]:
    """List the overrides of each run of a sweep over listed values; empty if there is a range."""
    load_plugins(plugins_in(words, extra))
    choices = []
    words = quoted(words)
    for word, override in zip(words, OverridesParser.create().parse_overrides(words), strict=True):
        if override.is_sweep_override() and not override.is_discrete_sweep():
            return []
        key = (
            override.input_line.partition("=")[0] if override.input_line else override.key_or_group
        )
        values = override.sweep_string_iterator() if override.is_sweep_override() else None
        choices.append([word] if values is None else [f"{key}={value}" for value in values])
    return [list(job) for job in itertools.islice(itertools.product(*choices), MAX_CHECKED_JOBS)]
