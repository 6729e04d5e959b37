"""Memory of this process, on systems that report it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
from pathlib import Path


def reset_peak() -> float | None:
    """Reset the peak; return the memory in use in MiB, or None if the system does not report it."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # the C library is not glibc
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return memory_mib("VmRSS")


def memory_mib(field: str) -> float | None:
    """Return a field of ``/proc/self/status`` in MiB, or None if it does not exist."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    found = re.search(rf"^{field}:\s*(\d+) kB", status, re.MULTILINE)
    return int(found[1]) / 1024 if found else None
