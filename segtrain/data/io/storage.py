"""Files wherever they are: on disk, or in a zip or tar archive that is read in place.

A path may lead into an archive: ``/data/set.zip/images/a.png`` is the member ``images/a.png`` of
``/data/set.zip``. Whoever gets a path reads it through here and need not know. A compressed tar
archive cannot be read in place.
"""

from __future__ import annotations

import io
import os
import re
import stat
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO

from segtrain.data.io.tar import TarArchive
from segtrain.errors import DataError

ARCHIVES = (".zip", ".tar")


def split_archive(path: Path) -> tuple[Path, str] | None:
    """The archive that `path` leads into and the name of the member; None for a file on disk."""
    for place in (path, *path.parents):
        if place.suffix.lower() in ARCHIVES and place.is_file():
            return place, path.relative_to(place).as_posix() if path != place else ""
    return None


def open_file(path: Path) -> IO[bytes]:
    """The bytes of a file, from its start.

    Raises:
        OSError: When there is no such file, or it cannot be read.
    """
    inside = split_archive(path)
    if inside is None:
        # A named pipe would wait for a writer that never comes.
        if path.exists() and not path.is_file():
            raise OSError(f"it is {kind_of(path)}, not a file")
        return path.open("rb")
    return io.BytesIO(read_bytes(path))


def read_bytes(path: Path) -> bytes:
    """The whole content of a file.

    Raises:
        OSError: When there is no such file, it cannot be read, or the archive is damaged there.
    """
    inside = split_archive(path)
    if inside is None:
        with open_file(path) as stream:
            return stream.read()
    archive, member = inside
    try:
        return _opened(archive).read(member)
    except KeyError:
        raise FileNotFoundError(f"{archive} holds no {member}") from None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise OSError(f"{archive} is damaged at {member}: {error}") from error


def stamp(path: Path) -> list[int]:
    """What changes when the file does: its size and its time of modification.

    Raises:
        OSError: When there is no such file.
    """
    inside = split_archive(path)
    if inside is None:
        status = path.stat()
        return [status.st_size, status.st_mtime_ns]
    archive, member = inside
    opened = _opened(archive)
    try:
        if isinstance(opened, TarArchive):
            place = opened.members[member]
            return [place.size, place.offset, archive.stat().st_mtime_ns]
        info = opened.getinfo(member)
    except KeyError:
        raise FileNotFoundError(f"{archive} holds no {member}") from None
    return [info.file_size, info.CRC]


def is_directory(path: Path) -> bool:
    """Whether files can be below `path`; an archive and a folder in it are such places."""
    inside = split_archive(path)
    if inside is None:
        return path.is_dir()
    archive, member = inside
    return not member or any(name.startswith(f"{member}/") for name in _members(_opened(archive)))


def list_names(place: Path) -> list[str]:
    """The names right below a directory or an archive, sorted; none where it is neither."""
    inside = split_archive(place)
    if inside is None:
        return sorted(path.name for path in place.iterdir()) if place.is_dir() else []
    archive, member = inside
    start = f"{member}/" if member else ""
    members = [name for name in _members(_opened(archive)) if name.startswith(start)]
    return sorted({name.removeprefix(start).split("/")[0] for name in members})


def is_file(path: Path) -> bool:
    """Whether `path` is a plain file, or a link to one."""
    inside = split_archive(path)
    if inside is None:
        return path.is_file()
    archive, member = inside
    return member in _members(_opened(archive))


def walk(place: Path) -> Iterator[Path]:
    """Every file below a directory, links followed; a directory is entered once, so loops end.

    What is neither a file nor a directory, such as a link to nowhere, is given too:
    :func:`kind_of` says what it is.
    """
    inside = split_archive(place)
    if inside is not None:
        archive, member = inside
        start = f"{member}/" if member else ""
        yield from (archive / name for name in _members(_opened(archive)) if name.startswith(start))
        return
    seen: set[str] = set()
    for folder, folders, names in os.walk(place, followlinks=True):
        seen.add(os.path.realpath(folder))
        folders[:] = sorted(
            name for name in folders if os.path.realpath(Path(folder, name)) not in seen
        )
        yield from (Path(folder, name) for name in names)


def find(pattern: Path, base: Path) -> Iterator[Path]:
    """The files that a glob matches; ``**`` stands for any number of directories.

    Args:
        pattern: The glob, its first parts plain.
        base: The longest directory or archive before the first wildcard.
    """
    wanted = re.compile(glob_expression(pattern.relative_to(base).as_posix()))
    for path in walk(base):
        if wanted.fullmatch(path.relative_to(base).as_posix()):
            yield path


def glob_expression(pattern: str) -> str:
    """A glob as a regular expression.

    Example:
        >>> bool(re.fullmatch(glob_expression("**/*_[ab].png"), "x/y/1_a.png"))
        True
        >>> bool(re.fullmatch(glob_expression("*/1.png"), "x/y/1.png"))
        False
    """
    found = ""
    parts = re.split(r"(\*\*/|\*|\?|\[!?[^\]]+\])", pattern)
    for part in parts:
        if part == "**/":
            found += "(?:.*/)?"
        elif part == "*":
            found += "[^/]*"
        elif part == "?":
            found += "[^/]"
        elif part.startswith("[") and len(part) > 2:
            found += f"[{'^' if part[1] == '!' else ''}{part[1:-1].removeprefix('!')}]"
        else:
            found += re.escape(part)
    return found


def kind_of(path: Path) -> str:
    """What a path that is no plain file is, in words."""
    if path.is_symlink() and not path.exists():
        return f"a link to {path.readlink()}, which does not exist"
    try:
        mode = path.stat().st_mode
    except OSError:
        return "nothing that can be read"
    if stat.S_ISDIR(mode):
        return "a directory"
    return "a named pipe" if stat.S_ISFIFO(mode) else "a device or socket"


def _opened(path: Path) -> zipfile.ZipFile | TarArchive:
    status = path.stat()
    return _archive(path, os.getpid(), (status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=8)
def _archive(path: Path, process: int, state: tuple[int, int]) -> zipfile.ZipFile | TarArchive:
    """An open archive; each process has its own, as they would share one position in the file.

    Raises:
        DataError: When it is none.
    """
    del process, state
    if path.suffix.lower() == ".tar":
        return TarArchive(path)
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path} is no zip archive that can be read: {error}") from error


@lru_cache(maxsize=8)
def _members(archive: zipfile.ZipFile | TarArchive) -> frozenset[str]:
    names = archive.namelist()
    return frozenset(name for name in names if not name.endswith("/"))
