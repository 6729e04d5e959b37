"""Read files on disk and files in a zip or tar archive through the same functions.

A path may lead into an archive: ``/data/set.zip/images/a.png`` is the member ``images/a.png`` of
``/data/set.zip``. The archive is not unpacked, so a tar archive must not be compressed. A NIfTI
volume is an archive of its slices: ``/data/case_01.nii.gz/012.npy``.
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

from segtrain.data.io.nifti import VOLUME_ENDINGS, Volume
from segtrain.data.io.tar import TarArchive, check_member
from segtrain.errors import DataError

ARCHIVES = (".zip", ".tar")
_MAY_BE_VOLUME = re.compile("|".join(map(re.escape, VOLUME_ENDINGS)), re.IGNORECASE).search
_MAY_BE_ARCHIVE = re.compile("|".join(map(re.escape, ARCHIVES)), re.IGNORECASE).search
LARGEST_MEMBER = 2**30
"""Bytes of the largest file that is read from an archive at once."""


def split_archive(path: Path) -> tuple[Path, str] | None:
    """Split a path into an archive and the name of a member; None for a file on disk."""
    if not _MAY_BE_ARCHIVE(str(path)):  # datasets ask this for every file
        return None
    for archive in (path, *path.parents):
        if archive.suffix.lower() in ARCHIVES and archive.is_file():
            return archive, path.relative_to(archive).as_posix() if path != archive else ""
    return None


def is_volume(path: Path) -> bool:
    """Whether `path` is the file of a volume; not one in a zip or tar archive."""
    return path.name.lower().endswith(VOLUME_ENDINGS) and path.is_file()


def volume_of(path: Path) -> Path | None:
    """Return the volume that `path` is a slice of; None: it is not a slice.

    Example:
        >>> volume_of(Path("scan.nii.gz/012.npy")) is None  # there is no such volume
        True
    """
    is_possible = _MAY_BE_VOLUME(str(path))  # datasets ask this for every file
    return path.parent if is_possible and is_volume(path.parent) else None


def list_slices(volume: Path) -> list[Path]:
    """Return the path of each slice of a volume; only its header is read.

    Raises:
        OSError: When the file is missing or damaged.
        DataError: When it does not hold a volume that is supported.
        NeedsPackageError: When nibabel is not installed.
    """
    return [volume / name for name in _volume(volume).namelist()]


def open_header(path: Path) -> IO[bytes]:
    """Open a file to read its header; a slice of a volume has only its header there.

    Raises:
        OSError: As :func:`open_file`.
    """
    volume = volume_of(path)
    if volume is None:
        return open_file(path)
    try:
        return io.BytesIO(_volume(volume).header(path.name))
    except KeyError:
        raise FileNotFoundError(f"{volume} holds no {path.name}") from None


def open_file(path: Path) -> IO[bytes]:
    """Open a file for reading.

    Raises:
        OSError: When it does not exist or cannot be read.
    """
    inside = _split(path)
    if inside is None:
        # Opening a named pipe would wait for a writer.
        if path.exists() and not path.is_file():
            raise OSError(f"it is {kind_of(path)}, not a file")
        return path.open("rb")
    return io.BytesIO(read_bytes(path))


def read_bytes(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        OSError: When it does not exist, cannot be read, or is damaged in its archive.
    """
    inside = _split(path)
    if inside is None:
        with open_file(path) as stream:
            return stream.read()
    archive, member = inside
    try:
        opened = _opened(archive)
        _check_size(opened, archive, member)
        return opened.read(member)
    except KeyError:
        raise FileNotFoundError(f"{archive} holds no {member}") from None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise OSError(f"{archive} is damaged at {member}: {error}") from error


def _check_size(opened: zipfile.ZipFile | TarArchive | Volume, archive: Path, member: str) -> None:
    """Refuse a member that would fill the memory, by its header, which bounds what is unpacked.

    Raises:
        OSError: When it is too large.
    """
    if isinstance(opened, Volume):
        return
    if isinstance(opened, TarArchive):
        size = opened.members[member].size
    else:
        size = opened.getinfo(member).file_size
    if size > LARGEST_MEMBER:
        raise OSError(
            f"{archive}: its member {member} has {size / 1e9:.1f} GB, more than the"
            f" {LARGEST_MEMBER / 1e9:.1f} GB that are read from an archive at once; unpack it"
        )


def stamp(path: Path) -> list[int]:
    """Return numbers that change when the file does, such as its size and modification time.

    Raises:
        OSError: When it does not exist.
    """
    inside = _split(path)
    if inside is None:
        status = path.stat()
        return [status.st_size, status.st_mtime_ns]
    archive, member = inside
    opened = _opened(archive)
    try:
        if isinstance(opened, Volume):
            status = archive.stat()
            return [opened.slice_bytes(member), status.st_size, status.st_mtime_ns]
        if isinstance(opened, TarArchive):
            entry = opened.members[member]
            return [entry.size, entry.offset, archive.stat().st_mtime_ns]
        info = opened.getinfo(member)
    except KeyError:
        raise FileNotFoundError(f"{archive} holds no {member}") from None
    return [info.file_size, info.CRC]


def is_directory(path: Path) -> bool:
    """Whether `path` is a directory, an archive, or a folder in an archive."""
    inside = split_archive(path)
    if inside is None:
        return path.is_dir()
    archive, member = inside
    return not member or any(name.startswith(f"{member}/") for name in _members(_opened(archive)))


def list_names(directory: Path) -> list[str]:
    """Return the sorted names of the entries of a directory; empty if it is not a directory."""
    inside = split_archive(directory)
    if inside is None:
        return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []
    archive, member = inside
    start = f"{member}/" if member else ""
    members = [name for name in _members(_opened(archive)) if name.startswith(start)]
    return sorted({name.removeprefix(start).split("/")[0] for name in members})


def is_file(path: Path) -> bool:
    """Whether `path` is a regular file, or a link to one."""
    inside = _split(path)
    if inside is None:
        return path.is_file()
    archive, member = inside
    return member in _members(_opened(archive))


def walk(directory: Path) -> Iterator[Path]:
    """Yield the path of every file below a directory.

    Links are followed. Each directory is entered once, so a loop of links ends. Entries that are
    neither a file nor a directory, such as a broken link, are included; see :func:`kind_of`.
    """
    inside = split_archive(directory)
    if inside is not None:
        archive, member = inside
        start = f"{member}/" if member else ""
        yield from (archive / name for name in _members(_opened(archive)) if name.startswith(start))
        return
    seen: set[str] = set()
    for folder, folders, names in os.walk(directory, followlinks=True):
        seen.add(os.path.realpath(folder))
        folders[:] = sorted(
            name for name in folders if os.path.realpath(Path(folder, name)) not in seen
        )
        yield from (Path(folder, name) for name in names)


def find(pattern: Path, base: Path) -> Iterator[Path]:
    """Yield the files that a glob matches; ``**`` matches any number of directories.

    Args:
        pattern: The glob, a path that starts with `base`.
        base: The longest directory or archive before the first wildcard.
    """
    wanted = re.compile(glob_expression(pattern.relative_to(base).as_posix()))
    for path in walk(base):
        if wanted.fullmatch(path.relative_to(base).as_posix()):
            yield path


def glob_expression(pattern: str) -> str:
    """Translate a glob to a regular expression.

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
    """Describe a path that is not a regular file, in words."""
    if path.is_symlink() and not path.exists():
        return f"a link to {path.readlink()}, which does not exist"
    try:
        mode = path.stat().st_mode
    except OSError:
        return "nothing that can be read"
    if stat.S_ISDIR(mode):
        return "a directory"
    return "a named pipe" if stat.S_ISFIFO(mode) else "a device or socket"


def _split(path: Path) -> tuple[Path, str] | None:
    """Split a path into an archive or a volume, and the name of a member."""
    volume = volume_of(path)
    return split_archive(path) if volume is None else (volume, path.name)


def _opened(path: Path) -> zipfile.ZipFile | TarArchive | Volume:
    if is_volume(path):
        return _volume(path)
    status = path.stat()
    return _archive(path, os.getpid(), (status.st_size, status.st_mtime_ns))


def _volume(path: Path) -> Volume:
    status = path.stat()
    return _known_volume(path, (status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=1024)  # an entry holds a header only, and an epoch visits volumes in any order
def _known_volume(path: Path, state: tuple[int, int]) -> Volume:
    del state
    return Volume(path)


@lru_cache(maxsize=8)
def _archive(path: Path, process: int, state: tuple[int, int]) -> zipfile.ZipFile | TarArchive:
    """Open an archive, once per process, as processes would share the position in the file.

    Raises:
        DataError: When it is not an archive, or a damaged one.
    """
    del process, state
    if path.suffix.lower() == ".tar":
        return TarArchive(path)
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path} cannot be read as a zip archive: {error}") from error


@lru_cache(maxsize=8)
def _members(archive: zipfile.ZipFile | TarArchive | Volume) -> frozenset[str]:
    names = archive.namelist()
    if isinstance(archive, zipfile.ZipFile):
        for info in archive.infolist():
            check_member(str(archive.filename), info.filename, _is_link(info))
    return frozenset(name for name in names if not name.endswith("/"))


def _is_link(info: zipfile.ZipInfo) -> bool:
    return stat.S_ISLNK(info.external_attr >> 16)
