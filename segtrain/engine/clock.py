"""The time a run takes, and its speed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class _Clock:
    """Seconds of the run so far, and images per second of training since the last look."""

    def __init__(self, before: float) -> None:
        self._started = self._since = time.monotonic()
        self._started -= before
        self._images = 0

    @property
    def seconds(self) -> float:
        """Of the whole run, in all the processes that it took one after the other."""
        return time.monotonic() - self._started

    def count(self, images: int) -> None:
        """So many images more went through a step."""
        self._images += images

    def rate(self) -> float:
        """Images per second since the last call."""
        now = time.monotonic()
        rate = self._images / max(now - self._since, 1e-9)
        self._images, self._since = 0, now
        return rate

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time that is not spent on training images."""
        entered = time.monotonic()
        yield
        self._since += time.monotonic() - entered
