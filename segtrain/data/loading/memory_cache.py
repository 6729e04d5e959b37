"""A dataset in memory: the bytes of its files, or its images and targets as arrays.

The training process fills the cache before its workers start. Forked workers, as on Linux, then
share that memory, whatever their number. Spawned workers (macOS, Windows) each receive a copy;
:func:`copies_of` counts the copies.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeGuard, TypeVar

import numpy as np
from numpy.typing import NDArray

from segtrain.data.dataset import FileDataset, Sample, SegmentationDataset
from segtrain.data.io.reader import Reader
from segtrain.data.io.storage import read_bytes, stamp
from segtrain.errors import ConfigError, DataError

CacheKind = Literal["compressed", "decoded"]
Progress = Callable[[], object]

_CHUNK = 1 << 26  # bytes; untouched pages take no memory
_ALIGN = 64
_MAX_THREADS = 8
_MAX_HEADERS = 500  # images whose headers are read for an estimate
_MAX_DECODED = 16  # samples that are read for an estimate without headers
_R = TypeVar("_R")


class CachedDataset(SegmentationDataset):
    """A dataset that is read once and then kept in memory, with the same samples as `dataset`.

    Before :meth:`fill`, each access reads `dataset`.

    Args:
        dataset: The samples.
        kind: ``compressed`` keeps the bytes of the files and decodes them at each access;
            ``decoded`` keeps images and targets, and returns a copy of them at each access.

    Raises:
        ConfigError: When `kind` is ``compressed`` and the dataset does not consist of files.

    Example:
        >>> from segtrain.data import ShapesDataset
        >>> cached = CachedDataset(ShapesDataset(num_train=2), "decoded")
        >>> cached.fill()
        >>> cached[1].name, cached.num_bytes == cached.expected_bytes
        ('train_00001', True)
    """

    def __init__(self, dataset: SegmentationDataset, kind: CacheKind) -> None:
        super().__init__(dataset.labels, dataset.channels, dataset.title)
        if kind == "compressed" and not _is_of_files(dataset):
            raise ConfigError(
                "loader.cache=compressed keeps the bytes of image and mask files, and this dataset"
                f" ({type(dataset).__name__}) does not read whole files; use loader.cache=decoded"
            )
        self.dataset, self.kind = dataset, kind
        self._memory = _Memory()
        self._samples: list[_Stored] = []

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        if not self._samples:
            return self.dataset[index]
        image, target, name = self._samples[index]
        # Copies, so that changes in place do not reach the cache.
        return Sample(self._memory.view(image).copy(), self._memory.view(target).copy(), name)

    def evaluation_part(self, length: int, rank: int, nodes: Sequence[int]) -> Sequence[int]:
        return self.dataset.evaluation_part(length, rank, nodes)

    @property
    def num_bytes(self) -> int:
        """The size of the cache now, in bytes."""
        return self._memory.num_bytes

    @cached_property
    def expected_bytes(self) -> int:
        """The size of the full cache, in bytes, from file sizes or image headers."""
        if not len(self):
            return 0
        if self.kind == "compressed":
            return sum(_padded(_file_size(path)) for path in _paths(self.dataset))
        return round(_mean_decoded_bytes(self.dataset) * len(self))

    def fill(self, progress: Progress | None = None) -> None:
        """Read all samples into memory; does nothing when the cache is full.

        Args:
            progress: Called after each sample or, for ``compressed``, each file.

        Raises:
            DataError: When a file cannot be read.
        """
        if self._memory.num_bytes:
            return
        if self.kind == "compressed":
            paths = list(_paths(self.dataset))
            places = {}
            for path, data in zip(paths, _in_threads(_read, paths, progress), strict=True):
                places[str(path)] = self._memory.put(np.frombuffer(data, np.uint8))
            self.dataset = _read_from(self.dataset, self._memory, places)
            return
        # A custom dataset may not be safe to read from several threads.
        run = _in_threads if isinstance(self.dataset, FileDataset) else _one_by_one
        self._samples = [
            _Stored(self._memory.put(image), self._memory.put(target), name)
            for image, target, name in run(self.dataset.__getitem__, range(len(self)), progress)
        ]

    @property
    def num_items(self) -> int:
        """Number of times that :meth:`fill` reports progress."""
        return len(_paths(self.dataset)) if self.kind == "compressed" else len(self)


def copies_of(num_workers: int) -> int:
    """Return the number of copies of a cache: one, and one per worker if workers are spawned."""
    method = multiprocessing.get_start_method(allow_none=True)
    method = method or multiprocessing.get_all_start_methods()[0]  # the first is the default
    return 1 if method == "fork" else 1 + num_workers


class _Place(NamedTuple):
    """The location of an array in the memory."""

    chunk: int
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class _Stored(NamedTuple):
    image: _Place
    target: _Place
    name: str


class _Memory:
    """Arrays in a few large chunks of memory.

    Forked workers share memory until a process writes to it, and Python writes to an object when
    its reference count changes. So the cache must be a few large objects, not one per image.
    """

    def __init__(self) -> None:
        self.num_bytes = 0
        self._chunks: list[NDArray[np.uint8]] = []
        self._used = 0  # bytes of the last chunk

    def put(self, array: NDArray[Any]) -> _Place:
        size = _padded(array.nbytes)
        if not self._chunks or self._used + size > len(self._chunks[-1]):
            self._chunks.append(np.empty(max(_CHUNK, size), dtype=np.uint8))
            self._used = 0
        place = _Place(len(self._chunks) - 1, self._used, array.shape, array.dtype)
        self.view(place)[...] = array
        self._used += size
        self.num_bytes += size
        return place

    def view(self, place: _Place) -> NDArray[Any]:
        chunk = self._chunks[place.chunk]
        return np.ndarray(place.shape, place.dtype, buffer=chunk.data, offset=place.start)


@dataclass(frozen=True)
class _MemoryReader(Reader):
    """A reader of files that are held in memory."""

    memory: _Memory = field(default_factory=_Memory, repr=False, compare=False)
    places: dict[str, _Place] = field(default_factory=dict, repr=False, compare=False)

    def image(self, path: str | Path) -> NDArray[Any]:
        return self.decode_image(self._bytes(path), str(path))

    def mask(self, path: str | Path, *, all_channels: bool = False) -> NDArray[Any]:
        return self.decode_mask(self._bytes(path), str(path), all_channels=all_channels)

    def valid(self, path: str | Path) -> NDArray[np.bool_]:
        return self.decode_valid(self._bytes(path), str(path))

    def _bytes(self, path: str | Path) -> bytes:
        return self.memory.view(self.places[str(path)]).tobytes()


def _read_from(
    dataset: SegmentationDataset, memory: _Memory, places: dict[str, _Place]
) -> FileDataset:
    """Return the same dataset, with its files read from memory."""
    assert isinstance(dataset, FileDataset)
    same = copy.copy(dataset)
    reader = _MemoryReader(**dataset.reader.keys(), memory=memory, places=places)
    same.reader = reader.with_soft_masks(dataset.reader.soft_masks)
    return same


def _is_of_files(dataset: SegmentationDataset) -> TypeGuard[FileDataset]:
    return isinstance(dataset, FileDataset) and dataset.reads_whole_files


def _paths(dataset: SegmentationDataset) -> dict[Path, None]:
    """Return every file once, in the order of the samples."""
    assert isinstance(dataset, FileDataset)
    found = ((files.image, *files.masks, files.valid) for files in dataset.files)
    return dict.fromkeys(path for paths in found for path in paths if path is not None)


def _read(path: Path) -> bytes:
    return _call_on_file(path, read_bytes)


def _file_size(path: Path) -> int:
    return _call_on_file(path, stamp)[0]


def _call_on_file(path: Path, function: Callable[[Path], _R]) -> _R:
    try:
        return function(path)
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read ({error})") from None


def _padded(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


def _spread(length: int, limit: int) -> list[int]:
    """Return the indices of at most `limit` samples, evenly spread over all of them."""
    return sorted({int(index) for index in np.linspace(0, length - 1, min(limit, length))})


def _mean_decoded_bytes(dataset: SegmentationDataset) -> float:
    """Return the mean size of a sample in bytes."""
    if not isinstance(dataset, FileDataset):
        chosen = [dataset[index] for index in _spread(len(dataset), _MAX_DECODED)]
        sizes = [_padded(sample.image.nbytes) + _padded(sample.target.nbytes) for sample in chosen]
        return float(np.mean(sizes))
    image, target, _ = dataset[0]
    pixels = image.shape[0] * image.shape[1]
    areas = [_area(dataset, index) for index in _spread(len(dataset), _MAX_HEADERS)]
    per_image, per_target = image.nbytes / pixels, target.nbytes / pixels
    return float(
        np.mean([_padded(round(a * per_image)) + _padded(round(a * per_target)) for a in areas])
    )


def _area(dataset: FileDataset, index: int) -> int:
    known = dataset.known_facts(index)
    if known is not None:
        height, width = known[0]
    elif _is_of_files(dataset):
        height, width = dataset.reader.size(dataset.files[index].image)
    else:
        height, width = dataset[index].target.shape[:2]
    return height * width


def _in_threads(
    action: Callable[[Any], _R], items: Iterable[Any], progress: Progress | None
) -> Iterator[_R]:
    # Reading and decoding release the interpreter lock, so threads help.
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        for result in pool.map(action, items):
            yield result
            if progress is not None:
                progress()


def _one_by_one(
    action: Callable[[Any], _R], items: Iterable[Any], progress: Progress | None
) -> Iterator[_R]:
    for item in items:
        yield action(item)
        if progress is not None:
            progress()
