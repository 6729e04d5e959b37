"""The run directory: everything that a run writes."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import torch
import yaml
from torch import Tensor

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

from segtrain.engine.curves import evaluation_curves, final_curves, step_curves
from segtrain.engine.logs import LogFile, Logs
from segtrain.engine.results import without_scores
from segtrain.engine.signals import Interrupted
from segtrain.engine.status import StatusFile, lock
from segtrain.errors import (
    ConfigError,
    ResourceError,
    RunDirectoryBusyError,
    SegtrainError,
    describe_error,
    exit_code_of,
    printable,
)
from segtrain.files import atomic_write, remove_stale, write_text
from segtrain.terminal import logger


def create_run_dir(run_dir: str | None, name: str, *, resuming: bool) -> Path:
    """Create the directory of a run: `run_dir`, or ``outputs/<name>/<time>``.

    Args:
        run_dir: The directory; None for a new one in ``outputs``.
        name: The name of the run.
        resuming: Whether the run that `run_dir` holds is resumed.

    Raises:
        RunDirectoryBusyError: When `run_dir` already holds a run that is not resumed.
        ResourceError: When it cannot be created.
    """
    if run_dir is not None:
        path = Path(run_dir)
        if not resuming:
            check_unused(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(
                f"run_dir {path} cannot be created ({error.strerror}); choose another directory"
            ) from error
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


def check_name(key: str, name: str) -> str:
    """Check a name that becomes part of a path in ``outputs``; return it.

    Raises:
        ConfigError: When it is absolute, leads out of ``outputs``, or cannot be printed.
    """
    path = Path(name)
    is_inside = not path.is_absolute() and ".." not in path.parts and not name.startswith("~")
    if not name.strip() or not is_inside or not name.isprintable() or "\\" in name:
        raise ConfigError(
            f"{key}={printable(name)!r} is not a name in outputs: use letters, digits and folders"
            " below it, as in trials/first; run_dir=FOLDER is for a run elsewhere"
        )
    return name


def check_unused(run_dir: Path) -> None:
    """Refuse a directory that holds a run.

    Raises:
        RunDirectoryBusyError: When it does.
    """
    if (run_dir / "config.yaml").exists():
        raise RunDirectoryBusyError(
            f"run_dir {run_dir} already holds a run: add resume=auto to resume it, or choose"
            " another directory"
        )


_NOT_COMPARED = ("run_dir", "resume", "name")  # keys that do not change the result of a run


class Run:
    """The open files of a run; a context manager that records how the run ended.

    Args:
        path: The run directory, which exists.
        config: The whole configuration, as plain values.
        record: What the run is, for ``results.json``: loss, seed, versions, ....
        name: The name of the run, for its loggers.
        first_step: The step at which the run starts or resumes; later lines and curves of an
            earlier process are removed.
    """

    def __init__(
        self,
        path: Path,
        config: Mapping[str, Any],
        record: Mapping[str, Any] | None = None,
        *,
        name: str = "run",
        first_step: int = 0,
    ) -> None:
        self.path = path
        self.record = dict(record or {})
        self.name = name
        self._lock = lock(path)
        for folder in (path, path / "checkpoints"):
            for stale in remove_stale(folder):
                logger.info("removed %s, which a killed process left", stale)
        self._status = StatusFile(path, first_step)
        self._is_finished = False
        self._logs = Logs()
        self.checkpoints = path / "checkpoints"
        self._metrics = path / "metrics.jsonl"
        write_text(
            path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
        )
        self._drop_later_lines(first_step)
        self._writer = _open_tensorboard(path / "tensorboard", first_step)
        self._file = LogFile(path / "train.log", self._logs)
        self._file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(self._file)

    def _drop_later_lines(self, step: int) -> None:
        if self._metrics.exists():
            lines = self._metrics.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _step_of(line) <= step]
            write_text(self._metrics, "".join(f"{line}\n" for line in kept))

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            is_stop = isinstance(error, (Interrupted, KeyboardInterrupt))
            reason = str(error) if isinstance(error, SegtrainError) else describe_error(error)
            self._end("stopped" if is_stop else "failed", exit_code_of(error), reason)
        elif not self._is_finished:
            self._end("stopped", 0, "trainer.stop_after is reached")
        self.close()

    def _end(self, state: Literal["stopped", "failed"], exit_code: int, reason: str) -> None:
        """Record the end of a run that has no final scores."""
        # A full disk may be the error that is recorded here; it must not hide that error.
        with contextlib.suppress(OSError):
            self._status.write(state, exit_code=exit_code, reason=reason)
            self._write_results({**without_scores(), "step": self._status.step}, state)

    def close(self) -> None:
        """Close all files."""
        if self._writer is not None:
            with self._logs.writing(self.path / "tensorboard"):
                self._writer.close()
        logger.removeHandler(self._file)
        self._file.close()
        self._lock.close()

    def heartbeat(self, step: int) -> None:
        """Record in ``status.json`` that the run is running; see :class:`StatusFile`."""
        with self._logs.writing(self._status.path):
            self._status.heartbeat(step)

    def keep_batches(self, step: int, batches: Sequence[Mapping[str, Any]]) -> Path:
        """Save the micro-batches of a step; :func:`torch.load` with ``weights_only`` reads them."""
        path = self.path / f"nonfinite_step_{step}.pt"
        with self._logs.writing(path), atomic_write(path) as stream:
            torch.save([dict(batch) for batch in batches], stream)
        return path

    def note_checkpoint(self, step: int) -> None:
        """Record in ``status.json`` the step of the checkpoint that was saved."""
        with self._logs.writing(self._status.path):
            self._status.note_checkpoint(step)

    def abort(
        self, exit_code: int, reason: str, state: Literal["stopped", "failed"] = "stopped"
    ) -> None:
        """Record that the run ends at once; called in another thread."""
        self._end(state, exit_code, reason)

    def log_step(self, step: int, line: Mapping[str, Any], parts: Mapping[str, float]) -> None:
        """Write one line of ``metrics.jsonl`` and the curves of a training step."""
        self._append({"step": step, **line, "parts": dict(parts)})
        self._add_scalars(step_curves({**line, **parts}), step)

    def log_scores(self, step: int, result: Mapping[str, Any]) -> None:
        """Write the scores of an evaluation; see :func:`~segtrain.engine.results.results`."""
        self._append(
            {
                "step": step,
                "evaluation": {key: value for key, value in result.items() if key != "step"},
            }
        )
        self._add_scalars(evaluation_curves(result), step)

    def _add_scalars(self, curves: Mapping[str, float], step: int) -> None:
        if self._writer is not None:
            with self._logs.writing(self.path / "tensorboard"):
                for tag, value in curves.items():
                    self._writer.add_scalar(tag, value, step)

    def log_pictures(self, step: int, pictures: Mapping[str, Tensor]) -> None:
        """Write the pictures of an evaluation, ``(3, H, W)`` from 0 to 1 each."""
        if self._writer is not None:
            with self._logs.writing(self.path / "tensorboard"):
                for name, picture in pictures.items():
                    self._writer.add_image(f"val/{name}", picture, step)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the final scores to ``results.json``, and record that the run is finished."""
        self._write_results(result, "finished")
        self._log_hparams(result)
        self._status.write("finished", exit_code=0)
        self._is_finished = True

    def _write_results(self, result: Mapping[str, Any], state: str) -> None:
        content = {**result, "state": state, **self.record}
        write_text(self.path / "results.json", json.dumps(content, indent=2) + "\n")

    def _log_hparams(self, result: Mapping[str, Any]) -> None:
        """Fill TensorBoard's tab hparams with what the run is and its final scores."""
        if self._writer is None:
            return
        from torch.utils.tensorboard.summary import hparams  # noqa: PLC0415  slow to import

        given = {
            "loss": self.record.get("preset"),
            "seed": self.record.get("seed"),
            "scored_weights": result.get("scored_weights"),
        }
        for word in self.record.get("overrides", ()):
            key, _, value = word.lstrip("+").partition("=")
            if key not in _NOT_COMPARED:
                given.setdefault(key, value)
        scores = final_curves(result)
        known = {key: value for key, value in given.items() if value is not None}
        with self._logs.writing(self.path / "tensorboard"):
            for summary in hparams(known, scores):  # type: ignore[no-untyped-call]
                self._writer._get_file_writer().add_summary(summary)  # type: ignore[no-untyped-call]
        self._add_scalars(scores, int(result["step"]))

    def _append(self, line: Mapping[str, Any]) -> None:
        text = json.dumps(_finite(line), allow_nan=False) + "\n"
        with self._logs.writing(self._metrics), self._metrics.open("a", encoding="utf-8") as file:
            file.write(text)


def _open_tensorboard(path: Path, first_step: int) -> SummaryWriter | None:
    """Open the TensorBoard log; None where the package is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  slow to import
    except ImportError:
        logger.warning("no curves are written: tensorboard is missing; pip install tensorboard")
        return None
    return SummaryWriter(path, purge_step=first_step + 1)


def _finite(value: Any) -> Any:
    """A value for JSON, which has no infinity: null instead, such as for a skipped step of fp16."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # the last line of a killed process may be incomplete
        return math.inf
