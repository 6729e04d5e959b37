"""The memory that is still available to this process."""

from __future__ import annotations

import os
from pathlib import Path

_PROC = Path("/proc/meminfo")
# Control groups, version 2 and version 1: the folder, the files of the limit and of the usage, and
# the entry of memory.stat for inactive files.
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
    """Return the bytes available without swapping, in the machine and in its container.

    Returns:
        The smaller of the two; None when neither is known.

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
    except (AttributeError, OSError, ValueError):  # as on macOS and Windows
        return None


def _of_group(group: tuple[Path, str, str, str]) -> int | None:
    folder, limit, usage, cached = group
    try:
        free = int(folder.joinpath(limit).read_text(encoding="ascii")) - int(
            folder.joinpath(usage).read_text(encoding="ascii")
        )
        for line in folder.joinpath("memory.stat").read_text(encoding="ascii").splitlines():
            key, _, value = line.partition(" ")
            if key == cached:  # cached files, which the kernel drops when memory is needed
                free += int(value)
    except (OSError, ValueError):  # the group does not exist, or its limit is "max"
        return None
    return free
