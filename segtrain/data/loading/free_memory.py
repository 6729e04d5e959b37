"""How much memory a program may still take."""

from __future__ import annotations

import os
from pathlib import Path

_PROC = Path("/proc/meminfo")
# Of version 2 and of version 1 of control groups: the limit, what is taken, and the details.
_GROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    (
        Path("/sys/fs/cgroup/memory"),
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


def free_memory() -> int | None:
    """Bytes that can be taken without swapping, by the machine and by its container; None: unknown.

    Example:
        >>> free_memory() != 0
        True
    """
    known = [found for found in (_of_machine(), *map(_of_group, _GROUPS)) if found is not None]
    return max(min(known), 0) if known else None


def _of_machine() -> int | None:
    try:
        for line in _PROC.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not on macOS, nor on Windows
        return None


def _of_group(group: tuple[Path, str, str, str]) -> int | None:
    folder, limit, taken, cached = group
    try:
        free = int(folder.joinpath(limit).read_text(encoding="ascii")) - int(
            folder.joinpath(taken).read_text(encoding="ascii")
        )
        for line in folder.joinpath("memory.stat").read_text(encoding="ascii").splitlines():
            key, _, value = line.partition(" ")
            if key == cached:  # file contents that are given up when memory is asked for
                free += int(value)
    except (OSError, ValueError):  # no such group, or its limit is the word max
        return None
    return free
