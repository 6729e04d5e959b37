"""Writing files atomically, and the folders of configs and caches."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def atomic_write(path: Path, *, previous: Path | None = None) -> Iterator[IO[bytes]]:
    """Open a stream whose content replaces the file `path` when the block ends.

    The content is written to a temporary file in the same directory, synced to disk, and renamed.
    When the block raises, `path` is unchanged and the temporary file is removed.

    Args:
        path: The file.
        previous: A name in the same directory for the file that is replaced; None: it is deleted.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with atomic_write(folder / "notes.txt") as stream:
        ...     _ = stream.write(b"all of it")
        >>> [file.name for file in folder.iterdir()]
        ['notes.txt']
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if previous is not None and path.exists():
            keep(path, previous)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def keep(path: Path, name: Path, *, copies: bool = False) -> None:
    """Give a file a second name in its directory, so that one of the two is there at any time.

    Args:
        path: The file.
        name: The second name, which replaces another file of this name.
        copies: On a file system without hard links, copy the file; otherwise it is renamed.
    """
    link = temporary_name(name)
    try:
        link.hardlink_to(path)
        link.replace(name)
    except OSError:
        link.unlink(missing_ok=True)
        if copies:
            shutil.copyfile(path, link)
            link.replace(name)
        else:
            path.replace(name)


def temporary_name(path: Path) -> Path:
    """A new hidden name beside `path`, for content that is to replace it."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


_TEMPORARY = re.compile(r"\..+\.(\d+)-[0-9a-f]{8}\.tmp")


def remove_stale(folder: Path) -> list[Path]:
    """Remove the temporary files that killed processes left in a folder; return their names.

    Only names of :func:`temporary_name` whose process no longer runs are removed. The caller holds
    the lock of the folder, so that no process of another machine writes there.
    """
    removed = []
    for path in sorted(folder.glob(".*.tmp")):
        match = _TEMPORARY.fullmatch(path.name)
        if match is None or path.is_symlink() or not path.is_file() or _runs(int(match[1])):
            continue
        with contextlib.suppress(OSError):
            path.unlink()
            removed.append(path)
    return removed


def _runs(pid: int) -> bool:
    if pid == os.getpid():
        return False  # an earlier process had the same number
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def config_dir() -> Path:
    """The folder of the configs: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parent
    beside = package.parent / "configs"
    return beside if (beside / "train.yaml").is_file() else package / "configs"


def is_whole_zip(path: Path) -> bool:
    """Whether `path` is a zip archive in which every entry matches its checksum.

    PyTorch's files are zip archives, but PyTorch does not verify the checksums, so a flipped bit
    would be loaded as a weight. An archive written without checksums, as PyTorch does after
    ``torch.serialization.set_crc32_options(False)``, cannot be verified and counts as whole.

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
            has_checksums = any(entry.CRC for entry in archive.infolist())
            return not has_checksums or archive.testzip() is None
    except Exception:  # noqa: BLE001  a damaged archive fails in many ways
        return False


def _sync_directory(directory: Path) -> None:
    """Sync the new name to disk too, on systems that can open a directory."""
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file through :func:`atomic_write`; what is not valid Unicode is escaped."""
    with atomic_write(path) as stream:
        stream.write(text.encode("utf-8", errors="backslashreplace"))


def cache_dir() -> Path:
    """``$SEGTRAIN_CACHE``, else ``$XDG_CACHE_HOME/segtrain``, else ``~/.cache/segtrain``."""
    own, shared = os.environ.get("SEGTRAIN_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own).expanduser()
    return (Path(shared).expanduser() if shared else Path.home() / ".cache") / "segtrain"
