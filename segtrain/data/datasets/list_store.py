"""Tables of long lists in the cache directory, for the next start and other processes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np

from segtrain.data.io.storage import stamp
from segtrain.data.sample_table import SampleTable
from segtrain.files import atomic_write, cache_dir

_VERSION = 1  # goes up when the meaning of a table changes
_LEAST_ROWS = 10_000  # a shorter list is read faster than a table
_LENGTH = struct.Struct("<q")

_are_checked = ContextVar("files_are_checked", default=False)


@contextmanager
def files_are_checked() -> Iterator[None]:
    """Do not look for the files of a stored table, as another process has just found them.

    Lists without a stored table are read and checked as usual.
    """
    token = _are_checked.set(True)
    try:
        yield
    finally:
        _are_checked.reset(token)


def are_files_checked() -> bool:
    """Whether this is inside :func:`files_are_checked`."""
    return _are_checked.get()


class TableStore:
    """The table of the lists of one split, which is valid while the lists are unchanged.

    The processes of a machine map the file into memory, so that it is there once. A file that
    cannot be read or written counts as missing, since a run must not fail because of its cache.

    Args:
        lists: The list files.
        root: The root of the dataset.
        rules: What else the table depends on, as plain values.
    """

    def __init__(self, lists: Sequence[Path], root: Path, rules: Sequence[Any]) -> None:
        self.root = root
        places = [str(path.absolute()) for path in (root, *lists)]
        given = json.dumps([places, *rules])
        name = hashlib.sha256(given.encode(errors="surrogatepass")).hexdigest()[:16]
        self.path = cache_dir() / f"list-{name}.table"
        try:
            self._key: Any = [_VERSION, given, [stamp(path) for path in lists]]
        except OSError:  # the reader of the lists reports it
            self._key = None

    def load(self) -> tuple[SampleTable, set[str]] | None:
        """Return the table and the folders of its files; None: there is none for these lists."""
        if self._key is None:
            return None
        try:
            with self.path.open("rb") as stream:
                (length,) = _LENGTH.unpack(stream.read(_LENGTH.size))
                about = json.loads(stream.read(length))
            if about["key"] != self._key:
                return None
            data = np.memmap(self.path, np.uint8, "r", offset=0)
            start = _LENGTH.size + length
            end = start + 8 * about["ends"]
            ends, text = data[start:end].view(np.int64), data[end:]
            if len(text) != ends[-1]:
                return None
        except (OSError, ValueError, KeyError, TypeError, struct.error):
            return None
        # Plain arrays: a slice of a memmap is slow to create.
        table = SampleTable(self.root, np.asarray(text), np.asarray(ends), repeats=about["repeats"])
        return table, set(about["parents"])

    def save(self, table: SampleTable, parents: Iterable[str]) -> None:
        """Store a table of all rows, which then uses the stored arrays; a short one is not."""
        if len(table) < _LEAST_ROWS or self._key is None:
            return
        about = {
            "key": self._key,
            "ends": len(table.ends),
            "repeats": table.repeats,
            "parents": sorted(parents),
        }
        header = json.dumps(about).encode()
        header += b" " * (-len(header) % _LENGTH.size)  # numbers start at a multiple of 8
        with contextlib.suppress(OSError):
            with atomic_write(self.path) as stream:
                stream.write(_LENGTH.pack(len(header)) + header)
                stream.write(table.ends.data)
                stream.write(table.text.data)
            stored = self.load()
            if stored is not None:
                table.text, table.ends = stored[0].text, stored[0].ends
