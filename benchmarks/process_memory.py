"""How much memory this process takes, where the system tells."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
from pathlib import Path


def reset_peak() -> float | None:
    """Memory in use, from which the peak is counted from now on."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return memory_mib("VmRSS")


def memory_mib(field: str) -> float | None:
    """A field of this process's status, where there is one."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    found = re.search(rf"^{field}:\s*(\d+) kB", status, re.MULTILINE)
    return int(found[1]) / 1024 if found else None
