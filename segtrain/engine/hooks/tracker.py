"""What loggers share: what they send, when, and how long a run waits for them."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit, urlunsplit

from segtrain.engine.curves import evaluation_curves, final_curves, step_curves
from segtrain.engine.hooks.base import Hook, Watched
from segtrain.engine.hooks.sender import Sender
from segtrain.engine.signals import Interrupted
from segtrain.errors import ConfigError
from segtrain.terminal import logger

_AT_START = 10.0  # seconds for the server's first answer
_AT_END = 30.0  # seconds for the last messages
_FOR_CHECKPOINT = 300.0  # seconds for them and a checkpoint
_AFTER_FAILURE = 5.0  # seconds for them when the run was interrupted or failed


class Tracker(Hook):
    """Base class of loggers: they send a run to a service that shows and compares runs.

    They send the configuration, the values of each line of ``metrics.jsonl``, the final scores and
    the path of the run directory. A thread sends them, so that a slow server does not slow the
    training. A run that resumes in its run directory continues its run of the service.

    The other methods are called in that thread, in this order: `connect`, `log` and `upload` any
    number of times, `finish`.

    Args:
        run_name: The name that the service shows; null: the name of the run.
        checkpoints: Upload ``best.pt`` at the end of the run.
    """

    package: ClassVar[str]  # the package to import; also the names of the hook and of the extra

    def __init__(self, *, run_name: str | None = None, checkpoints: bool = False) -> None:
        if importlib.util.find_spec(self.package) is None:
            raise ConfigError(
                f"the hook {self.package} needs the package {self.package}, which is not"
                f' installed: pip install "segtrain[{self.package}]"'
            )
        # Imported here and not in the thread: data workers are forked from this process, and a
        # lock of a half imported module would never be released in them.
        self.module: Any = importlib.import_module(self.package)
        self.run_name, self.checkpoints = run_name, checkpoints
        self.id: str | None = None  # of the run of the service
        self.run_dir: str | None = None
        self._sender: Sender | None = None

    @abstractmethod
    def connect(self, name: str, config: Mapping[str, Any], *, resumes: bool) -> None:
        """Begin a run of the service, or continue the one with the id `self.id`.

        Args:
            name: Its name.
            config: The configuration with dotted keys, and the path of the run directory.
            resumes: Whether it is continued.
        """

    @abstractmethod
    def log(self, values: Mapping[str, float], step: int) -> None:
        """Send the values of curves at a step."""

    @abstractmethod
    def upload(self, path: Path) -> None:
        """Send a checkpoint."""

    @abstractmethod
    def finish(self, error: BaseException | None, *, is_done: bool) -> None:
        """End the run of the service.

        Args:
            error: What ended the run early; None: nothing did.
            is_done: Whether the run has its final scores.
        """

    @property
    @abstractmethod
    def place(self) -> str:
        """Where the user finds the run, for a message; read once it is connected."""

    @property
    def recovery(self) -> str:
        """What the user can do when the server did not get everything, for a message."""
        return ""

    def new_id(self, name: str) -> str | None:  # noqa: ARG002
        """The id of a new run, if the service does not choose it."""
        return None

    def on_start(self, run: Watched) -> None:
        run_dir = str(run.run_dir.resolve())
        resumes = self.id is not None and self.run_dir == run_dir
        name = self.run_name or run.name
        if not resumes:
            self.id, self.run_dir = self.new_id(name), run_dir
        config = {**flat(run.config), "run_dir": run_dir}
        self._sender = Sender(self.package, partial(self.connect, name, config, resumes=resumes))
        connected = self._sender.is_connected(_AT_START)
        if connected:
            logger.info("%s: %s", self.package, self.place)
        elif connected is None:
            text = "%s: no answer after %d seconds; training goes on, and what can be sent is sent"
            logger.warning(f"{text} later", self.package, _AT_START)

    def on_step(self, run: Watched, values: Mapping[str, float] | None) -> None:
        if values is not None:
            self._send(step_curves(values), run.step)

    def on_evaluation(self, run: Watched, result: Mapping[str, Any]) -> None:
        self._send(evaluation_curves(result), run.step)

    def on_end(self, run: Watched, result: Mapping[str, Any] | None) -> None:
        if self._sender is None:
            return
        seconds = _AT_END if run.error is None else _AFTER_FAILURE
        if result is not None:
            self._send({**final_curves(result), **_figures(result)}, run.step)
            best = run.run_dir / "checkpoints" / "best.pt"
            if self.checkpoints and best.is_file():
                seconds = _FOR_CHECKPOINT
                self._sender.send(partial(self.upload, best))
        self._sender.send(partial(self.finish, run.error, is_done=result is not None))
        if not self._sender.close(seconds) and self.recovery:
            logger.warning("%s: later, %s", self.package, self.recovery)
        self._sender = None

    def _send(self, values: Mapping[str, float], step: int) -> None:
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        if self._sender is not None and finite:
            self._sender.send(partial(self.log, finite, step))

    def state_dict(self) -> dict[str, Any]:
        return {"id": self.id, "run_dir": self.run_dir}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if isinstance(state.get("id"), str):  # the service had answered
            self.id, self.run_dir = state["id"], str(state.get("run_dir"))


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted keys; lists that hold mappings become JSON.

    Example:
        >>> flat({"seed": 0, "trainer": {"max_steps": 9, "freeze": []}, "hooks": [{"name": "a"}]})
        {'seed': 0, 'trainer.max_steps': 9, 'trainer.freeze': [], 'hooks': '[{"name": "a"}]'}
    """
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, (list, tuple)) and any(isinstance(one, Mapping) for one in value):
            found[f"{prefix}{key}"] = json.dumps(value, default=str)
        else:
            found[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return found


def without_secrets(address: str) -> str:
    """An address without a password, and without a query, which may hold a token.

    Example:
        >>> without_secrets("https://me:secret@host:5000/a?write_token=secret")
        'https://host:5000/a'
        >>> without_secrets("sqlite:///mlflow.db")
        'sqlite:///mlflow.db'
    """
    parts = urlsplit(address)
    if not parts.netloc:
        return address
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=host, query="", fragment=""))


def _figures(result: Mapping[str, Any]) -> dict[str, float]:
    """The best score, and the figures of a run beside its scores."""
    best = {f"best/{key}": value for key, value in result.get("best", {}).items()}
    names = ("seconds", "seconds_per_step", "peak_memory_bytes")
    figures = {f"final/{name}": result.get(name) for name in names}
    return {key: value for key, value in {**best, **figures}.items() if value is not None}


def exit_code(error: BaseException | None) -> int:
    """0 of a run that has finished or was stopped, 1 of one that failed."""
    return 0 if error is None or isinstance(error, (Interrupted, KeyboardInterrupt)) else 1
