"""A cache of the facts that scans found, so that a file is not decoded at every start."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segtrain.data.io.storage import open_file, stamp
from segtrain.files import cache_dir, write_text

_VERSION = 2  # goes up when the meaning of an entry changes
_BLOCK = 1 << 20


class ScanCache:
    """Facts about files, valid while a file keeps its size and its time of modification.

    A cache file that cannot be read counts as empty, and an error when writing it is ignored: a
    scan must never fail because of its cache.

    Args:
        files: The files of the dataset. Their common folder determines the cache file.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        folder = os.path.commonpath([file.parent.absolute() for file in files])
        name = hashlib.sha256(folder.encode(errors="surrogateescape")).hexdigest()[:16]
        self.path = cache_dir() / f"scan-{name}.json"
        self._entries = self._load()
        self._changed = False

    def _load(self) -> dict[str, Any]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            return dict(content["entries"]) if content["version"] == _VERSION else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def get(self, kind: str, *files: Path) -> Any:
        """Return the fact of `kind` about `files`; None: unknown, or a file has changed."""
        entry = self._entries.get(_key(kind, files))
        try:
            return entry[1] if entry and entry[0] == _stamps(files) else None
        except (OSError, TypeError, LookupError):
            return None

    def put(self, fact: Any, kind: str, *files: Path) -> None:
        """Store a fact of `kind`, plain JSON, about `files` as they are now."""
        self._entries[_key(kind, files)] = [_stamps(files), fact]
        self._changed = True

    def sha256(self, file: Path) -> str:
        """Return the SHA-256 of the bytes of a file, in hexadecimal; it is computed once.

        Raises:
            OSError: When the file cannot be read.
        """
        known = self.get("sha256", file)
        if isinstance(known, str):
            return known
        digest = hashlib.sha256()
        with open_file(file) as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
        self.put(digest.hexdigest(), "sha256", file)
        return digest.hexdigest()

    def save(self) -> None:
        """Write the cache if it has changed; readers see the old file or the new one."""
        if not self._changed:
            return
        content = json.dumps({"version": _VERSION, "entries": self._entries})
        with contextlib.suppress(OSError):
            write_text(self.path, content)


def _key(kind: str, files: Sequence[Path]) -> str:
    return "|".join([kind, *(str(file.absolute()) for file in files)])


def _stamps(files: Sequence[Path]) -> list[list[int]]:
    return [stamp(file) for file in files]
