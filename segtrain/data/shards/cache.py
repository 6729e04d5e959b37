"""Copies of remote shards on disk, within a size limit.

Any number of processes may share a folder: the first process that needs a shard fetches it, and the
copy gets its final name when it is complete. The least recently used copies are deleted to make
room. If a copy is deleted while another process reads it, that process fetches it again. Processes
that wait for a shard while another fetches it in vain report its error, without attempts of their
own.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segtrain.data.io.remote import fetch, shown
from segtrain.data.io.tar import Hashed
from segtrain.errors import ConfigError, DataError, ResourceError

_PART = ".part"
_WAIT = 0.05  # seconds between two attempts to make room
_UNIT = 10**9


class ShardCache:
    """Local copies of shards by URL.

    Args:
        folder: Folder of the copies; nothing else may be stored in it.
        limit: Maximum number of bytes in it, including shards that are being fetched; None for no
            limit.
    """

    def __init__(self, folder: Path, limit: int | None) -> None:
        self.folder, self.limit = folder, limit

    def path(self, url: str, size: int | None = None, digest: str | None = None) -> Path:
        """Return the path of the copy of a shard, which is fetched if necessary.

        Args:
            url: URL of the shard.
            size: Its number of bytes, if known.
            digest: Its SHA-256, if known.

        Raises:
            ConfigError: When the shard is larger than the cache.
            DataError: When it cannot be fetched, or differs from `size` or `digest`.
            ResourceError: When the copy cannot be written.
        """
        target = self.folder / _name(url)
        if _touch(target):
            return target
        failure = self.folder / "locks" / f"{target.name}.failed"
        asked = time.time_ns()
        try:
            with self._lock(target):
                if not _touch(target):  # another process may just have fetched it
                    _raise_newer(failure, asked)
                    with _recorded(failure):
                        self._fetch(url, target, size, digest)
        except OSError as error:
            raise ResourceError(
                f"the copy of {shown(url)} cannot be written to {self.folder}"
                f" ({error.strerror or error}); set dataset.cache_dir to a folder with room for"
                f" dataset.cache_size_gb"
            ) from error
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
                    f"{shown(url)} is damaged: its SHA-256 is {found[:16]}..., but its index has"
                    f" {digest[:16]}...; upload shard and index again"
                )
            part.replace(target)
        finally:
            for opened in streams:
                opened.stream.close()
            part.unlink(missing_ok=True)

    def _make_room(self, part: Path, need: int) -> None:
        """Reserve `need` bytes in the file `part`."""
        if self.limit is not None and need > self.limit:
            raise ConfigError(
                f"dataset.cache_size_gb={self.limit / _UNIT:g} is less than one shard,"
                f" {need / _UNIT:g} GB; raise it"
            )
        while True:
            with self._lock(self.folder / "room"):
                if self.limit is None or self._shrink(self.limit - need, part):
                    with part.open("wb") as stream:
                        stream.truncate(need)  # other processes now count these bytes
                    return
            time.sleep(_WAIT)  # a shard that is being fetched can be deleted once it is complete

    def _shrink(self, limit: int, part: Path) -> bool:
        """Delete the least recently used copies until the rest takes at most `limit` bytes.

        Returns:
            Whether the rest does.
        """
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
        """Whether the process that was fetching into `part` has ended."""
        with contextlib.suppress(_filelock().Timeout), self._lock(part.with_suffix(""), 0):
            return True
        return False

    def _lock(self, file: Path, timeout: float = -1) -> Any:
        folder = self.folder / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return _filelock().FileLock(folder / f"{file.name}.lock", timeout=timeout)


def _name(url: str) -> str:
    """Return a unique file name for a URL that starts with the name of its shard."""
    stem = shown(url).rpartition("/")[2].partition("?")[0].removesuffix(".tar")
    plain = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in stem)
    return f"{plain[:80]}-{hashlib.sha256(url.encode()).hexdigest()[:16]}.tar"


def _touch(path: Path) -> bool:
    """Mark a copy as used just now; False if it does not exist."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def _recorded(failure: Path) -> Iterator[None]:
    """Write the message of a data error to a file, for :func:`_raise_newer`."""
    try:
        yield
    except DataError as error:
        with contextlib.suppress(OSError):
            failure.write_text(str(error), encoding="utf-8")
        raise


def _raise_newer(failure: Path, asked: int) -> None:
    """Raise the error of another process, if it failed to fetch a shard after the time `asked`."""
    with contextlib.suppress(OSError):
        if failure.stat().st_mtime_ns >= asked:
            raise DataError(failure.read_text(encoding="utf-8"))


def _check_size(url: str, wanted: int | None, found: int | None) -> None:
    if wanted is not None and found is not None and wanted != found:
        raise DataError(
            f"{shown(url)} has {found} bytes, but its index has {wanted}; it is truncated or was"
            " replaced, so upload shard and index again"
        )


def _filelock() -> Any:
    return importlib.import_module("filelock")
