"""The run directory: everything that a run writes."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import yaml
from torch import Tensor

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

from segtrain.errors import RunDirectoryBusyError
from segtrain.files import write_text
from segtrain.terminal import logger


def create_run_dir(run_dir: str | None, name: str, *, resuming: bool) -> Path:
    """Create the directory of a run: `run_dir`, or ``outputs/<name>/<time>``.

    Args:
        run_dir: The directory; None for a new one in ``outputs``.
        name: The name of the run.
        resuming: Whether the run that `run_dir` holds is resumed.

    Raises:
        RunDirectoryBusyError: When `run_dir` already holds a run that is not resumed.
    """
    if run_dir is not None:
        path = Path(run_dir)
        if not resuming and (path / "config.yaml").exists():
            raise RunDirectoryBusyError(
                f"run_dir {path} already holds a run: add resume=auto to resume it, or choose"
                " another directory"
            )
        path.mkdir(parents=True, exist_ok=True)
        return path
    base = Path("outputs") / name / time.strftime("%Y-%m-%d_%H-%M-%S")
    attempt = 0
    while True:
        path = base if attempt == 0 else base.with_name(f"{base.name}-{attempt}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:  # another run started in the same second
            attempt += 1
        else:
            return path


class Run:
    """The open files of a run.

    Args:
        path: The run directory, which exists.
        config: The whole configuration, as plain values.
        first_step: The step at which the run starts or resumes; later lines and curves of an
            earlier process are removed.
    """

    def __init__(self, path: Path, config: Mapping[str, Any], *, first_step: int = 0) -> None:
        self.path = path
        self._lock = _lock(path)
        self.checkpoints = path / "checkpoints"
        self._metrics = path / "metrics.jsonl"
        write_text(
            path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
        )
        self._drop_later_lines(first_step)
        self._writer = _open_tensorboard(path / "tensorboard", first_step)
        self._file = logging.FileHandler(path / "train.log", encoding="utf-8")
        self._file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(self._file)

    def _drop_later_lines(self, step: int) -> None:
        if self._metrics.exists():
            lines = self._metrics.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _step_of(line) <= step]
            write_text(self._metrics, "".join(f"{line}\n" for line in kept))

    def close(self) -> None:
        """Close all files."""
        if self._writer is not None:
            self._writer.close()
        logger.removeHandler(self._file)
        self._file.close()
        self._lock.close()

    def log_step(self, step: int, line: Mapping[str, Any], parts: Mapping[str, float]) -> None:
        """Write one line of ``metrics.jsonl`` and the curves of a training step."""
        self._append({"step": step, **line, "parts": dict(parts)})
        for key, value in line.items():
            self._add_scalar(f"train/{key}", value, step)
        for key, value in parts.items():
            self._add_scalar(f"train_parts/{key}", value, step)

    def log_scores(self, step: int, result: Mapping[str, Any]) -> None:
        """Write the scores of an evaluation; see :func:`~segtrain.engine.results.results`."""
        self._append(
            {
                "step": step,
                "evaluation": {key: value for key, value in result.items() if key != "step"},
            }
        )
        for key in ("mIoU", "pixel_accuracy", "mean_accuracy"):
            self._add_scalar(f"val/{key}", result[key], step)
        for name, value in result["per_class_iou"].items():
            self._add_scalar(f"val_iou/{name}", value, step)

    def _add_scalar(self, tag: str, value: float | None, step: int) -> None:
        if self._writer is not None and value is not None:
            self._writer.add_scalar(tag, value, step)

    def log_image(self, step: int, image: Tensor) -> None:
        """Write a picture of images, targets and predictions, ``(3, H, W)`` from 0 to 1."""
        if self._writer is not None:
            self._writer.add_image("val/input_target_prediction", image, step)

    def write_results(self, result: Mapping[str, Any]) -> None:
        """Write the final scores to ``results.json``."""
        write_text(self.path / "results.json", json.dumps(result, indent=2) + "\n")

    def _append(self, line: Mapping[str, Any]) -> None:
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _open_tensorboard(path: Path, first_step: int) -> SummaryWriter | None:
    """Open the TensorBoard log; None where the package is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  slow to import
    except ImportError:
        logger.warning("no curves are written: tensorboard is missing; pip install tensorboard")
        return None
    return SummaryWriter(path, purge_step=first_step + 1)


def _lock(path: Path) -> IO[str]:
    """Lock the run directory for this process."""
    file = (path / ".lock").open("w", encoding="utf-8")
    try:
        import fcntl  # noqa: PLC0415  Windows has none, and there a run works without a lock

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        pass
    except OSError as error:
        file.close()
        raise RunDirectoryBusyError(f"run_dir {path} is in use by another process") from error
    return file


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # the last line of a killed process may be incomplete
        return math.inf
