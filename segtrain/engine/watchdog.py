"""A thread that ends a run which makes no progress, such as when a process or a worker hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

from segtrain.errors import ResourceError

_CAUSES = {
    "loading data": "a data worker hangs, such as on a file system that does not answer",
    "a training step": "another process hangs or was killed, or one step takes so long",
    "an evaluation": "another process hangs or was killed, or one batch takes so long",
    "saving a checkpoint": "another process hangs or was killed, or the file system hangs",
}


class Watchdog:
    """Calls a function when nothing was noted for a time; a context manager.

    Args:
        minutes: The time.
        rank: The number of this process, for the message.
        expired: Called in another thread with an exit code and a message; it must end the program.
    """

    def __init__(self, minutes: float, rank: int, expired: Callable[[int, str], None]) -> None:
        self.minutes, self.rank = minutes, rank
        self._expired = expired
        self._noted, self._phase, self._step = time.monotonic(), "loading data", 0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def note(self, phase: str, step: int) -> None:
        """Note that the run goes on.

        Args:
            phase: What it does next.
            step: The last finished step.
        """
        self._noted, self._phase, self._step = time.monotonic(), phase, step

    def __enter__(self) -> Watchdog:
        self._noted = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        limit = 60 * self.minutes
        while not self._closed.wait(min(limit / 10, 5.0)):
            if time.monotonic() - self._noted > limit:
                self._expired(ResourceError.exit_code, self._message())
                return

    def _message(self) -> str:
        return (
            f"process {self.rank} made no progress for {self.minutes:g} minutes, in"
            f" {self._phase} after step {self._step}: {_CAUSES[self._phase]}; resume with"
            " resume=auto, and raise trainer.timeout if the run is only slow"
        )
