"""The command ``segtrain train``."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from segtrain.assembly.training import build_trainer
from segtrain.engine.device import set_deterministic
from segtrain.engine.distributed import processes
from segtrain.engine.failures import shared_errors
from segtrain.pages import learning_rates  # noqa: F401  it registers a hook
from segtrain.schema.origin import Origin
from segtrain.schema.sections import Config
from segtrain.terminal import logger


def train(config: Config, origin: Origin | None = None) -> dict[str, Any]:
    """Train a model.

    Args:
        config: The configuration.
        origin: What the user typed, which names the run.

    Returns:
        The final scores, and the run directory as ``run_dir``. A run that was stopped has no scores
        yet, and with several processes only the main one has a result; the others return ``{}``.
    """
    set_deterministic(config.trainer.deterministic)
    with processes(config.trainer.device) as here:
        with shared_errors(here):
            trainer = build_trainer(config, here, origin)
        run = trainer.run  # None in every process but the main one
        with nullcontext() if run is None else run, shared_errors(here):
            result = trainer.fit() or {}
            if run is None:
                return {}
            if result:
                logger.info("%s", _summary(result, trainer.options.best, run.path))
            return {**result, "run_dir": str(run.path)}


def _summary(result: dict[str, Any], best: str, run_dir: Path) -> str:
    """One line with the final score, and the best one beside it."""
    miou = "n/a" if result["mIoU"] is None else f"{result['mIoU']:.4f}"
    text = f"{run_dir}: mIoU {miou} on {result['split']} after {result['step']} steps"
    if result["best"]:
        text += f"; best on val: {best} {result['best'][best]:.4f} at step {result['best']['step']}"
    return text
