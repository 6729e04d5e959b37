"""The run directory: what a run writes, and what a person sees while it runs."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import yaml
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from segtrain.errors import RunDirectoryBusyError
from segtrain.files import write_text
from segtrain.terminal import logger


def create_run_dir(run_dir: str | None, name: str, *, resuming: bool) -> Path:
    """The directory of a run, made now; ``outputs/<name>/<time>`` unless `run_dir` says otherwise.

    Raises:
        RunDirectoryBusyError: When `run_dir` already holds a run and this is not its continuation.
    """
    if run_dir is not None:
        path = Path(run_dir)
        if not resuming and (path / "config.yaml").exists():
            raise RunDirectoryBusyError(
                f"run_dir {path} already holds a run: add resume=auto to go on with it,"
                " or name another"
            )
        path.mkdir(parents=True, exist_ok=True)
        return path
    base = Path("outputs") / name / time.strftime("%Y-%m-%d_%H-%M-%S")
    attempt = 0
    while True:
        path = base if attempt == 0 else base.with_name(f"{base.name}-{attempt}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:  # two runs of one second: the directory goes to the first
            attempt += 1
        else:
            return path


class Run:
    """Everything that one run writes, and its progress on the terminal.

    Args:
        path: The run directory, which exists.
        config: The whole configuration, plain values.
        first_step: The step from which this process goes on; later lines of an earlier process are
            dropped.
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
        self._writer = SummaryWriter(path / "tensorboard", purge_step=first_step + 1)
        self._file = logging.FileHandler(path / "train.log", encoding="utf-8")
        self._file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(self._file)

    def _drop_later_lines(self, step: int) -> None:
        if self._metrics.exists():
            lines = self._metrics.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _step_of(line) <= step]
            write_text(self._metrics, "".join(f"{line}\n" for line in kept))

    def close(self) -> None:
        """Finish the files."""
        self._writer.close()
        logger.removeHandler(self._file)
        self._file.close()
        self._lock.close()

    def log_step(self, step: int, line: Mapping[str, Any], parts: Mapping[str, float]) -> None:
        """One line of ``metrics.jsonl`` and the curves of a training step."""
        self._append({"step": step, **line, "parts": dict(parts)})
        for key, value in line.items():
            self._writer.add_scalar(f"train/{key}", value, step)
        for key, value in parts.items():
            self._writer.add_scalar(f"train_parts/{key}", value, step)

    def log_scores(self, step: int, result: Mapping[str, Any]) -> None:
        """Write the scores of an evaluation, as from :func:`results`."""
        self._append(
            {
                "step": step,
                "evaluation": {key: value for key, value in result.items() if key != "step"},
            }
        )
        for key in ("mIoU", "pixel_accuracy", "mean_accuracy"):
            self._add(f"val/{key}", result[key], step)
        for name, value in result["per_class_iou"].items():
            self._add(f"val_iou/{name}", value, step)

    def _add(self, tag: str, value: float | None, step: int) -> None:
        if value is not None:
            self._writer.add_scalar(tag, value, step)

    def log_image(self, step: int, image: Tensor) -> None:
        """A picture of inputs, targets and predictions, ``(3, H, W)`` from 0 to 1."""
        self._writer.add_image("val/input_target_prediction", image, step)

    def write_results(self, result: Mapping[str, Any]) -> None:
        """The final scores, ``results.json``."""
        write_text(self.path / "results.json", json.dumps(result, indent=2) + "\n")

    def _append(self, line: Mapping[str, Any]) -> None:
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _lock(path: Path) -> IO[str]:
    """A file that one process holds as long as it writes to the run directory."""
    file = (path / ".lock").open("w", encoding="utf-8")
    try:
        import fcntl  # noqa: PLC0415  not on every system, and there a run goes without

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
    except (ValueError, KeyError, TypeError):  # a line cut short by a kill
        return math.inf
