"""A dataset in memory: the bytes of its files, or its images and targets as arrays.

The cache is filled by the training process before its workers start. Where workers are forked, as
on Linux, they then read the same memory, and it is taken once, whatever their number; where they
are started anew (macOS, Windows), each of them is sent a copy, which :func:`copies_of` counts.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from segtrain.data.dataset import FileDataset, Sample, SegmentationDataset
from segtrain.data.io.reader import Reader
from segtrain.data.io.storage import read_bytes, stamp
from segtrain.errors import ConfigError, DataError

CacheKind = Literal["compressed", "decoded"]
Progress = Callable[[], object]

_CHUNK = 1 << 26  # bytes; untouched ones cost nothing
_ALIGN = 64
_MOST_THREADS = 8
_MOST_HEADERS = 500  # images whose size is looked up for an estimate
_MOST_DECODED = 16  # samples that are read for one, where there are no headers
_R = TypeVar("_R")


class CachedDataset(SegmentationDataset):
    """A dataset that is read once and then stays in memory; its samples are those of `dataset`.

    Before :meth:`fill` it reads `dataset` at every call.

    Args:
        dataset: The samples.
        kind: ``compressed`` keeps the bytes of the files and decodes them at every call;
            ``decoded`` keeps images and targets, and gives a copy of them at every call.

    Raises:
        ConfigError: When the bytes of files are to be kept and there are none.

    Example:
        >>> from segtrain.data import ShapesDataset
        >>> cached = CachedDataset(ShapesDataset(num_train=2), "decoded")
        >>> cached.fill()
        >>> cached[1].name, cached.num_bytes == cached.expected_bytes
        ('train_00001', True)
    """

    def __init__(self, dataset: SegmentationDataset, kind: CacheKind) -> None:
        super().__init__(dataset.labels, dataset.channels, dataset.title)
        if kind == "compressed" and not _reads_whole_files(dataset):
            raise ConfigError(
                "loader.cache=compressed keeps the bytes of image and mask files, and this dataset"
                f" ({type(dataset).__name__}) has none of its own; use loader.cache=decoded"
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
        # Copies, so that whoever changes them in place changes nothing here.
        return Sample(self._memory.view(image).copy(), self._memory.view(target).copy(), name)

    @property
    def num_bytes(self) -> int:
        """What the cache holds now."""
        return self._memory.num_bytes

    @cached_property
    def expected_bytes(self) -> int:
        """Bytes that the cache will hold, from the sizes of files or from the headers of images."""
        if not len(self):
            return 0
        if self.kind == "compressed":
            return sum(_padded(_file_size(path)) for path in _paths(self.dataset))
        return round(_decoded_bytes(self.dataset) * len(self))

    def fill(self, progress: Progress | None = None) -> None:
        """Read everything; the second time nothing happens.

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
        samples = []
        read = self.dataset.__getitem__
        # A dataset of the user's own may not bear to be read by two threads at once.
        found = (_in_threads if isinstance(self.dataset, FileDataset) else _one_by_one)(
            read, range(len(self)), progress
        )
        for image, target, name in found:
            samples.append(_Stored(self._memory.put(image), self._memory.put(target), name))
        self._samples = samples

    @property
    def num_items(self) -> int:
        """How often :meth:`fill` reports progress."""
        return len(_paths(self.dataset)) if self.kind == "compressed" else len(self)


def copies_of(num_workers: int) -> int:
    """How many times a cache is in memory: once, or in each worker too where those start anew."""
    method = multiprocessing.get_start_method(allow_none=True)
    method = method or multiprocessing.get_all_start_methods()[0]  # the first is the default
    return 1 if method == "fork" else 1 + num_workers


class _Place(NamedTuple):
    """Where an array is."""

    chunk: int
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class _Stored(NamedTuple):
    image: _Place
    target: _Place
    name: str


class _Memory:
    """Arrays one after another in a few large ones.

    Forked workers share what nobody writes to, and Python writes to an object whenever it is used,
    to count its users. So there must be few objects with much in them, not one for each image.
    """

    def __init__(self) -> None:
        self.num_bytes = 0
        self._chunks: list[NDArray[np.uint8]] = []
        self._used = 0  # of the last chunk

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
    """A reader of files whose bytes are in memory."""

    memory: _Memory = field(default_factory=_Memory, repr=False, compare=False)
    places: dict[str, _Place] = field(default_factory=dict, repr=False, compare=False)

    def image(self, path: str | Path) -> NDArray[Any]:
        return self.decode_image(self._bytes(path), str(path))

    def mask(self, path: str | Path, *, all_channels: bool = False) -> NDArray[Any]:
        return self.decode_mask(self._bytes(path), str(path), all_channels=all_channels)

    def _bytes(self, path: str | Path) -> bytes:
        return self.memory.view(self.places[str(path)]).tobytes()


def _read_from(
    dataset: SegmentationDataset, memory: _Memory, places: dict[str, _Place]
) -> FileDataset:
    """The same dataset, its files read from memory."""
    assert isinstance(dataset, FileDataset)
    rules = {item.name: getattr(dataset.reader, item.name) for item in fields(Reader)}
    same = copy.copy(dataset)
    same.reader = _MemoryReader(**rules, memory=memory, places=places)
    return same


def _reads_whole_files(dataset: SegmentationDataset) -> bool:
    """Whether every image is a file, and read as the base class does it."""
    return isinstance(dataset, FileDataset) and (
        type(dataset).read_image is FileDataset.read_image and type(dataset.reader) is Reader
    )


def _paths(dataset: SegmentationDataset) -> dict[Path, None]:
    """Every file once, in the order of the samples."""
    assert isinstance(dataset, FileDataset)
    found = ((files.image, *files.masks) for files in dataset.files)
    return dict.fromkeys(path for paths in found for path in paths if path is not None)


def _read(path: Path) -> bytes:
    return _of_file(path, read_bytes)


def _file_size(path: Path) -> int:
    return _of_file(path, stamp)[0]


def _of_file(path: Path, ask: Callable[[Path], _R]) -> _R:
    try:
        return ask(path)
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read ({error})") from None


def _padded(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


def _spread(length: int, most: int) -> list[int]:
    """Indices of at most `most` samples, evenly over all of them."""
    return sorted({int(index) for index in np.linspace(0, length - 1, min(most, length))})


def _decoded_bytes(dataset: SegmentationDataset) -> float:
    """Bytes of a sample, on the average."""
    if not isinstance(dataset, FileDataset):
        chosen = [dataset[index] for index in _spread(len(dataset), _MOST_DECODED)]
        sizes = [_padded(sample.image.nbytes) + _padded(sample.target.nbytes) for sample in chosen]
        return float(np.mean(sizes))
    image, target, _ = dataset[0]
    pixels = image.shape[0] * image.shape[1]
    areas = [_area(dataset, index) for index in _spread(len(dataset), _MOST_HEADERS)]
    per_image, per_target = image.nbytes / pixels, target.nbytes / pixels
    return float(
        np.mean([_padded(round(a * per_image)) + _padded(round(a * per_target)) for a in areas])
    )


def _area(dataset: FileDataset, index: int) -> int:
    known = dataset.known_facts(index)
    if known is not None:
        height, width = known[0]
    elif _reads_whole_files(dataset):
        height, width = dataset.reader.size(dataset.files[index].image)
    else:
        height, width = dataset[index].target.shape[:2]
    return height * width


def _in_threads(
    action: Callable[[Any], _R], items: Iterable[Any], progress: Progress | None
) -> Iterator[_R]:
    # Reading and decoding happen outside the interpreter lock, so threads help.
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
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
