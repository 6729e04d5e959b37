"""Signals that stop a command: recorded when they arrive, handled between two steps."""

from __future__ import annotations

import math
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from segtrain.errors import SegtrainError

SAME_REQUEST = 1.0
"""Seconds in which a second Ctrl-C counts as the first: torchrun and a terminal both send one."""

# SLURM and other schedulers send SIGTERM or SIGUSR1, a terminal that is closed SIGHUP.
_STOPPING = [
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
]


class Interrupted(SegtrainError):
    """A signal stopped the command.

    Args:
        number: The signal.
        message: What was done before, and how to go on.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(f"{signal.Signals(number).name} {message}")
        self.exit_code = 128 + number  # the convention of shells for signals


def interrupted_run(number: int, step: int, checkpoint: Path | None) -> Interrupted:
    """The error of a run that a signal stopped after a checkpoint was saved.

    Args:
        number: The signal.
        step: The last finished step.
        checkpoint: The saved checkpoint; None on a process that saves nothing.
    """
    run_dir = f"run_dir={checkpoint.parent.parent} resume=auto" if checkpoint else "resume=auto"
    return Interrupted(number, f"after step {step}; checkpoint saved, resume with {run_dir}")


def _is_main_thread() -> bool:
    """Whether this is the thread in which Python allows signal handlers."""
    return threading.current_thread() is threading.main_thread()


def _handle(numbers: list[int], handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Install a handler; return those before. ``nohup`` ignores SIGHUP, and so it stays ignored."""
    ignored = getattr(signal, "SIGHUP", None)
    return {
        number: signal.signal(number, handler)
        for number in numbers
        if number != ignored or signal.getsignal(number) is not signal.SIG_IGN
    }


@contextmanager
def raise_on_signals() -> Iterator[None]:
    """Raise :class:`Interrupted` when a signal asks the command to stop, so that it cleans up.

    Ctrl-C raises ``KeyboardInterrupt``, as always in Python.
    """

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        signal.signal(number, signal.SIG_IGN)  # a second one must not end the cleaning up
        raise Interrupted(number, "received; the command was stopped")

    if not _is_main_thread():
        yield
        return
    before = _handle(_STOPPING, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class StopSignals:
    """Records the first signal in `received`; a context manager.

    The program ends at once on a second Ctrl-C, and when the first signal was not obeyed within a
    time, such as while it waits for a data worker that hangs.

    Args:
        abort: Called in another thread with the signal and a message; it must end the program.
        grace: Returns the seconds in which a signal is obeyed.
    """

    def __init__(
        self,
        abort: Callable[[int, str], None] = lambda *_: None,
        grace: Callable[[], float] = lambda: 20.0,
    ) -> None:
        self.received = 0
        self._abort, self._grace = abort, grace
        self._before: dict[int, Any] = {}
        self._watch: _Watch | None = None

    def __enter__(self) -> StopSignals:
        if _is_main_thread():
            self._watch = _Watch(self._abort, self._grace)
            self._before = _handle([signal.SIGINT, *_STOPPING], self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.received = self.received or number

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._watch is not None:
            self._watch.close()


class _Watch:
    """A thread that sees signals at once; a handler in Python waits for the end of a long call."""

    def __init__(self, abort: Callable[[int, str], None], grace: Callable[[], float]) -> None:
        self._abort, self._grace = abort, grace
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        first, deadline, interrupted = 0, math.inf, math.inf
        while True:
            left = None if math.isinf(deadline) else max(deadline - time.monotonic(), 0)
            if not select.select([self._reader], [], [], left)[0]:
                name = signal.Signals(first).name
                self._abort(
                    first,
                    f"{name}: the step did not end in time, so nothing was saved after the last"
                    " checkpoint",
                )
                return
            (number,) = os.read(self._reader, 1)
            if number == 0:  # written by close
                return
            now = time.monotonic()
            if number in (signal.SIGINT, *_STOPPING) and not first:
                first, deadline = number, now + self._grace()
            if number == signal.SIGINT:
                if now - interrupted > SAME_REQUEST:
                    self._abort(
                        number,
                        "interrupted twice, so nothing was saved after the last checkpoint",
                    )
                    return
                interrupted = min(interrupted, now)

    def close(self) -> None:
        signal.set_wakeup_fd(self._before)
        os.write(self._writer, b"\0")
        self._thread.join()
        os.close(self._reader)
        os.close(self._writer)
