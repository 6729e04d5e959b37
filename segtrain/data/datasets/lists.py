"""Samples that list files name, one a line."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from segtrain.data.dataset import DATASETS, SampleFiles
from segtrain.data.datasets.configured import ConfiguredDataset
from segtrain.data.io.storage import is_file, read_bytes
from segtrain.errors import ConfigError, DataError

_KEYS = ("list", "images", "masks")
_COLUMNS = ("image", "mask")
_HOLE = "{}"
_SCHEME = re.compile(r"[A-Za-z]{2,}:/")
Lists = Mapping[str, str | Sequence[str]]


@DATASETS.register("list")
class ListDataset(ConfiguredDataset):
    """Images and masks that list files name.

    A list is a text file in UTF-8, by its suffix: ``.tsv``, ``.csv``, ``.jsonl`` (an object with
    ``image`` and ``mask`` a line), else text with columns between tabs or, where a line has no tab,
    spaces; the official HRNet ``.lst`` is of the latter kind. A first line of the words ``image``
    and ``mask`` is a heading. A mark at the start of the file, either kind of line ending, empty
    lines and spaces round a path do no harm.

    Args:
        train: ``list``, one file or several. With ``images`` and ``masks`` as templates, such as
            ``JPEGImages/{}.jpg``, the first column of a line fills them and others do not count;
            otherwise a line holds the paths of image and mask, below the directories ``images``
            and ``masks`` where those are given. Everything is relative to `root`.
        val: The same for the validation split.
        allow_outside_root: Whether a list may name absolute paths, and paths with ``..``.
        **common: See :class:`~segtrain.data.datasets.configured.ConfiguredDataset`.

    Raises:
        ConfigError: When the split is not configured, or the labels contradict each other.
        DataError: When a list or a file that it names is missing, or a line makes no sense.
    """

    def __init__(
        self,
        *,
        train: Lists | None = None,
        val: Lists | None = None,
        allow_outside_root: bool = False,
        **common: Any,
    ) -> None:
        self.lists = {"train": train, "val": val}
        self.allow_outside_root = allow_outside_root
        super().__init__(**common)

    def find(self) -> list[SampleFiles]:
        where = f"dataset.{self.split}"
        given = self.given(self.lists[self.split], _KEYS, "a list file", needed=1)
        files = given["list"]
        places = [str(given.get(key) or "") for key in _KEYS[1:]]
        if (_HOLE in places[0]) != (_HOLE in places[1]):
            raise ConfigError(
                f"{where}: images and masks must both be templates with {_HOLE}, or neither"
            )
        samples: dict[str, SampleFiles] = {}
        for file in [files] if isinstance(files, str) else files:
            path = self.root / Path(file).expanduser()
            for line in read_list(path, where):
                sample = self._sample(line, places)
                problem = self._missing(sample, line)
                if sample.name in samples:
                    raise DataError(f"{line.place}: {sample.name!r} is named twice; take one out")
                if problem is not None and self.max_bad == 0:
                    raise DataError(problem)
                if problem is None:
                    samples[sample.name] = sample
                else:
                    self.left_out.append(problem)
        return list(samples.values())

    def _sample(self, line: ListLine, places: Sequence[str]) -> SampleFiles:
        """The files that a line means; where spaces leave several readings, the one that exists."""
        if _HOLE in places[0]:
            readings = [(word, word) for word in dict.fromkeys(line.words[:1] + line.joined())]
        elif len(line.words) == len(_COLUMNS):
            readings = [(line.words[0], line.words[1])]
        else:
            readings = line.splits()
        if not readings:
            raise DataError(
                f"{line.place}: {len(line.words)} column{'' if len(line.words) == 1 else 's'} where"
                f" image and mask are needed, in {' | '.join(line.words)!r}; put"
                f" {'a comma' if '.csv, ' in line.place else 'one tab'} between the two paths"
            )
        samples = [self._files(reading, line, places) for reading in readings]
        there = [sample for sample in samples if self._missing(sample, line) is None]
        return there[0] if there else samples[0]

    def _files(
        self, reading: tuple[str, str], line: ListLine, places: Sequence[str]
    ) -> SampleFiles:
        if _HOLE in places[0]:
            words = [
                place.replace(_HOLE, word) for place, word in zip(places, reading, strict=True)
            ]
            name = reading[0]
        else:
            words = [str(Path(*filter(None, pair))) for pair in zip(places, reading, strict=True)]
            name = Path(reading[0]).with_suffix("").as_posix()
        image, mask = (self._inside(word, line) for word in words)
        return SampleFiles(image, (mask,), name)

    def _inside(self, word: str, line: ListLine) -> Path:
        path = Path(word)
        outside = path.is_absolute() or ".." in path.parts or _SCHEME.match(word) is not None
        if "\0" in word or (outside and not self.allow_outside_root):
            raise DataError(
                f"{line.place}: {word!r} leads outside dataset.root={self.root}; use paths"
                " below it, or set dataset.allow_outside_root=true"
            )
        return self.root / path

    def _missing(self, sample: SampleFiles, line: ListLine) -> str | None:
        for what, path in (("image", sample.image), ("mask", sample.mask)):
            if not is_file(path):
                heading = line.place.endswith(" line 1")
                hint = "; a heading has the words image and mask" if heading else ""
                return f"{line.place}: the {what} file {path} does not exist{hint}"
        return None


class ListLine(NamedTuple):
    """A line of a list file: its columns, where it stands, and whether spaces made the columns."""

    words: list[str]
    place: str
    spaced: bool = False

    def joined(self) -> list[str]:
        """The whole line as one path, where spaces made columns of it."""
        return [" ".join(self.words)] if self.spaced and len(self.words) > 1 else []

    def splits(self) -> list[tuple[str, str]]:
        """The line as two paths, one way for each of its spaces."""
        words = self.words if self.spaced else []
        return [(" ".join(words[:k]), " ".join(words[k:])) for k in range(1, len(words))]


def read_list(path: Path, where: str) -> Iterator[ListLine]:
    """The lines of a list file that are not empty, without a heading.

    Args:
        path: The file.
        where: The config key that names it, for messages.

    Raises:
        DataError: When the file is missing or no text, or a line cannot be read.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except OSError as error:
        raise DataError(
            f"{where}.list: {path} cannot be read ({error.strerror or error})"
        ) from None
    except UnicodeDecodeError as error:
        number = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {number}: it is not UTF-8; save the list as UTF-8") from None
    first = True
    for line in _lines(text, path):
        heading = first and [word.lower() for word in line.words[:2]] == list(_COLUMNS)
        first = False
        if not heading:
            yield line
    if first:
        raise DataError(f"{where}.list: {path} names no sample")


def _lines(text: str, path: Path) -> Iterator[ListLine]:
    suffix = path.suffix.lower()
    if suffix == ".csv":
        yield from _csv_lines(text, path)
        return
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        place = f"{path}, line {number}"
        if not line.strip():
            continue
        if suffix == ".jsonl":
            yield ListLine(_json_row(line, place), place)
        elif "\t" in line or suffix == ".tsv":
            yield ListLine([word.strip() for word in line.split("\t")], place)
        else:
            yield ListLine(line.split(), place, spaced=True)


def _csv_lines(text: str, path: Path) -> Iterator[ListLine]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            if any(row):
                yield ListLine([word.strip() for word in row], f"{path}, line {reader.line_num}")
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: it is no CSV ({error})") from None


def _json_row(line: str, place: str) -> list[str]:
    try:
        entry = json.loads(line)
    except ValueError:
        raise DataError(f"{place}: {line[:80]!r} is no JSON") from None
    if not isinstance(entry, dict) or "image" not in entry:
        held = ", ".join(entry) if isinstance(entry, dict) else type(entry).__name__
        raise DataError(f'{place}: an object with "image" and "mask" is needed, this has {held}')
    return [str(entry[key]) for key in _COLUMNS if key in entry]
