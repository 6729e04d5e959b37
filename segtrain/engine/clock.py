"""Measure the duration and the speed of a run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Seconds of the run so far, and images per second of training since the last call.

    Args:
        before: Seconds that the run took before it was resumed.
    """

    def __init__(self, before: float = 0.0) -> None:
        self._begun = self._since = time.monotonic()
        self._started = self._begun - before
        self._images = 0
        self._steps = 0
        self._outside = 0.0

    @property
    def seconds(self) -> float:
        """Seconds of the whole run, including those before it was resumed."""
        return time.monotonic() - self._started

    def count(self, images: int) -> None:
        """Add the images of one step."""
        self._images += images
        self._steps += 1

    def rate(self) -> float:
        """Return the images per second since the last call."""
        now = time.monotonic()
        rate = self._images / max(now - self._since, 1e-9)
        self._images, self._since = 0, now
        return rate

    @property
    def seconds_per_step(self) -> float | None:
        """Mean duration of a step since the run began or was resumed; None before the first."""
        if not self._steps:
            return None
        return (time.monotonic() - self._begun - self._outside) / self._steps

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the time inside the block from the durations of steps."""
        entered = time.monotonic()
        try:
            yield
        finally:
            outside = time.monotonic() - entered
            self._since += outside
            self._outside += outside

    def grace(self) -> float:
        """Seconds in which a running step has surely ended: at least 20."""
        return max(20.0, 3 * (self.seconds_per_step or 0.0))
