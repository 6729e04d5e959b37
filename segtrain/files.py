"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A stream whose bytes become `path` when the block ends; till then the old file stands.

    The bytes go to a temporary file in the same directory, are forced to the disk, and then take
    the name. When the block raises, `path` stays as it was and the temporary file goes.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with atomic_write(folder / "notes.txt") as stream:
        ...     _ = stream.write(b"all of it")
        >>> [file.name for file in folder.iterdir()]
        ['notes.txt']
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def config_dir() -> Path:
    """Where the configs are: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parent
    beside = package.parent / "configs"
    return beside if (beside / "train.yaml").is_file() else package / "configs"


def is_whole_zip(path: Path) -> bool:
    """Whether `path` is a zip archive whose entries all have the checksums they were written with.

    PyTorch's files are such archives, and PyTorch itself looks at no checksum: a flipped bit would
    be a weight like any other.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "notes.zip"
        >>> with zipfile.ZipFile(path, "w") as archive:
        ...     archive.writestr("notes.txt", "all of it")
        >>> is_whole_zip(path)
        True
        >>> _ = path.write_bytes(path.read_bytes().replace(b"all", b"ill"))
        >>> is_whole_zip(path)
        False
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # noqa: BLE001  a damaged archive fails in many ways
        return False


def _sync_directory(directory: Path) -> None:
    """Force the new name to the disk as well, where the system lets a directory be opened."""
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file through :func:`atomic_write`."""
    with atomic_write(path) as stream:
        stream.write(text.encode("utf-8"))


def cache_dir() -> Path:
    """``$SEGTRAIN_CACHE``, else ``$XDG_CACHE_HOME/segtrain``, else ``~/.cache/segtrain``."""
    own, shared = os.environ.get("SEGTRAIN_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own).expanduser()
    return (Path(shared).expanduser() if shared else Path.home() / ".cache") / "segtrain"
