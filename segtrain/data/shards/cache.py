"""Copies of remote shards on disk, never more than so many bytes of them.

Any number of processes share a folder: a shard is fetched once, by whoever wants it first, and
takes its name when it is whole. The copies that were used longest ago make room for new ones. A
copy that goes while another process reads it is fetched again by that process.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import time
from pathlib import Path
from typing import Any

from segtrain.data.io.remote import fetch, shown
from segtrain.data.io.tar import Hashed
from segtrain.errors import ConfigError, DataError

_PART = ".part"
_WAIT = 0.05  # seconds between two looks for room
_UNIT = 10**9


class ShardCache:
    """Shards on disk by URL.

    Args:
        folder: Where they are; it belongs to this class alone.
        limit: The most bytes that it may hold, shards on their way included; None: no limit.
    """

    def __init__(self, folder: Path, limit: int | None) -> None:
        self.folder, self.limit = folder, limit

    def path(self, url: str, size: int | None = None, digest: str | None = None) -> Path:
        """The copy of a shard, fetched when it is not there.

        Args:
            url: The shard.
            size: Its bytes, where known.
            digest: Its SHA-256, where known.

        Raises:
            ConfigError: When it is larger than the cache.
            DataError: When it cannot be fetched, or is not what `size` and `digest` say.
        """
        target = self.folder / _name(url)
        if _touch(target):
            return target
        with self._lock(target):
            if not _touch(target):  # another process may just have fetched it
                self._fetch(url, target, size, digest)
        return target

    def _fetch(self, url: str, target: Path, size: int | None, digest: str | None) -> None:
        part = target.with_name(target.name + _PART)
        part.unlink(missing_ok=True)
        streams: list[Hashed] = []

        def start(coming: int | None) -> Hashed:
            _check_size(url, size, coming)
            while streams:
                streams.pop().stream.close()
            self._make_room(part, coming or size or 0)
            streams.append(Hashed(part.open("r+b")))
            return streams[0]

        try:
            fetch(url, start)
            stream = streams[0].stream
            stream.truncate()
            stream.close()
            _check_size(url, size, part.stat().st_size)
            found = streams[0].digest.hexdigest()
            if digest is not None and found != digest:
                raise DataError(
                    f"{shown(url)} is damaged: its SHA-256 is {found[:16]}..., not {digest[:16]}..."
                    " as its index says; upload shard and index again"
                )
            part.replace(target)
        finally:
            for opened in streams:
                opened.stream.close()
            part.unlink(missing_ok=True)

    def _make_room(self, part: Path, need: int) -> None:
        """Reserve `need` bytes under the name `part`."""
        if self.limit is not None and need > self.limit:
            raise ConfigError(
                f"dataset.cache_size_gb={self.limit / _UNIT:g} is less than one shard,"
                f" {need / _UNIT:g} GB; raise it"
            )
        while True:
            with self._lock(self.folder / "room"):
                if self.limit is None or self._shrink(self.limit - need, part):
                    with part.open("wb") as stream:
                        stream.truncate(need)  # so that others count it from now on
                    return
            time.sleep(_WAIT)  # what others are fetching can go once they have it

    def _shrink(self, limit: int, part: Path) -> bool:
        """Delete the copies used longest ago till the others take no more than `limit` bytes."""
        copies = []
        total = 0
        for file in self.folder.iterdir():
            with contextlib.suppress(OSError):
                status = file.stat()
                if file == part or file.suffix not in (".tar", _PART):
                    continue
                total += status.st_size
                if file.suffix == ".tar":
                    copies.append((status.st_mtime_ns, status.st_size, file))
                elif self._is_abandoned(file):
                    file.unlink(missing_ok=True)
                    total -= status.st_size
        for _, size, file in sorted(copies):
            if total <= limit:
                break
            file.unlink(missing_ok=True)
            total -= size
        return total <= limit

    def _is_abandoned(self, part: Path) -> bool:
        """Whether the process that was fetching it is gone."""
        with contextlib.suppress(_filelock().Timeout), self._lock(part.with_suffix(""), 0):
            return True
        return False

    def _lock(self, file: Path, timeout: float = -1) -> Any:
        folder = self.folder / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return _filelock().FileLock(folder / f"{file.name}.lock", timeout=timeout)


def _name(url: str) -> str:
    """A file name of its own for every URL, with which a person can still tell them apart."""
    stem = shown(url).rpartition("/")[2].partition("?")[0].removesuffix(".tar")
    plain = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in stem)
    return f"{plain[:80]}-{hashlib.sha256(url.encode()).hexdigest()[:16]}.tar"


def _touch(path: Path) -> bool:
    """Note that a copy is in use; False where there is none."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _check_size(url: str, wanted: int | None, found: int | None) -> None:
    if wanted is not None and found is not None and wanted != found:
        raise DataError(
            f"{shown(url)} has {found} bytes, not {wanted} as its index says; it is truncated or"
            " was replaced, so upload shard and index again"
        )


def _filelock() -> Any:
    return importlib.import_module("filelock")
