"""A sample that cannot be read stops all processes at the same point."""

from __future__ import annotations

from segtrain.engine.distributed import Processes
from segtrain.errors import DataError


def shared_failure(processes: Processes, failure: DataError | None) -> DataError | None:
    """Return the error of this process, or of the first that has one; None: none has.

    Every process calls this at the same point. The others would otherwise wait for the one that
    failed, and could not save a checkpoint.
    """
    if not processes.any(failure is not None):
        return None
    texts = processes.gather(None if failure is None else str(failure))
    rank = next(rank for rank, text in enumerate(texts) if text is not None)
    return failure or DataError(f"process {rank} stopped: {texts[rank]}")
