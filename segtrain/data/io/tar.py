"""Read members of uncompressed tar archives without unpacking them."""

from __future__ import annotations

import hashlib
import posixpath
import tarfile
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from segtrain.errors import DataError

_BLOCK = 512
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}


class Member(NamedTuple):
    """Position of the bytes of a file in its archive."""

    offset: int
    size: int


def read_members(path: Path) -> dict[str, Member]:
    """List the regular files in an archive, in its order; only headers are read.

    Raises:
        DataError: When the archive is missing, compressed, damaged or truncated, or a name occurs
            twice.
    """
    entries = _read_headers(path)
    found: dict[str, Member] = {}
    for entry in entries:
        name = entry.name.removeprefix("./")
        check_member(str(path), name, _leads_out(entry))
        if not entry.isreg() or entry.issparse():
            continue
        if name in found:
            raise DataError(f"{path} holds {name} twice; write it again")
        found[name] = Member(entry.offset_data, entry.size)
    return found


def check_member(archive: str, name: str, is_link: bool = False) -> None:
    """Refuse a member whose name, or the link that it is, leads out of its archive.

    Raises:
        DataError: When it does.
    """
    path = PurePosixPath(name)
    if is_link:
        reason = "is a link, which may lead anywhere; write the archive with the file itself"
    elif path.is_absolute() or ".." in path.parts or "\0" in name:
        reason = "leads out of the archive; write it again with relative names"
    else:
        return
    raise DataError(f"{archive}: its member {name!r} {reason}")


def _leads_out(entry: tarfile.TarInfo) -> bool:
    """Whether an entry is a link to something that the archive does not hold."""
    if not (entry.issym() or entry.islnk()):
        return False
    start = PurePosixPath(entry.name).parent if entry.issym() else PurePosixPath()
    target = posixpath.normpath(start / entry.linkname)
    return target.startswith(("/", "../")) or target == ".."


def _read_headers(path: Path) -> list[tarfile.TarInfo]:
    try:
        with path.open("rb") as stream:
            start = stream.read(8)
            stream.seek(0)
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                entries = archive.getmembers()
                # The end is marked with zeros. Other bytes there mean that tarfile has taken a
                # damaged header, or the end of a truncated file, for the end of the archive.
                stream.seek(archive.offset)
                end = stream.read(_BLOCK)
    except (tarfile.TarError, ValueError) as error:
        kind = next((kind for mark, kind in _COMPRESSED.items() if start.startswith(mark)), None)
        raise DataError(
            f"{path} is compressed ({kind}), so single files in it cannot be read; unpack it to an"
            " uncompressed .tar, since images are compressed anyway"
            if kind
            else f"{path} cannot be read as a tar archive ({error}); it is truncated, damaged or of"
            " another format, so fetch or write it again"
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(end) < _BLOCK or any(end):
        raise DataError(
            f"{path} is truncated or damaged at byte {archive.offset}, after {len(entries)} files;"
            " fetch or write it again"
        )
    return entries


def read_range(path: Path, member: Member) -> bytes:
    """Read the bytes of a member.

    Raises:
        OSError: When the archive is missing or ends too early.
    """
    with path.open("rb") as stream:
        stream.seek(member.offset)
        data = stream.read(member.size)
    if len(data) < member.size:
        raise OSError(f"{path} ends before byte {member.offset + member.size}; it is truncated")
    return data


class Hashed:
    """A stream that passes bytes on to another one and hashes them."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.digest = stream, hashlib.sha256()

    def write(self, data: bytes) -> int:
        """Write all of `data`."""
        self.digest.update(data)
        return self.stream.write(data)


class TarArchive:
    """A tar archive with the methods of :class:`zipfile.ZipFile` that reading members needs."""

    def __init__(self, path: Path) -> None:
        self.path, self.members = path, read_members(path)

    def namelist(self) -> list[str]:
        """Return the names of the regular files."""
        return list(self.members)

    def read(self, name: str) -> bytes:
        """Return the bytes of a member; raises :class:`KeyError` if it does not exist."""
        return read_range(self.path, self.members[name])
