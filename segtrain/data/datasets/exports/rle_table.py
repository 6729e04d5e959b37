"""Tables of run lengths, as competitions of Kaggle hand them out."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from segtrain.data.dataset import DATASETS, SampleFiles
from segtrain.data.datasets.exports.base import SPLIT_NAMES, ObjectDataset
from segtrain.data.datasets.exports.objects import AnnotatedObject
from segtrain.data.datasets.found_files import IMAGE_SUFFIXES
from segtrain.data.io.storage import is_directory, list_names, read_bytes, walk
from segtrain.errors import ConfigError, DataError, NoFilesError
from segtrain.schema.values import did_you_mean

_RLE = ("rle", "encodedpixels", "encoded_pixels", "segmentation", "annotation")
_CLASS = ("class", "label", "category")
_COLUMN_KEYS = ("image", "rle", "class")
_NOTHING = ("", "-1", "nan", "none")


class _Columns(NamedTuple):
    """The positions of the columns that are used.

    Attributes:
        image: The name of the image.
        rle: The run lengths.
        label: The class; None: one class, or the last word of the name of the image.
        is_joined: Whether the name of the image ends with ``_`` and the class.
    """

    image: int
    rle: int
    label: int | None
    is_joined: bool


@DATASETS.register("rle_table")
class RleTableDataset(ObjectDataset):
    """A table with the name of an image and run lengths ``start length start length ...`` per row.

    Starts count from 1. An image may have several rows; one without run lengths is background.
    Where objects overlap, the one with fewer pixels covers the other.

    Args:
        train: ``table``, the CSV file; ``images``, the folder of the images; None: the CSV file
            with such a column, and the folder with the images that it names.
        val: The same for the validation split; None: a part of the training split is held back.
        test: The same for the test split; None: there is no test split.
        columns: The headings of the columns, if they are not recognised: ``image``, ``rle`` and
            ``class``, which is null for one class.
        order: Whether pixels are counted down the ``columns``, as in most competitions, or along
            the ``rows``.
        unlisted: What happens to images that are not in the table: ``skip``, or ``background``,
            where a table lists images with objects only.
        **common: See :class:`~segtrain.data.datasets.exports.base.ObjectDataset`.

    Raises:
        ConfigError: When a heading does not exist, or the classes contradict the table.
        DataError: When files are missing, or a row is not valid.
    """

    tool = "a table of run lengths"
    keys = ("table", "images")
    layout = "it has no CSV file with a column of run lengths, such as EncodedPixels"
    masks_have_sizes = False  # run lengths are those of the image

    def __init__(
        self,
        *,
        columns: dict[str, str | None] | None = None,
        order: Literal["columns", "rows"] = "columns",
        unlisted: Literal["skip", "background"] = "skip",
        **common: Any,
    ) -> None:
        self.columns, self.order, self.unlisted = columns or {}, order, unlisted
        self._listed: dict[str, list[tuple[int, str, str]]] = {}
        super().__init__(**common)

    def class_list(self) -> Sequence[str]:
        names = {
            label
            for given in (self.class_section(), self.sections["val"])
            if given
            for rows in self._read(self.root / given["table"]).values()
            for _, label, _ in rows
        }
        return sorted(names - {""}) or [self.only_class()]

    def find_section(self, split: str) -> dict[str, Any] | None:
        if split != "train":
            return None
        tables = [name for name in list_names(self.root) if name.lower().endswith(".csv")]
        found = [name for name in tables if self._columns(self._table(name)[0]) is not None]
        first = [name for name in found if Path(name).stem.lower().startswith("train")] or found
        return {"table": first[0]} if first else None

    def _table(self, name: str | Path) -> list[list[str]]:
        path = self.root / name
        try:
            text = read_bytes(path).decode("utf-8-sig")
            rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror or error})") from None
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path} is not a CSV file: {error}") from None
        return rows or [[]]

    def _columns(self, heading: Sequence[str]) -> _Columns | None:
        """Find the columns by their headings; None: no column has run lengths."""
        names = [name.strip() for name in heading]
        for key, name in self.columns.items():
            if key not in _COLUMN_KEYS:
                raise ConfigError(
                    f"unknown key dataset.columns.{key}{did_you_mean(key, _COLUMN_KEYS)}"
                )
            if name is not None and name not in names:
                raise ConfigError(f"dataset.columns.{key}={name}{did_you_mean(name, names)}")
        plain = [name.lower() for name in names]
        rle = self._column("rle", names, _first(plain, _RLE))
        if rle is None or len(names) < 2:
            return None
        # A column without a heading is the index that pandas writes.
        places = [i for i, name in enumerate(names) if i != rle and name]
        image = self._column("image", names, next(iter(places), None))
        if image is None:
            return None
        others = [name if i not in (image, rle) else "" for i, name in enumerate(plain)]
        label = self._column("class", names, _first(others, _CLASS))
        joined = label is None and "class" not in self.columns and _first(
            [plain[image].partition("_")[2]], _CLASS
        ) == 0  # fmt: skip
        return _Columns(image, rle, label, joined)

    def _column(self, key: str, names: Sequence[str], found: int | None) -> int | None:
        if key not in self.columns:
            return found
        given = self.columns[key]
        return None if given is None else names.index(given)

    def _read(self, path: Path) -> dict[str, list[tuple[int, str, str]]]:
        """Return the line, the class and the run lengths of each row, by image."""
        heading, *rows = self._table(path)
        columns = self._columns(heading)
        if columns is None:
            raise DataError(
                f"{path}: no column of run lengths among {', '.join(heading)}; set"
                " dataset.columns={image: ..., rle: ...}"
            )
        found = defaultdict(list)
        for line, row in enumerate(rows, start=2):
            if not any(row):
                continue
            if len(row) != len(heading):
                raise DataError(
                    f"{path}, line {line}: {len(row)} columns instead of {len(heading)}"
                )
            image, label = row[columns.image].strip(), ""
            if columns.is_joined:
                image, _, label = image.rpartition("_")
            elif columns.label is not None:
                label = row[columns.label].strip()
            runs = row[columns.rle].strip()
            runs = "" if runs.lower() in _NOTHING else runs
            has_class = columns.is_joined or columns.label is not None
            if has_class and runs and label.lower() in _NOTHING:
                raise DataError(f"{path}, line {line}: it has run lengths but no class")
            found[image].append((line, label if runs else "", runs))
        return dict(found)

    def find(self) -> list[SampleFiles]:
        section = self.section()
        table = self.root / section["table"]
        self._listed = self._read(table)
        images = self._images(section, table)
        if self.split == "train" and not any(
            runs for rows in self._listed.values() for *_, runs in rows
        ):
            raise DataError(f"{table} has no run lengths, so there is nothing to learn")
        found, missing = [], []
        for name in sorted(self._listed):
            image, *others = images.get(name, [None])
            if others:
                raise DataError(
                    f"{table} has {name}, and {image} and {others[0]} have this name; set"
                    f" dataset.{self.split}.images to the folder of one"
                )
            if image is None:
                missing.append(f"{name}: no image of this name, but {table} has it")
            else:
                found.append(SampleFiles(image, (table,), name))
        used = {files.image for files in found}
        rest = sorted({path for paths in images.values() for path in paths} - used)
        if self.unlisted == "background":
            found += [SampleFiles(image, (table,), image.stem) for image in rest]
        elif rest:
            self.notes.append(
                f"{len(rest)} images are not in {table} and are left out, such as {rest[0]};"
                " dataset.unlisted=background uses them as images without an object"
            )
        self.keep_existing(found, missing)
        return found

    def _images(self, section: dict[str, Any], table: Path) -> dict[str, list[Path]]:
        """Return the images by name, with and without ending."""
        first = next(iter(self._listed), "")
        if section.get("images"):
            found = _by_name(self.root / section["images"])
            if not found:
                raise NoFilesError(
                    f"dataset.{self.split}.images={section['images']}: no images there"
                )
            return found
        names = [name for name in list_names(self.root) if is_directory(self.root / name)]
        names.sort(key=lambda name: not name.lower().startswith(SPLIT_NAMES[self.split]))
        for name in [*(f"{name}/images" for name in names), *names, "."]:
            found = _by_name(self.root / name)
            if first in found:
                return found
        raise NoFilesError(
            f"no folder of {self.root} has the image {first} of {table}; set"
            f" dataset.{self.split}.images, and dataset.{self.split}.table={section['table']}"
        )

    def objects(self, index: int) -> list[AnnotatedObject]:
        files = self.files[index]
        height, width = self.size(index)
        found = []
        for line, label, runs in self._listed.get(files.name, ()):
            position = f"{files.mask}, line {line}"
            if not runs:
                continue
            value = self.value_of(label, files.mask) if label else 1
            pixels = self._pixels(runs, height, width, position)
            found.append(AnnotatedObject(value, pixels=(pixels, 0, 0)))
        return found

    def _pixels(self, runs: str, height: int, width: int, position: str) -> Any:
        try:
            numbers = np.array(runs.split(), np.int64)
        except (ValueError, OverflowError):
            raise DataError(f"{position}: {runs[:40]!r} is not a list of whole numbers") from None
        starts, lengths = numbers[::2] - 1, numbers[1::2]
        if len(starts) != len(lengths) or (lengths < 0).any():
            raise DataError(f"{position}: {len(numbers)} numbers are not pairs of start and length")
        ends = starts + lengths
        if (starts < 0).any():
            raise DataError(
                f"{position}: a run starts at {int(starts.min()) + 1}, but starts count from 1"
            )
        if (ends > height * width).any():
            raise DataError(
                f"{position}: a run ends at pixel {int(ends.max())}, but the image is {height} x"
                f" {width}, {height * width} pixels; table and images do not belong together"
            )
        flat = np.zeros(height * width, np.bool_)
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            flat[start:end] = True
        if self.order == "rows":
            return flat.reshape(height, width)
        return flat.reshape(width, height).T


def _first(names: Sequence[str], words: Sequence[str]) -> int | None:
    """Return the position of the first name that is one of the words, else of one with a word."""
    whole = [i for i, name in enumerate(names) if name in words]
    parts = [i for i, name in enumerate(names) if any(word in name for word in words)]
    return next(iter([*whole, *parts]), None)


def _by_name(folder: Path) -> dict[str, list[Path]]:
    found = defaultdict(list)
    for path in sorted(walk(folder)) if is_directory(folder) else ():
        if path.suffix.lower() in IMAGE_SUFFIXES:
            for name in {path.stem, path.name}:
                found[name].append(path)
    return dict(found)
