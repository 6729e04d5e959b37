"""Ctrl-C while a command of segtrain imports torch: one line instead of a traceback.

It is imported before anything else, and does nothing in a program that only uses the library.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

_TOOLS = Path(__file__).resolve().parent.parent / "tools"


def is_command() -> bool:
    """Whether this program is ``segtrain``, ``python -m segtrain`` or a script of ``tools``."""
    program = sys.argv[0] if sys.argv else ""
    if program == "-m":
        return "segtrain" in sys.orig_argv
    path = Path(program)
    return path.stem == "segtrain" or path.resolve().parent == _TOOLS


def _end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    sys.stderr.write("error: interrupted\n")
    sys.stderr.flush()
    os._exit(128 + number)


def end_quietly_on_ctrl_c() -> None:
    """End a command on Ctrl-C, until :func:`let_it_raise`."""
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def let_it_raise() -> None:
    """Let Ctrl-C raise ``KeyboardInterrupt`` again."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


end_quietly_on_ctrl_c()
