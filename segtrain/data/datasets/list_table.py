"""Read list files into a table, and check the files that they name."""

from __future__ import annotations

import os
import re
import unicodedata
from array import array
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from segtrain.data.dataset import SampleFiles
from segtrain.data.datasets.found_files import IMAGE_SUFFIXES, without_ending
from segtrain.data.datasets.list_lines import COLUMNS, NEEDED, ListLine, position, read_list
from segtrain.data.datasets.names import Names
from segtrain.data.io.storage import is_file
from segtrain.data.sample_table import SampleTable, TableBuilder
from segtrain.errors import DataError

SLOT = "{}"
_SCHEME = re.compile(r"[A-Za-z]{2,}:/")
# A relative path that leads nowhere else, as it is in most lines: no part is empty or starts with a
# dot, and there is no scheme.
_IS_PLAIN = re.compile(r"[^/:\0.][^/:\0]*(/[^/:\0.][^/:\0]*)*").fullmatch

Row = tuple[str, str, str, str]
"""Name, image, mask and valid file of a sample; no valid file is an empty text."""


class ListReader:
    """Reads the lists of one split.

    Args:
        root: The directory or archive that relative paths start from.
        where: The config key of the split, for messages.
        folders: The folders of images, masks and valid files, or the templates; may be empty.
        allow_outside_root: Whether a list may name files outside `root`.
        names: The names of the samples to keep; None: all.

    Attributes:
        parents: The folders inside `root` that hold the files.
    """

    def __init__(
        self,
        root: Path,
        where: str,
        folders: Sequence[str],
        *,
        allow_outside_root: bool = False,
        names: Names | None = None,
    ) -> None:
        self.root, self.where, self.folders, self.names = root, where, folders, names
        self.allow_outside_root = allow_outside_root
        self.parents: set[str] = set()
        self._paths: Sequence[Path] = ()
        self._lines, self._list_of = array("q"), array("q")  # of each row

    def read(self, paths: Sequence[Path]) -> SampleTable:
        """Read lists into a table; whether the files exist is not checked.

        Raises:
            DataError: When a list cannot be read, a line is not valid, leads outside the root, or
                names a sample that has other files in an earlier line.
        """
        self._paths, builder, known = paths, TableBuilder(self.root), set[str]()
        has_valid = None
        for number, path in enumerate(paths):
            for line in read_list(path, self.where):
                row = self._row(line)
                if self.names is not None:
                    known.add(row[0])
                    if row[0] not in self.names.chosen:
                        continue
                if has_valid not in (None, bool(row[3])):
                    raise DataError(
                        f"{line.position}: it names {'a' if row[3] else 'no'} valid file,"
                        " unlike the lines before it; give one in every line, or in none"
                    )
                has_valid = bool(row[3])
                self._add(builder, row, line)
                self._lines.append(line.number)
                self._list_of.append(number)
        if self.names is not None:
            self.names.check(known)
        table = builder.build()
        self._check_names(table, builder.repeated())
        return table

    def problems(self, table: SampleTable) -> dict[int, str]:
        """Return a message for each row with a file that does not exist.

        Raises:
            DataError: When a link leads outside the root.
        """
        self._check_links(table)
        found = {row: self._missing(table[row], row) for row in table.stamps.missing}
        return {row: text for row, text in found.items() if text is not None}

    def leads_outside(self, table: SampleTable, parents: Iterable[str]) -> bool:
        """Whether one of the folders or links of a stored table leads outside the root now."""
        try:
            for parent in parents:
                self._check_parent(parent, parent, "")
            self._check_links(table)
        except (DataError, IndexError):  # the position is not stored
            return True
        return False

    def _position(self, row: int) -> str:
        return position(self._paths[self._list_of[row]], self._lines[row])

    def _add(self, builder: TableBuilder, row: Row, line: ListLine) -> None:
        try:
            builder.add(*row)
        except UnicodeEncodeError:
            raise DataError(
                f"{line.position}: {' '.join(row[1:])!r} holds a character that no file name can"
                " have; correct the line"
            ) from None

    def _check_names(self, table: SampleTable, rows: NDArray[np.int64]) -> None:
        """Check that rows with the same name have the same files.

        Raises:
            DataError: When they do not, since results are stored by name.
        """
        first: dict[str, tuple[int, SampleFiles]] = {}
        for row in rows.tolist():
            files = table[row]
            before, known = first.setdefault(files.name, (row, files))
            if files != known:
                raise DataError(
                    f"{self._position(row)}: {files.name!r} is named twice, with other files in"
                    f" {self._position(before)}; remove one, or name the same files in both to draw"
                    " the sample more often"
                )
            table.repeats = table.repeats or before != row

    # ------------------------------------------------------------------ one line

    def _row(self, line: ListLine) -> Row:
        """Return the sample of a line; of several readings the first whose files exist."""
        readings: list[tuple[str, ...]]
        if SLOT in self.folders[0]:
            count = len(self.folders) if self.folders[2] else NEEDED
            words = dict.fromkeys(line.words[:1] + line.joined())
            readings = [(word,) * count for word in words]
        elif len(line.words) == NEEDED or (len(line.words) == len(COLUMNS) and not line.spaced):
            readings = [tuple(line.words)]
        else:
            readings = line.splits()
        if not readings:
            raise DataError(
                f"{line.position}: {len(line.words)} column{'' if len(line.words) == 1 else 's'}"
                f" instead of image and mask (and valid file), in {' | '.join(line.words)!r}; put"
                f" {'a comma' if '.csv, ' in line.position else 'one tab'} between the two paths"
            )
        rows = [self._files(reading, line) for reading in readings]
        existing = rows if len(rows) == 1 else [row for row in rows if self._exists(row)]
        row = existing[0] if existing else rows[0]
        if self.folders[2] and not row[3]:
            raise DataError(
                f"{line.position}: it has no third column, but {self.where}.valid is set; add"
                " the path of the valid file, or set it to null"
            )
        return row

    def _files(self, reading: tuple[str, ...], line: ListLine) -> Row:
        pairs = list(zip(self.folders, reading, strict=False))
        if SLOT in self.folders[0]:
            words = [folder.replace(SLOT, word) for folder, word in pairs]
            name = reading[0]
        else:
            words = [_joined(folder, word) for folder, word in pairs]
            name = _without_ending(reading[0])
        if not name.isascii():
            name = unicodedata.normalize("NFC", name)
        image, mask, *valid = (self._inside(word, line) for word in words)
        return name, image, mask, valid[0] if valid else ""

    def _exists(self, row: Row) -> bool:
        return all(is_file(self.root / path) for path in row[1:] if path)

    def _missing(self, files: SampleFiles, row: int) -> str | None:
        where = self._position(row)
        for what, path in zip(COLUMNS, (files.image, files.mask, files.valid), strict=True):
            if path is not None and not is_file(path):
                may_be_heading = where.endswith(" line 1")
                hint = "; a heading must have the words image and mask" if may_be_heading else ""
                return f"{where}: the {what} file {path} does not exist{hint}"
        return None

    # ------------------------------------------------------------------ inside the root

    def _inside(self, word: str, line: ListLine) -> str:
        """Return a path as it is stored.

        Raises:
            DataError: When it leads outside the root, or a folder in it does.
        """
        if not _IS_PLAIN(word):
            path = Path(word)
            outside = path.is_absolute() or ".." in path.parts or _SCHEME.match(word) is not None
            if "\0" in word or (outside and not self.allow_outside_root):
                raise self._outside(word, line.position)
            word = str(path)
        if not self.allow_outside_root:
            parent = word.rpartition("/")[0]
            if parent not in self.parents:
                self._check_parent(parent, word, line.position)
                self.parents.add(parent)
        return word

    def _check_parent(self, parent: str, word: str, where: str) -> None:
        if not _real(self.root / parent).is_relative_to(_real(self.root)):
            raise self._outside(word, where)

    def _check_links(self, table: SampleTable) -> None:
        if self.allow_outside_root:
            return
        for row in table.stamps.links:
            files = table[row]
            for file in (files.image, files.mask, files.valid):
                if file is not None and not _real_file(file).is_relative_to(_real(self.root)):
                    raise self._outside(str(file.relative_to(self.root)), self._position(row))

    def _outside(self, word: str, where: str) -> DataError:
        return DataError(
            f"{where}: {word!r} leads outside dataset.root={self.root}; use paths"
            " inside it, or set dataset.allow_outside_root=true"
        )


def _joined(folder: str, word: str) -> str:
    joined = f"{folder}/{word}" if folder else word
    return joined if _IS_PLAIN(joined) else str(Path(*filter(None, (folder, word))))


def _without_ending(text: str) -> str:
    """As :func:`without_ending` of a relative path, faster for the endings that most files have."""
    dot, slash = text.rfind("."), text.rfind("/")
    if dot > slash + 1 and _IS_PLAIN(text) and text[dot:].lower() in IMAGE_SUFFIXES:
        return text[:dot]
    return without_ending(PurePath(text))


def _real_file(file: Path) -> Path:
    return Path(os.path.realpath(file)) if file.is_symlink() else _real(file.parent)


@lru_cache(maxsize=4096)
def _real(folder: Path) -> Path:
    """A folder without links in its path."""
    return Path(os.path.realpath(folder))
