"""The worker processes of a loader: which signals they obey, and how they end."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib
import multiprocessing
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from segtrain.errors import ResourceError

# They reach the whole process group, and only the main process decides when to stop.
_OF_MAIN = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
    if hasattr(signal, name)
]
_PR_SET_PDEATHSIG = 1


def start_worker(worker_id: int) -> None:
    """Prepare a worker process: one thread, and no signals but that of the death of its parent."""
    del worker_id
    torch.set_num_threads(1)
    limit_opencv_threads()
    for number in _OF_MAIN:
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Hold back signals while workers start, since a worker has handlers of its own only later."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    _kill_workers_at_exit()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_MAIN)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def kill_workers() -> None:
    """End the worker processes of this process at once."""
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


@cache
def _kill_workers_at_exit() -> None:
    """Python would wait for a worker that ignores SIGTERM."""
    atexit.register(kill_workers)


def limit_opencv_threads() -> None:
    """Limit OpenCV to one thread, for worker processes, which already share the cores."""
    importlib.import_module("cv2").setNumThreads(0)


def end_workers(batches: object) -> None:
    """End the workers of the iterator of a loader, also those that are stuck.

    PyTorch waits five seconds for each one, and then sends a signal that workers ignore.
    """
    _forget(batches)
    workers = _workers(batches)
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join(1)


def end_kept_workers(loader: Any) -> None:
    """End the workers that a loader with `persistent_workers` keeps for its next iteration.

    Otherwise they end when Python finds the loader unused, which an error delays, and PyTorch then
    waits five seconds for each.
    """
    batches = getattr(loader, "_iterator", None)
    if batches is not None:
        end_workers(batches)
        loader._iterator = None


def _workers(batches: object) -> list[Any]:
    return list(getattr(batches, "_workers", ()))


def _forget(batches: object) -> None:
    """Let PyTorch not raise an error, at any place in the program, when one of these ends."""
    with contextlib.suppress(AttributeError, ValueError):
        torch._C._remove_worker_pids(id(batches))
        batches._worker_pids_set = False  # type: ignore[attr-defined]


def worker_error(batches: object, error: BaseException) -> ResourceError | None:
    """The error for a worker that died; None if none did.

    PyTorch reports it in several ways: a RuntimeError, a connection that was reset, ....
    """
    _forget(batches)
    for worker in _workers(batches):
        worker.join(timeout=1 if isinstance(error, OSError) else 0.1)
        code = worker.exitcode
        if code:
            name = signal.Signals(-code).name if code < 0 else ""
            return _died(f"was killed by {name}" if name else f"ended with exit code {code}")
    return killed_worker(error)


_KILLED = re.compile(r"DataLoader worker \(pid.*?\) (?:is killed by signal: (\w+)|exited)")


def killed_worker(error: BaseException) -> ResourceError | None:
    """The error for a worker that PyTorch reports as dead, at any place in the program."""
    match = _KILLED.search(str(error)) if isinstance(error, RuntimeError) else None
    if match is None:
        return None
    name = {"Killed": "SIGKILL", "Terminated": "SIGTERM"}.get(match[1], match[1])
    return _died(f"was killed by {name}" if name else "ended unexpectedly")


def _died(how: str) -> ResourceError:
    return ResourceError(
        f"a data worker {how}, most often because the memory is full; lower loader.num_workers or"
        " loader.prefetch_factor, or use loader.num_workers=0"
    )
