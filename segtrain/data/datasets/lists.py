"""Samples that list files name, one per line."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from segtrain.data.dataset import DATASETS, SampleFiles
from segtrain.data.datasets.configured import ConfiguredDataset
from segtrain.data.datasets.found_files import without_ending
from segtrain.data.io.storage import is_file, read_bytes
from segtrain.errors import ConfigError, DataError

_KEYS = ("list", "images", "masks", "valid", "names")
_FOLDERS = ("images", "masks", "valid")
_COLUMNS = ("image", "mask", "valid")
_NEEDED = 2  # columns
_SLOT = "{}"
_SCHEME = re.compile(r"[A-Za-z]{2,}:/")
SplitLists = Mapping[str, str | Sequence[Any]]


@DATASETS.register("list")
class ListDataset(ConfiguredDataset):
    """Images and masks that list files name.

    A list is a UTF-8 text file. Its suffix decides the format: ``.tsv``, ``.csv``, ``.jsonl`` (one
    object with ``image``, ``mask`` and optionally ``valid`` per line). Any other suffix means
    columns separated by tabs or, in a line without a tab, by spaces, like the official ``.lst``
    files of HRNet. A first line with the words ``image`` and ``mask`` is a heading. A byte order
    mark, both kinds of line endings, empty lines and spaces around a path are accepted.

    Args:
        train: ``list`` names one or several files, relative to `root`. If ``images`` and ``masks``
            are templates such as ``JPEGImages/{}.jpg``, the first column of a line is inserted into
            both and other columns are not used. Otherwise a line holds the paths of image and mask,
            relative to the directories ``images`` and ``masks`` if these are given. ``names``, a
            list or a text file with one name per line, keeps only these samples. The name of a
            sample is what is inserted into the templates, or the path of its image in the list
            without extension. A third column holds the path of a file that is not 0 at the pixels
            of the image that count; the other pixels are ignored. ``valid`` is its directory, or a
            template.
        val: The same for the validation split.
        test: The same for the test split; None: there is no test split.
        allow_outside_root: Whether a list may name absolute paths, and paths with ``..``.
        **common: See :class:`~segtrain.data.datasets.configured.ConfiguredDataset`.

    Raises:
        ConfigError: When the split is not configured, or the labels contradict each other.
        DataError: When a list or a file that it names is missing, or a line is not valid.
    """

    def __init__(
        self,
        *,
        train: SplitLists | None = None,
        val: SplitLists | None = None,
        test: SplitLists | None = None,
        allow_outside_root: bool = False,
        **common: Any,
    ) -> None:
        self.sections = {"train": train, "val": val, "test": test}
        self.allow_outside_root = allow_outside_root
        super().__init__(**common)

    def find(self) -> list[SampleFiles]:
        where = f"dataset.{self.split}"
        section = self.check_section(self.sections[self.split], _KEYS, "a list file", needed=1)
        files = section["list"]
        folders = [str(section.get(key) or "") for key in _FOLDERS]  # or templates
        for key, folder in zip(_FOLDERS[1:], folders[1:], strict=True):
            if (_SLOT in folders[0]) != (_SLOT in folder) and (folder or key in _FOLDERS[:_NEEDED]):
                raise ConfigError(
                    f"{where}: images and {key} must both be templates with {_SLOT}, or neither"
                )
        names, known = self.chosen_names(section), set[str]()
        samples: dict[str, SampleFiles] = {}
        for file in [files] if isinstance(files, str) else files:
            path = self.root / Path(file).expanduser()
            for line in read_list(path, where):
                sample = self._sample(line, folders)
                known.add(sample.name)
                if folders[2] and sample.valid is None:
                    raise DataError(
                        f"{line.position}: it has no third column, but {where}.valid is set; add"
                        " the path of the valid file, or set it to null"
                    )
                if names is None or sample.name in names.chosen:
                    self._add(sample, line, samples)
        if names is not None:
            names.check(known)
        return list(samples.values())

    def _add(self, sample: SampleFiles, line: ListLine, samples: dict[str, SampleFiles]) -> None:
        """Add a sample to the others if its files exist."""
        problem = self._missing(sample, line)
        first = next(iter(samples.values()), sample)
        if sample.name in samples:
            raise DataError(f"{line.position}: {sample.name!r} is named twice; remove one")
        if (first.valid is None) != (sample.valid is None):
            raise DataError(
                f"{line.position}: it names {'a' if first.valid is None else 'no'} valid file,"
                " unlike the lines before it; give one in every line, or in none"
            )
        if problem is not None and self.max_bad == 0:
            raise DataError(problem)
        if problem is None:
            samples[sample.name] = sample
        else:
            self.left_out.append(problem)

    def _sample(self, line: ListLine, folders: Sequence[str]) -> SampleFiles:
        """Return the files that a line names; of several readings the first whose files exist."""
        readings: list[tuple[str, ...]]
        if _SLOT in folders[0]:
            count = len(folders) if folders[2] else _NEEDED
            words = dict.fromkeys(line.words[:1] + line.joined())
            readings = [(word,) * count for word in words]
        elif len(line.words) == _NEEDED or (len(line.words) == len(_COLUMNS) and not line.spaced):
            readings = [tuple(line.words)]
        else:
            readings = line.splits()
        if not readings:
            raise DataError(
                f"{line.position}: {len(line.words)} column{'' if len(line.words) == 1 else 's'}"
                f" instead of image and mask (and valid file), in {' | '.join(line.words)!r}; put"
                f" {'a comma' if '.csv, ' in line.position else 'one tab'} between the two paths"
            )
        samples = [self._files(reading, line, folders) for reading in readings]
        existing = [sample for sample in samples if self._missing(sample, line) is None]
        return existing[0] if existing else samples[0]

    def _files(
        self, reading: tuple[str, ...], line: ListLine, folders: Sequence[str]
    ) -> SampleFiles:
        pairs = list(zip(folders, reading, strict=False))
        if _SLOT in folders[0]:
            words = [folder.replace(_SLOT, word) for folder, word in pairs]
            name = reading[0]
        else:
            words = [str(Path(*filter(None, pair))) for pair in pairs]
            name = without_ending(Path(reading[0]))
        image, mask, *valid = (self._inside(word, line) for word in words)
        return SampleFiles(image, (mask,), unicodedata.normalize("NFC", name), *valid)

    def _inside(self, word: str, line: ListLine) -> Path:
        path = Path(word)
        outside = path.is_absolute() or ".." in path.parts or _SCHEME.match(word) is not None
        if "\0" in word or (not self.allow_outside_root and (outside or self._is_led_out(path))):
            raise DataError(
                f"{line.position}: {word!r} leads outside dataset.root={self.root}; use paths"
                " inside it, or set dataset.allow_outside_root=true"
            )
        return self.root / path

    def _is_led_out(self, path: Path) -> bool:
        """Whether a link leads a path inside the root to another place."""
        file = self.root / path
        if not file.is_symlink():  # most files are none, and their folders are known
            file = file.parent
            return not _real(file).is_relative_to(_real(self.root))
        return not Path(os.path.realpath(file)).is_relative_to(_real(self.root))

    def _missing(self, sample: SampleFiles, line: ListLine) -> str | None:
        for what, path in zip(_COLUMNS, (sample.image, sample.mask, sample.valid), strict=True):
            if path is not None and not is_file(path):
                may_be_heading = line.position.endswith(" line 1")
                hint = "; a heading must have the words image and mask" if may_be_heading else ""
                return f"{line.position}: the {what} file {path} does not exist{hint}"
        return None


@lru_cache(maxsize=4096)
def _real(folder: Path) -> Path:
    """A folder without links in its path."""
    return Path(os.path.realpath(folder))


class ListLine(NamedTuple):
    """A line of a list file.

    Attributes:
        words: Its columns.
        position: File and line number, for messages.
        spaced: Whether the columns are separated by spaces, which may also be part of a path.
    """

    words: list[str]
    position: str
    spaced: bool = False

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
        heading = first and [word.lower() for word in line.words[:2]] == [*_COLUMNS[:_NEEDED]]
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
        position = f"{path}, line {number}"
        if not line.strip():
            continue
        if suffix == ".jsonl":
            yield ListLine(_json_row(line, position), position)
        elif "\t" in line or suffix == ".tsv":
            yield ListLine([word.strip() for word in line.split("\t")], position)
        else:
            yield ListLine(line.split(), position, spaced=True)


def _csv_lines(text: str, path: Path) -> Iterator[ListLine]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            if any(row):
                yield ListLine([word.strip() for word in row], f"{path}, line {reader.line_num}")
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: it is not valid CSV ({error})") from None


def _json_row(line: str, position: str) -> list[str]:
    try:
        entry = json.loads(line)
    except ValueError:
        raise DataError(f"{position}: {line[:80]!r} is not valid JSON") from None
    if not isinstance(entry, dict) or "image" not in entry:
        held = ", ".join(entry) if isinstance(entry, dict) else type(entry).__name__
        raise DataError(
            f'{position}: an object with "image" and "mask" is needed, but the line holds {held}'
        )
    columns = _COLUMNS if entry.get("mask") is not None else _COLUMNS[:1]
    return [str(entry[key]) for key in columns if entry.get(key) is not None]
