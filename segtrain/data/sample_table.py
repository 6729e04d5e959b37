"""The files of many samples in a few arrays, which the processes of a machine can share."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import stat
import zlib
from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from segtrain.data.dataset import SampleFiles
from segtrain.data.io.storage import is_file, stamp

_THREADS = 16  # most of the time of a network file system is waiting
_ROWS_AT_ONCE = 1024
_FIELDS = 4  # name, image, mask, valid file
_MISSING = -1


class Stamps(NamedTuple):
    """What the file system says about the files of each sample.

    Attributes:
        values: Size and time of modification of image, mask and valid file, int64, shape
            ``(N, 3, 2)``; -1 for a file that does not exist, 0 where the sample has none.
        links: The rows with a symbolic link.
    """

    values: NDArray[np.int64]
    links: list[int]

    @property
    def missing(self) -> list[int]:
        """The rows with a file that does not exist or is not a file."""
        return np.flatnonzero((self.values[..., 0] == _MISSING).any(1)).tolist()


class SampleTable(Sequence[SampleFiles]):
    """Samples with one mask each, as a sequence of :class:`SampleFiles`.

    A row takes the bytes of its texts and four offsets, where objects would take a kilobyte.

    Args:
        root: The directory or archive that relative paths start from.
        text: The texts of all rows one after the other: name, image, mask and valid file of each,
            uint8. An empty text means that there is no valid file.
        ends: Where each text starts, and at last where the last one ends, int64, shape
            ``(4 * N + 1,)``.
        repeats: Whether a sample may occur more than once.
        rows: The rows in use, in order; None: all.

    Example:
        >>> table = TableBuilder(Path("data"))
        >>> table.add("a", "images/a.png", "masks/a.png")
        >>> table.add("b", "images/b.png", "masks/b.png")
        >>> table.build()[1].image.as_posix()
        'data/images/b.png'
    """

    def __init__(
        self,
        root: Path,
        text: NDArray[np.uint8],
        ends: NDArray[np.int64],
        *,
        repeats: bool = False,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        self.root, self.text, self.ends, self.repeats = root, text, ends, repeats
        self._is_whole = rows is None
        self.rows = np.arange((len(ends) - 1) // _FIELDS) if rows is None else rows

    @classmethod
    def of(cls, samples: Sequence[SampleFiles], root: Path) -> SampleTable:
        """Return a table of samples that have one mask each."""
        builder, folder = TableBuilder(root), f"{root}/"
        for image, (mask,), name, valid in samples:
            paths = (image, mask) if valid is None else (image, mask, valid)
            builder.add(name, *(str(path).removeprefix(folder) for path in paths))
        return builder.build()

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> SampleFiles: ...
    @overload
    def __getitem__(self, index: slice) -> list[SampleFiles]: ...
    def __getitem__(self, index: int | slice) -> SampleFiles | list[SampleFiles]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        row = int(self.rows[index])
        (texts,) = self._texts(row, row + 1)
        name, image, mask, valid = (os.fsdecode(text) for text in texts)
        return SampleFiles(
            self.root / image, (self.root / mask,), name, self.root / valid if valid else None
        )

    def names(self) -> Iterator[str]:
        """Yield the name of each sample."""
        for row in self.rows.tolist():
            start, end = self.ends[row * _FIELDS : row * _FIELDS + 2].tolist()
            yield os.fsdecode(self.text[start:end].tobytes())

    def chosen(self, indices: Sequence[int] | NDArray[np.int64]) -> SampleTable:
        """Return the samples at `indices`; the texts are shared."""
        fewer = SampleTable(
            self.root,
            self.text,
            self.ends,
            repeats=self.repeats,
            rows=self.rows[np.asarray(indices, dtype=np.int64)],
        )
        if "_all_stamps" in self.__dict__:
            fewer.__dict__["_all_stamps"] = self._all_stamps
        return fewer

    def once(self) -> SampleTable:
        """Return each sample once, at its first place."""
        if not self.repeats:
            return self
        first: dict[str, int] = {}
        for index, name in enumerate(self.names()):
            first.setdefault(name, index)
        fewer = self.chosen(list(first.values()))
        fewer.repeats = False
        return fewer

    def holds(self, endings: Sequence[str]) -> bool:
        """Whether one of these texts, in any case, occurs in a row."""
        searched = re.compile(b"|".join(re.escape(os.fsencode(one)) for one in endings), re.I)
        return searched.search(self.text.data) is not None

    @cached_property
    def digest(self) -> str | None:
        """A text that changes with the samples, their order, and the stamps of their files.

        None: a file is missing.
        """
        if self.stamps.missing:
            return None
        stamps = np.ascontiguousarray(self.stamps.values)
        return hashlib.sha256(self.paths_digest.encode() + stamps.tobytes()).hexdigest()

    @cached_property
    def paths_digest(self) -> str:
        """A text that changes with the samples and their order."""
        digest = hashlib.sha256(os.fsencode(self.root.absolute()))
        for part in (self.text, self.ends, self.rows):
            digest.update(np.ascontiguousarray(part).data)
        return digest.hexdigest()

    @property
    def stamps(self) -> Stamps:
        """What the file system says about the files, read once, in several threads."""
        known = self._all_stamps
        if self._is_whole:
            return known
        place = {row: index for index, row in enumerate(self.rows.tolist())}
        links = [place[row] for row in known.links if row in place] if known.links else []
        return Stamps(known.values[self.rows], links)

    @cached_property
    def _all_stamps(self) -> Stamps:
        total = (len(self.ends) - 1) // _FIELDS
        values = np.zeros((total, _FIELDS - 1, 2), np.int64)
        links: list[int] = []
        starts = range(0, total, _ROWS_AT_ONCE)
        with ThreadPoolExecutor(min(_THREADS, len(starts) or 1)) as pool:
            for start, part in zip(starts, pool.map(self._stamp_rows, starts), strict=True):
                values[start : start + _ROWS_AT_ONCE] = part.values
                links += part.links
        return Stamps(values, links)

    def _stamp_rows(self, start: int) -> Stamps:
        folder = os.fsencode(self.root) + b"/"
        total = (len(self.ends) - 1) // _FIELDS
        values, links = array("q"), []
        for row, texts in enumerate(self._texts(start, min(start + _ROWS_AT_ONCE, total)), start):
            for text in texts[1:]:
                if not text:
                    values.extend((0, 0))
                    continue
                path = text if text.startswith(b"/") else folder + text
                size, time, is_link = _stamp(path)
                values.append(size)
                values.append(time)
                if is_link:
                    links.append(row)
        found = np.frombuffer(values, np.int64).reshape(-1, _FIELDS - 1, 2)
        return Stamps(found, list(dict.fromkeys(links)))

    def _texts(self, start: int, stop: int) -> Iterator[tuple[bytes, ...]]:
        """Yield the texts of some rows."""
        ends = self.ends[start * _FIELDS : stop * _FIELDS + 1]
        first = int(ends[0])
        data, ends = self.text[first : ends[-1]].tobytes(), (ends - first).tolist()
        fields = (data[begin:end] for begin, end in itertools.pairwise(ends))
        return zip(*[fields] * _FIELDS, strict=True)


class TableBuilder:
    """Builds a :class:`SampleTable` row by row, without an object per row."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._text, self._ends, self._hashes = bytearray(), array("q", [0]), array("q")

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, name: str, image: str, mask: str, valid: str = "") -> None:
        """Add a sample; paths are relative to the root, or absolute."""
        for field in (name, image, mask, valid):
            self._text += os.fsencode(field)
            self._ends.append(len(self._text))
        self._hashes.append(hash(name))

    def build(self) -> SampleTable:
        """Return the table; nothing can be added afterwards."""
        return SampleTable(
            self.root,
            np.frombuffer(self._text, np.uint8) if self._text else np.zeros(0, np.uint8),
            np.frombuffer(self._ends, np.int64),
        )

    def repeated(self) -> NDArray[np.int64]:
        """Return the rows whose name may be that of another row, in order."""
        hashes = np.frombuffer(self._hashes, np.int64)
        _, group, counts = np.unique(hashes, return_inverse=True, return_counts=True)
        return np.flatnonzero(counts[group] > 1)


def _stamp(path: bytes) -> tuple[int, int, bool]:
    """Return size and time of modification of a file, and whether it is a link."""
    try:
        found = os.lstat(path)
        is_link = stat.S_ISLNK(found.st_mode)
        if is_link:
            found = os.stat(path)  # noqa: PTH116  a path takes longer than the call
    except (OSError, ValueError):
        return *_stamp_in_archive(Path(os.fsdecode(path))), False
    if stat.S_ISREG(found.st_mode):
        return found.st_size, found.st_mtime_ns, is_link
    return _MISSING, 0, is_link


def _stamp_in_archive(path: Path) -> tuple[int, int]:
    try:
        if not is_file(path):
            return _MISSING, 0
        size, *others = stamp(path)
    except OSError:
        return _MISSING, 0
    return size, zlib.crc32(repr(others).encode())
