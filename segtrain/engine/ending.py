"""The end of a program that cannot wait for its cleaning up."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NoReturn

from segtrain.data.loading.workers import kill_workers
from segtrain.engine.run_directory import Run
from segtrain.terminal import console


def end_now(code: int, message: str) -> NoReturn:
    """End the program and its data workers at once, from any thread."""
    with contextlib.suppress(Exception):
        kill_workers()
        console.show_cursor()
        sys.stderr.write(f"error: {message}\n")
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def give_up(run: Run | None, code: int, message: str) -> NoReturn:
    """End a run that makes no progress, and record it."""
    if run is not None:
        run.abort(code, message, "failed")
    end_now(code, message)


def abort(run: Run | None, number: int, message: str) -> NoReturn:
    """End a run at once because of a signal, and record it."""
    if run is not None:
        run.abort(128 + number, message)
    end_now(128 + number, message)
