"""The lines of list files, which name the files of samples."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from itertools import combinations, pairwise
from pathlib import Path
from typing import NamedTuple

from segtrain.data.io.storage import open_file
from segtrain.errors import DataError

COLUMNS = ("image", "mask", "valid")
NEEDED = 2  # columns


class ListLine(NamedTuple):
    """A line of a list file.

    Attributes:
        words: Its columns.
        path: The list file.
        number: Its number, from 1.
        spaced: Whether the columns are separated by spaces, which may also be part of a path.
    """

    words: list[str]
    path: Path
    number: int
    spaced: bool = False

    @property
    def position(self) -> str:
        """File and line number, for messages."""
        return position(self.path, self.number)

    def joined(self) -> list[str]:
        """Return the whole line as one path if its columns are separated by spaces."""
        return [" ".join(self.words)] if self.spaced and len(self.words) > 1 else []

    def splits(self) -> list[tuple[str, ...]]:
        """Return the ways to split the line at spaces into two paths, then into three."""
        words = self.words if self.spaced else []
        cuts = [cut for count in (1, 2) for cut in combinations(range(1, len(words)), count)]
        return [
            tuple(" ".join(words[start:end]) for start, end in pairwise((0, *cut, len(words))))
            for cut in cuts
        ]


def position(path: Path, number: int) -> str:
    """Return a file and a line number in words."""
    return f"{path}, line {number}"


def read_list(path: Path, where: str) -> Iterator[ListLine]:
    """Yield the lines of a list file, without empty lines and a heading.

    Args:
        path: The file.
        where: The config key of the split, for messages.

    Raises:
        DataError: When the file is missing, is not UTF-8 text or names no sample, or a line cannot
            be read.
    """
    try:
        stream = open_file(path)
    except OSError as error:
        raise DataError(
            f"{where}.list: {path} cannot be read ({error.strerror or error})"
        ) from None
    first = True
    with stream:
        for line in _lines(_decoded(stream, path), path):
            heading = first and [word.lower() for word in line.words[:2]] == [*COLUMNS[:NEEDED]]
            first = False
            if not heading:
                yield line
    if first:
        raise DataError(f"{where}.list: {path} names no sample")


def _decoded(stream: Iterable[bytes], path: Path) -> Iterator[str]:
    """Decode line by line, since a list may have millions of lines."""
    encoding = "utf-8-sig"  # a byte order mark is at the start of the first line
    for number, line in enumerate(stream, start=1):
        try:
            yield line.decode(encoding)
        except UnicodeDecodeError:
            raise DataError(
                f"{path}, line {number}: it is not UTF-8; save the list as UTF-8"
            ) from None
        encoding = "utf-8"


def _lines(text: Iterable[str], path: Path) -> Iterator[ListLine]:
    suffix = path.suffix.lower()
    if suffix == ".csv":
        yield from _csv_lines(text, path)
        return
    for number, line in enumerate(text, start=1):
        if not line.strip():
            continue
        if suffix == ".jsonl":
            yield ListLine(_json_row(line.strip("\r\n"), position(path, number)), path, number)
        elif "\t" in line or suffix == ".tsv":
            yield ListLine([word.strip() for word in line.split("\t")], path, number)
        else:
            yield ListLine(line.split(), path, number, spaced=True)


def _csv_lines(text: Iterable[str], path: Path) -> Iterator[ListLine]:
    # A carriage return alone ends a line, too.
    lines = (part for line in text for part in io.StringIO(line, newline=""))
    reader = csv.reader(lines, strict=True)
    try:
        for row in reader:
            if any(row):
                yield ListLine([word.strip() for word in row], path, reader.line_num)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: it is not valid CSV ({error})") from None


def _json_row(line: str, where: str) -> list[str]:
    try:
        entry = json.loads(line)
    except ValueError:
        raise DataError(f"{where}: {line[:80]!r} is not valid JSON") from None
    if not isinstance(entry, dict) or "image" not in entry:
        held = ", ".join(entry) if isinstance(entry, dict) else type(entry).__name__
        raise DataError(
            f'{where}: an object with "image" and "mask" is needed, but the line holds {held}'
        )
    columns = COLUMNS if entry.get("mask") is not None else COLUMNS[:1]
    return [str(entry[key]) for key in columns if entry.get(key) is not None]
