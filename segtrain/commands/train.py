"""What the commands do once their configuration is checked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from segtrain.assembly.training import build_trainer
from segtrain.engine.distributed import processes
from segtrain.schema.sections import (
    Config,
)
from segtrain.terminal import logger


@contextmanager
def _closing(trainer: Any) -> Iterator[None]:
    try:
        yield
    finally:
        if trainer.run is not None:
            trainer.run.close()


def train(config: Config) -> dict[str, Any]:
    """Train as `config` says; returns the final scores and the run directory, on rank 0."""
    with processes(config.trainer.device) as here:
        trainer = build_trainer(config, here)
        with _closing(trainer):
            result = trainer.fit() or {}
            if trainer.run is None:
                return {}
            if result:
                logger.info(
                    "%s: mIoU %.4f after %d steps", trainer.run.path, result["mIoU"], trainer.step
                )
            return {**result, "run_dir": str(trainer.run.path)}
