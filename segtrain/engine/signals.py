"""Ctrl-C and SIGTERM: recorded when they arrive, handled between two steps."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from segtrain.errors import SegtrainError


class Interrupted(SegtrainError):
    """A signal stopped the run after a checkpoint was saved.

    Args:
        number: The signal.
        step: The last finished step.
        checkpoint: The saved checkpoint; None on a process that saves nothing.
    """

    def __init__(self, number: int, step: int, checkpoint: Path | None) -> None:
        run_dir = f"run_dir={checkpoint.parent.parent} resume=auto" if checkpoint else "resume=auto"
        super().__init__(
            f"{signal.Signals(number).name} after step {step}; checkpoint saved,"
            f" resume with {run_dir}"
        )
        self.exit_code = 128 + number  # the convention of shells for signals


class StopSignals:
    """Records the first SIGINT or SIGTERM in `received`; a second one has its usual effect."""

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        # Python allows signal handlers in the main thread only.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()
