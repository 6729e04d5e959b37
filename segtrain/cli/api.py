"""Commands as Python functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segtrain.errors import ConfigError

if TYPE_CHECKING:
    from segtrain.comparison import Comparison


@dataclass(frozen=True)
class TrainResult:
    """The result of :func:`train`.

    Attributes:
        run_dir: The run directory.
        scores: The scores in ``results.json``: ``mIoU``, ``per_class_iou``, ``scores``, ``step``,
            .... Empty for a run that ``trainer.stop_after`` stopped.
    """

    run_dir: Path
    scores: dict[str, Any]


def compare(
    directories: Sequence[str | Path] | str | Path,
    *,
    metric: str = "iou",
    baseline: str | None = None,
) -> Comparison:
    """Compare runs that differ in a few keys, over their seeds.

    Runs that differ in nothing but the seed form a group. Each group is compared with the baseline
    that agrees with it in all other swept keys, paired by seed and image. The command
    ``segtrain compare`` does the same and writes the result.

    Args:
        directories: Run directories, sweep directories, or folders of them.
        metric: The score: ``iou``, another metric that the runs computed, or its value for a class
            such as ``dice[crack]``.
        baseline: Keys and values of the baseline, such as ``loss=cross_entropy``; None: the groups
            with ``loss=cross_entropy`` if there are any, else those that share the first swept
            value of the first group.

    Raises:
        ConfigError: When a directory has no run, no run is finished, or `metric` or `baseline` does
            not fit the runs.
        CheckpointError: When a file of a run is damaged.

    Example:
        >>> comparison = compare("outputs/sweeps/x", metric="dice")  # doctest: +SKIP
        >>> comparison.verdicts  # doctest: +SKIP
        ['focal is better than cross_entropy by 0.9 points (0.3 to 1.5) at 300 steps, ...']
    """
    # SciPy takes a moment to import, which ``import segtrain`` must not cost.
    from segtrain.comparison import compare as compare_runs  # noqa: PLC0415

    return compare_runs(directories, metric=metric, baseline=baseline)


def train(*overrides: str, config_dir: str | Path | None = None) -> TrainResult:
    """Train a model, as the command ``segtrain train`` does.

    Args:
        *overrides: Keys and values as on the command line, such as ``"loss=focal"``.
        config_dir: A folder of your own configs, as ``--config-dir``.

    Raises:
        SegtrainError: When the configuration, the data or the training is wrong. A command prints
            its message and ends with its ``exit_code``.

    Example:
        >>> result = train("loss=focal", "trainer.max_steps=100")  # doctest: +SKIP
        >>> result.run_dir, result.scores["mIoU"]  # doctest: +SKIP
        (PosixPath('outputs/shapes_hrnet_w18_small_v1_focal/2026-01-01_12-00-00'), 0.41)
    """
    # Hydra and the commands take a second to import, which ``import segtrain`` must not cost.
    from segtrain.assembly.check import check_config  # noqa: PLC0415
    from segtrain.cli.compose import compose_run  # noqa: PLC0415
    from segtrain.commands import train as command  # noqa: PLC0415
    from segtrain.terminal import start_logging  # noqa: PLC0415

    if not all(isinstance(word, str) for word in overrides):
        raise ConfigError('train takes texts: segtrain.train("loss=focal", "seed=1")')
    start_logging()
    extra = None if config_dir is None else Path(config_dir)
    composed, origin = compose_run(overrides, "train", extra)
    result = command.train(check_config(composed), origin)
    run_dir = Path(result.pop("run_dir", "."))
    return TrainResult(run_dir, result)
