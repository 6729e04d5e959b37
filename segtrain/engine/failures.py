"""The error of one process, named in all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from segtrain.data.loading.workers import killed_worker
from segtrain.engine.distributed import Processes
from segtrain.errors import (
    OtherProcessError,
    ResourceError,
    SegtrainError,
    describe_error,
    exit_code_of,
)

_KEY = "segtrain/failure"
_PATIENCE = timedelta(seconds=10)
_OF_DISTRIBUTED = ("gloo", "nccl", "closed by peer", "connection reset", "timed out waiting")


@contextmanager
def shared_errors(processes: Processes) -> Iterator[None]:
    """Tell the other processes why this one fails, and say why another one did.

    Otherwise they would only report that a connection was closed.

    Raises:
        OtherProcessError: When another process failed, with its error and its exit code.
        ResourceError: When another process ended without a word, or a data worker was killed.
    """
    try:
        yield
    except Exception as error:
        dead = killed_worker(error)
        if dead is not None:
            _tell(processes.rank, dead)
            raise dead from error
        if processes.world_size == 1:
            raise
        if isinstance(error, SegtrainError) or not _is_of_distributed(error):
            _tell(processes.rank, error)
            raise
        raise _cause() from error


def _is_of_distributed(error: Exception) -> bool:
    text = str(error).lower()
    is_own_type = isinstance(error, (dist.DistError, ConnectionError))
    return is_own_type or (
        isinstance(error, RuntimeError) and any(words in text for words in _OF_DISTRIBUTED)
    )


def _store() -> Any:
    return dist.distributed_c10d._get_default_store()


def _tell(rank: int, error: Exception) -> None:
    text = str(error) if isinstance(error, SegtrainError) else describe_error(error)
    content = {"rank": rank, "code": exit_code_of(error), "text": text}
    try:
        if not _store().check([_KEY]):
            _store().set(_KEY, json.dumps(content))
    except Exception:  # noqa: BLE001  the store may be gone, and must not hide the error
        return


def _cause() -> SegtrainError:
    try:
        _store().wait([_KEY], _PATIENCE)
        found = json.loads(_store().get(_KEY))
    except Exception:  # noqa: BLE001  no process said why, or the store is gone
        return ResourceError(
            "the connection to another process was lost: it ended or was killed, most often because"
            " the memory ran out; look at its messages, and resume with resume=auto"
        )
    return OtherProcessError(f"process {found['rank']} failed: {found['text']}", found["code"])
