"""Small text files from anywhere: read within bounds, so that none hangs or fills the memory."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import yaml

LARGEST_TEXT = 64 * 2**20
"""Bytes of the largest file of settings that is read."""
LARGEST_TREE = 1_000_000
"""The largest number of values in a YAML file, counting each use of an alias."""


def read_small_text(path: Path, limit: int = LARGEST_TEXT) -> str:
    """Read a UTF-8 file of settings.

    Raises:
        OSError: When it is not a regular file, cannot be read, or is too large.
        UnicodeDecodeError: When it is not UTF-8.

    Example:
        >>> read_small_text(Path("/dev/zero"))
        Traceback (most recent call last):
        OSError: it is not a regular file
    """
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would wait, and a device has no end
        raise OSError("it is not a regular file")
    with path.open("rb") as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise OSError(f"it has more than {limit // 2**20} MiB, which no file of settings has")
    return content.decode("utf-8")


def parse_yaml(text: str | bytes) -> Any:
    """Parse YAML; aliases that would repeat too much are an error.

    Raises:
        yaml.YAMLError: When it is not valid YAML.
        ValueError: When aliases repeat too much, or contain themselves.

    Example:
        >>> parse_yaml("{a: &x [1, 2], b: *x}")
        {'a': [1, 2], 'b': [1, 2]}
        >>> parse_yaml("&x [*x]")
        Traceback (most recent call last):
        ValueError: an alias contains itself
    """
    found = yaml.safe_load(text)
    if _size(found, {}) > LARGEST_TREE:
        raise ValueError(f"its aliases repeat more than {LARGEST_TREE:,} values")
    return found


def _size(value: Any, known: dict[int, int]) -> int:
    """The number of values in a tree; `known` has those of parts, and 0 for unfinished ones."""
    if not isinstance(value, (dict, list)):
        return 1
    if id(value) in known:
        if known[id(value)] == 0:
            raise ValueError("an alias contains itself")
        return known[id(value)]
    known[id(value)] = 0
    parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
    known[id(value)] = size = 1 + sum(_size(part, known) for part in parts)
    return size
