"""A hash of the files of a dataset, to tell whether two runs used the same data."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from segtrain.data.dataset import FileDataset, SegmentationDataset
from segtrain.data.io.storage import volume_of
from segtrain.data.scan.cache import ScanCache
from segtrain.data.scan.remembered import Remembered
from segtrain.errors import DataError


def content_hash(
    dataset: SegmentationDataset, progress: Callable[[], object] = lambda: None
) -> str | None:
    """The SHA-256 of the relative names and the bytes of all files of a dataset, in hexadecimal.

    Names are relative to the common folder of the files, so a copy of the dataset elsewhere has the
    same hash. A sample that a list repeats counts as often as it is named. The hash of a file is
    cached until its size or its time of modification changes. For shards, the hashes in their index
    are used; a shard without one counts with its name and size.

    Args:
        dataset: One split of a dataset.
        progress: Called after each sample.

    Returns:
        The hash; None for a dataset that does not read files.

    Raises:
        DataError: When a file cannot be read.
    """
    if not isinstance(dataset, FileDataset) or not len(dataset):
        return None
    known = dataset.known_hashes()
    if known is not None:
        return _hash_lines(known)
    remembered = Remembered("content", [dataset])
    found = remembered.load()
    if found is None:
        found = {}, _hash_files(dataset, progress)
        remembered.save(found[1])
    return str(found[1])


def _hash_files(dataset: FileDataset, progress: Callable[[], object]) -> str:
    samples = [
        [volume_of(file) or file for file in (files.image, *files.masks, files.valid) if file]
        for files in dataset.files
    ]
    folder = os.path.commonpath([file.parent.absolute() for sample in samples for file in sample])
    cache = ScanCache([file for sample in samples for file in sample])
    lines = []
    for sample in samples:
        for file in sample:
            name = os.path.relpath(file.absolute(), folder)
            lines.append(f"{Path(name).as_posix()} {_file_hash(file, cache)}")
        progress()
    cache.save()
    repeats = Counter(files.name for files in dataset.files)
    more = [f"{name} {count} times" for name, count in repeats.items() if count > 1]
    return _hash_lines(sorted({*lines, *more}))


def _hash_lines(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _file_hash(file: Path, cache: ScanCache) -> str:
    try:
        return cache.sha256(file)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from error
