"""The command ``segtrain compare``."""

from __future__ import annotations

import time
from pathlib import Path

from segtrain.comparison import Comparison, compare
from segtrain.comparison.files import write_comparison
from segtrain.comparison.tables import terminal
from segtrain.engine import sweep_directory
from segtrain.errors import ConfigError
from segtrain.schema.sections import CompareConfig
from segtrain.terminal import console, logger


def compare_runs(config: CompareConfig) -> Comparison:
    """Compare runs, print the verdicts and write the comparison.

    Raises:
        ConfigError: When a directory has no run, the metric or the baseline does not fit them, or
            the output is a file.
    """
    if config.output and Path(config.output).is_file():
        raise ConfigError(f"output={config.output} is a file; give a folder")
    comparison = compare(config.directories, metric=config.metric, baseline=config.baseline)
    console.print(terminal(comparison))
    folder = Path(config.output) if config.output else _default_folder(config)
    write_comparison(comparison, folder)
    logger.info("written: %s", folder / "comparison.{json,md,tex,csv,html}")
    return comparison


def _default_folder(config: CompareConfig) -> Path:
    """The sweep itself if a single one is compared, else a new folder."""
    first = Path(config.directories[0])
    if len(config.directories) == 1 and (first / sweep_directory.FILE).is_file():
        return first
    return Path("outputs", "comparisons", time.strftime("%Y-%m-%d_%H-%M-%S"))
