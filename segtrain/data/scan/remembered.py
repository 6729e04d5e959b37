"""Results about whole splits, kept in the cache directory while no file of the splits changes.

The cache of single files holds a text per file, which takes seconds to read for a long list.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segtrain.data.dataset import FileDataset
from segtrain.data.sample_table import SampleTable
from segtrain.files import atomic_write, cache_dir
from segtrain.version import __version__

_VERSION = 1  # goes up when the meaning of a result changes
_KEY, _FACTS = "key", "facts"

Arrays = Mapping[str, NDArray[Any]]


class Remembered:
    """One result about splits, which is valid while paths, sizes and times of files are the same.

    A file that cannot be read or written counts as missing, since a run must not fail because of
    its cache.

    Args:
        what: The name of the result.
        splits: The splits it is about. Nothing is remembered unless all are in a
            :class:`~segtrain.data.sample_table.SampleTable` whose files exist.
        rules: What else the result depends on, as plain values.
    """

    def __init__(self, what: str, splits: Sequence[FileDataset], rules: Sequence[Any] = ()) -> None:
        self._key = ""
        tables = [split.files for split in splits if isinstance(split.files, SampleTable)]
        digests = [table.digest for table in tables if len(table)]
        if not digests or len(digests) < len(splits) or None in digests:
            return
        self._key = json.dumps([_VERSION, __version__, *rules, *digests])
        # Not the whole digests, so that the result about files that change replaces the old one.
        name = "|".join([*map(str, rules), *(table.paths_digest for table in tables)])
        found = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:16]
        self.path = cache_dir() / f"{what}-{found}.npz"

    def load(self) -> tuple[Arrays, Any] | None:
        """Return the arrays and the plain value of the result; None: it is not known."""
        if not self._key:
            return None
        try:
            with self.path.open("rb") as stream, np.load(stream) as stored:
                if _text(stored[_KEY]) != self._key:
                    return None
                arrays = {key: stored[key] for key in stored.files if key not in (_KEY, _FACTS)}
                return arrays, json.loads(_text(stored[_FACTS]))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def save(self, facts: Any, **arrays: NDArray[Any]) -> None:
        """Store a result.

        Args:
            facts: A plain value, as in JSON.
            **arrays: Arrays without objects.
        """
        if not self._key:
            return
        texts: dict[str, Any] = {_KEY: _bytes(self._key), _FACTS: _bytes(json.dumps(facts))}
        with contextlib.suppress(OSError), atomic_write(self.path) as stream:
            np.savez(stream, **(texts | arrays))


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), np.uint8)


def _text(array: NDArray[Any]) -> str:
    return array.tobytes().decode()
