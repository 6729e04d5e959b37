"""Commands as Python functions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


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

    start_logging()
    extra = None if config_dir is None else Path(config_dir)
    composed, origin = compose_run(overrides, "train", extra)
    result = command.train(check_config(composed), origin)
    run_dir = Path(result.pop("run_dir", "."))
    return TrainResult(run_dir, result)
