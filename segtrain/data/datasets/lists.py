"""Samples that list files name, one per line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segtrain.data.dataset import DATASETS
from segtrain.data.datasets.configured import ConfiguredDataset
from segtrain.data.datasets.list_lines import NEEDED
from segtrain.data.datasets.list_store import TableStore, are_files_checked
from segtrain.data.datasets.list_table import SLOT, ListReader
from segtrain.data.sample_table import SampleTable
from segtrain.errors import ConfigError, DataError

LISTS = "list"
_KEYS = ("list", "images", "masks", "valid", "names")
_FOLDERS = ("images", "masks", "valid")
SplitLists = Mapping[str, str | Sequence[Any]]


@DATASETS.register(LISTS)
class ListDataset(ConfiguredDataset):
    """Images and masks that list files name.

    A list is a UTF-8 text file. Its suffix decides the format: ``.tsv``, ``.csv``, ``.jsonl`` (one
    object with ``image``, ``mask`` and optionally ``valid`` per line). Any other suffix means
    columns separated by tabs or, in a line without a tab, by spaces, like the official ``.lst``
    files of HRNet. A first line with the words ``image`` and ``mask`` is a heading. A byte order
    mark, both kinds of line endings, empty lines and spaces around a path are accepted.
    Training draws a sample as often as the list names it; a score counts it once.

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

    def find(self) -> SampleTable:
        where = f"dataset.{self.split}"
        section = self.check_section(self.sections[self.split], _KEYS, "a list file", needed=1)
        files = section["list"]
        folders = [str(section.get(key) or "") for key in _FOLDERS]  # or templates
        for key, folder in zip(_FOLDERS[1:], folders[1:], strict=True):
            if (SLOT in folders[0]) != (SLOT in folder) and (folder or key in _FOLDERS[:NEEDED]):
                raise ConfigError(
                    f"{where}: images and {key} must both be templates with {SLOT}, or neither"
                )
        names = self.chosen_names(section)
        reader = ListReader(
            self.root, where, folders, allow_outside_root=self.allow_outside_root, names=names
        )
        paths = [
            self.root / Path(file).expanduser()
            for file in ([files] if isinstance(files, str) else files)
        ]
        chosen = None if names is None else names.digest
        store = TableStore(paths, self.root, [folders, self.allow_outside_root, chosen])
        return _stored(store, reader) or self._read(paths, store, reader)

    def _read(self, paths: Sequence[Path], store: TableStore, reader: ListReader) -> SampleTable:
        """Read the lists, and store their table if all files exist."""
        table = reader.read(paths)
        problems = reader.problems(table)
        if not problems:
            store.save(table, reader.parents)
            return table
        if self.max_bad == 0:
            raise DataError(next(iter(problems.values())))
        self.left_out += problems.values()
        return table.chosen([row for row in range(len(table)) if row not in problems])


def _stored(store: TableStore, reader: ListReader) -> SampleTable | None:
    """Return the stored table; None: there is none, or a file does not exist any more."""
    found = store.load()
    if found is None:
        return None
    table, parents = found
    if are_files_checked():
        return table
    return None if table.stamps.missing or reader.leads_outside(table, parents) else table
