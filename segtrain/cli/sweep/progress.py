"""Show how far a sweep is whose runs train in other processes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from segtrain.engine.sweep_directory import SweepDirectory
from segtrain.terminal import logger, progress, shows_progress

_SECONDS = 2.0
_ENDED = ("finished", "failed", "stopped", "killed")


@contextmanager
def watched(directory: SweepDirectory, total: int) -> Iterator[None]:
    """Show a progress bar of the runs that ended; without a terminal, a line for each.

    Args:
        directory: The directory of the sweep.
        total: The number of runs; 0 if it is not known.
    """
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(directory, total, over), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _watch(directory: SweepDirectory, total: int, over: threading.Event) -> None:
    known = {row["dir"] for row in directory.runs() if row["state"] in _ENDED}
    with progress("runs", total, len(known)) as bar:
        while True:
            is_over = over.wait(_SECONDS)
            for row in directory.runs():
                if row["state"] in _ENDED and row["dir"] not in known:
                    known.add(row["dir"])
                    bar.advance(row["dir"])
                    if not shows_progress():
                        logger.info("%s: %s", row["dir"], row["state"])
            if is_over:
                return
