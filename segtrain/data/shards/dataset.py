"""Datasets in tar shards, on disk or at a URL, read sample by sample.

Shards are uncompressed tar archives in the layout of webdataset: ``KEY.jpg`` and ``KEY.mask.png``.
The package webdataset writes them (:mod:`segtrain.data.shards.writer`), but does not read them
here: its readers are streams, in which a sample has no index. A run could then not resume at a
step, and a single mask could not be read. Some of its URLs also run shell commands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from segtrain.data.dataset import DATASETS, SampleFacts, SampleFiles, read_masks
from segtrain.data.datasets.configured import ConfiguredDataset
from segtrain.data.io.remote import is_url, shown
from segtrain.data.io.tar import read_range
from segtrain.data.shards.cache import ShardCache
from segtrain.data.shards.catalog import ShardScanner, load_shards
from segtrain.data.shards.index import Shard, facts_key
from segtrain.data.shards.locations import check_installed, list_locations
from segtrain.data.shards.order import evaluation_part, shard_order
from segtrain.data.shards.samples import MemberPatterns
from segtrain.errors import ConfigError, DataError
from segtrain.files import cache_dir as default_cache_dir

IMAGE_KINDS = "jpg;jpeg;png;webp;tif;tiff;bmp;npy"
MASK_KINDS = "mask.*;seg.*"
_UNIT = 10**9
_ATTEMPTS = 5  # another process may delete a copy before it is opened
SplitShards = Mapping[str, str | Sequence[str]]


@DATASETS.register("webdataset")
class ShardDataset(ConfiguredDataset):
    """Images and masks in tar shards, in the layout of webdataset.

    A shard holds ``KEY.jpg`` and ``KEY.mask.png`` for each sample, and ``KEY.valid.png`` if some of
    its pixels do not count (see :meth:`~segtrain.data.Reader.valid`). Shards that ``segtrain
    shards`` wrote come with an index; the headers of other shards are read once.

    Args:
        train: ``shards`` of the training split: an index (``train-index.jsonl``), or shards as a
            path, a glob, a range in braces (``train-{000000..000099}.tar``), a URL, or a list of
            these. Relative paths start from `root`.
        val: The same for the validation split.
        test: The same for the test split; None: there is no test split.
        root: Directory or URL of the shards.
        image: Suffixes of images in shards without an index, in order of preference, separated by
            semicolons; ``*`` matches anything.
        mask: The same for masks. With ``multi_label`` a sample may have one mask per class,
            ``KEY.mask.CLASS.png``.
        streams: Number of shards that an epoch mixes at a time; a process reads from ``streams /
            processes`` shards at a time. More streams make the order more random.
        cache_dir: Folder for copies of remote shards; by default a folder in the user's cache.
        cache_size_gb: Size limit of that folder, in 1e9 bytes; None for no limit.
        **common: See :class:`~segtrain.data.datasets.configured.ConfiguredDataset`.

    Raises:
        ConfigError: When the extra is not installed, the split is not configured, `folds` is set,
            or the cache is smaller than the shards that are read at a time.
        DataError: When a shard is missing, truncated or damaged, or a sample has no mask.
    """

    def __init__(
        self,
        *,
        train: SplitShards | None = None,
        val: SplitShards | None = None,
        test: SplitShards | None = None,
        root: str = ".",
        image: str = IMAGE_KINDS,
        mask: str = MASK_KINDS,
        streams: int = 16,
        cache_dir: str | None = None,
        cache_size_gb: float | None = 50.0,
        **common: Any,
    ) -> None:
        check_installed()
        if common.get("folds") is not None:
            raise ConfigError(
                f"dataset.folds={common['folds']} needs a dataset of files, but this one reads"
                " shards; train on the files that the shards were written from, or write the two"
                " splits of each fold with segtrain shards"
            )
        if streams < 1:
            raise ConfigError(f"dataset.streams must be at least 1, got {streams}")
        if cache_size_gb is not None and cache_size_gb <= 0:
            raise ConfigError(f"dataset.cache_size_gb must be above 0, got {cache_size_gb}")
        folder = default_cache_dir() / "copies" if cache_dir is None else Path(cache_dir)
        limit = None if cache_size_gb is None else int(cache_size_gb * _UNIT)
        self.cache = ShardCache(folder.expanduser(), limit)
        self.sections = {"train": train, "val": val, "test": test}
        self.base, self.streams = root, streams
        self.patterns = (_suffixes("image", image), _suffixes("mask", mask))
        self.shards: list[Shard] = []
        self.starts = np.zeros(1, np.int64)  # position of the first sample of each shard
        self.kept = np.zeros(0, np.int64)  # positions of the samples that are not left out
        super().__init__(root=root, **common)

    def find(self) -> Sequence[SampleFiles]:
        hint = "an index such as train-index.jsonl, or shards such as train-{000000..000099}.tar"
        given = self.check_section(self.sections[self.split], ("shards",), hint, needed=1)
        names = self.labels.names if self.labels.multi_label else None
        patterns = MemberPatterns(*self.patterns, names)
        scanner = ShardScanner(patterns, self.cache, self._read_facts, self._facts_key())
        locations = list_locations(self.base, given["shards"], self.split)
        self.shards, problems = load_shards(locations, scanner)
        if problems and self.max_bad == 0:
            more = f" ({len(problems) - 1} more samples have problems)" if problems[1:] else ""
            raise DataError(problems[0] + more)
        self.left_out += problems
        self.starts = np.cumsum([0, *(len(shard.keys) for shard in self.shards)])
        self.kept = np.arange(self.starts[-1])
        if not len(self.kept):
            raise DataError(
                f"dataset.{self.split}.shards: no sample in {len(self.shards)} shards; set"
                " dataset.image and dataset.mask to the suffixes of images and masks"
            )
        self._check_cache()
        return _Files(self.shards, self.starts, self.kept)

    def _remote_sizes(self) -> list[int]:
        return [shard.size for shard in self.shards if is_url(shard.location)]

    def _check_cache(self) -> None:
        sizes, limit = self._remote_sizes(), self.cache.limit
        if not sizes or limit is None:
            return
        at_a_time = min(self.streams, len(sizes)) if self.split == "train" else 1
        need = max(sizes) * at_a_time
        if need > limit:
            raise ConfigError(
                f"dataset.cache_size_gb={limit / _UNIT:g} is less than the {at_a_time} shards of up"
                f" to {max(sizes) / _UNIT:.2g} GB that are read at a time; set it to"
                f" {float(f'{1.1 * need / _UNIT:.2g}'):g} or more, or lower dataset.streams"
            )

    def check_random_access(self, key: str) -> None:
        """Check that the cache holds all remote shards, for an order that needs them all the time.

        Args:
            key: The configuration key that sets this order, for the message.

        Raises:
            ConfigError: When the shards are larger than the cache.
        """
        total, limit = sum(self._remote_sizes()), self.cache.limit
        if limit is not None and total > limit:
            raise ConfigError(
                f"{key} takes samples from all shards all the time. They have {total / _UNIT:.3g}"
                f" GB, more than dataset.cache_size_gb={limit / _UNIT:g}; raise it, or leave {key}"
                " out"
            )

    def spare_shards(self, world_size: int) -> int:
        """Return how many shards each process may fetch in advance; 0 if none are remote."""
        sizes, limit = self._remote_sizes(), self.cache.limit
        if not sizes:
            return 0
        if limit is None:
            return self.streams
        room = limit // max(*sizes, 1) - min(self.streams, len(sizes))
        return int(min(max(room, 0) // world_size, self.streams))

    # ------------------------------------------------------------------ samples

    def read_image(self, index: int) -> NDArray[Any]:
        return self._image(*self._locate(index))

    def read_mask(self, index: int) -> NDArray[Any] | list[NDArray[Any]]:
        return self._mask(*self._locate(index))

    def read_valid(self, index: int) -> NDArray[np.bool_] | None:
        return self._valid(*self._locate(index))

    def known_facts(self, index: int) -> SampleFacts | None:
        shard, row = self._locate(index)
        known = shard.facts(row, self._facts_key())
        if known is None and is_url(shard.location):  # the scan itself cannot open remote files
            return self._read_facts(shard, row)
        return known

    def known_hashes(self) -> list[str]:
        texts = []
        for index in range(len(self)):
            shard, row = self._locate(index)
            content = shard.digest or f"{Path(shard.location).name} {shard.size}"
            texts.append(f"{shard.keys[row]} {content}")
        return texts

    def keep(self, indices: Sequence[int]) -> None:
        self.kept = self.kept[np.asarray(indices, dtype=np.int64)]
        self.files = _Files(self.shards, self.starts, self.kept)

    def epoch_order(self, seed: int, epoch: int, group: int) -> NDArray[np.int64]:
        """Return the order of an epoch, in which every process needs few shards at a time.

        Args:
            seed: The seed of the run.
            epoch: Number of the epoch, from 0.
            group: Number of samples that the processes divide at a time, in consecutive parts.
        """
        starts = np.searchsorted(self.kept, self.starts)
        return shard_order(starts, self.streams, seed=seed, epoch=epoch, group=group)

    def evaluation_part(self, length: int, rank: int, nodes: Sequence[int]) -> Sequence[int]:
        starts = np.minimum(np.searchsorted(self.kept, self.starts), length)
        return evaluation_part(starts, rank, nodes)

    def fetch(self, index: int) -> None:
        """Fetch the shard of a sample if it is remote and not in the cache."""
        shard, _ = self._locate(index)
        self._path(shard)

    def shard_of(self, index: int) -> int:
        """Return the index of the shard that holds a sample."""
        return int(np.searchsorted(self.starts, self.kept[index], side="right")) - 1

    def _locate(self, index: int) -> tuple[Shard, int]:
        return _locate(self.shards, self.starts, int(self.kept[index]))

    def _image(self, shard: Shard, row: int, path: Path | None = None) -> NDArray[Any]:
        return self.reader.decode_image(*self._read(shard, row, 0, path))

    def _mask(
        self, shard: Shard, row: int, path: Path | None = None
    ) -> NDArray[Any] | list[NDArray[Any]]:
        def read(number: int, *, all_channels: bool = False) -> NDArray[Any]:
            data, name = self._read(shard, row, number, path)
            return self.reader.decode_mask(data, name, all_channels=all_channels)

        def image_size() -> tuple[int, int]:
            height, width = self._image(shard, row, path).shape[:2]
            return int(height), int(width)

        masks = shard.masks(row)
        return read_masks(masks, read, image_size, multi_label=self.labels.multi_label)

    def _valid(self, shard: Shard, row: int, path: Path | None = None) -> NDArray[np.bool_] | None:
        number = shard.valid(row)
        return (
            None
            if number is None
            else self.reader.decode_valid(*self._read(shard, row, number, path))
        )

    def _read_facts(self, shard: Shard, row: int, path: Path | None = None) -> SampleFacts:
        shape = self._image(shard, row, path).shape
        mask, valid = self._mask(shard, row, path), self._valid(shard, row, path)
        facts = self.count_valid(mask, valid, _sample_files(shard, row), lambda: shape)
        return (int(shape[0]), int(shape[1])), facts

    def _facts_key(self) -> str:
        return facts_key(self.labels, self.reader)

    def _read(
        self, shard: Shard, row: int, number: int, path: Path | None = None
    ) -> tuple[bytes, str]:
        """Return the bytes of a member, and its name for messages.

        Args:
            shard: The shard.
            row: Number of the sample in the shard.
            number: 0 for the image, 1 and more for the other files.
            path: Path of the archive; None to look it up, and to fetch it if it is remote.
        """
        member = shard.member(row, number)
        assert member is not None
        name = f"{shown(shard.location)}/{shard.file(row, number)}"
        for attempt in range(_ATTEMPTS):
            try:
                return read_range(path or self._path(shard), member), name
            except FileNotFoundError:
                if not is_url(shard.location) or attempt == _ATTEMPTS - 1:
                    raise DataError(
                        f"{name}: the shard does not exist any more; restore it, or remove it from"
                        f" dataset.{self.split}.shards"
                    ) from None
            except OSError as error:
                raise DataError(
                    f"{name}: the sample cannot be read ({error}); fetch or write the shard again"
                ) from error
        raise AssertionError

    def _path(self, shard: Shard) -> Path:
        if is_url(shard.location):
            return self.cache.path(shard.location, shard.size, shard.digest)
        return Path(shard.location)


class _Files(Sequence[SampleFiles]):
    """The files of all samples, created on access because there may be many millions."""

    def __init__(
        self, shards: Sequence[Shard], starts: NDArray[np.int64], kept: NDArray[np.int64]
    ) -> None:
        self.shards, self.starts, self.kept = shards, starts, kept

    def __len__(self) -> int:
        return len(self.kept)

    @overload
    def __getitem__(self, index: int) -> SampleFiles: ...
    @overload
    def __getitem__(self, index: slice) -> list[SampleFiles]: ...
    def __getitem__(self, index: int | slice) -> SampleFiles | list[SampleFiles]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        return _sample_files(*_locate(self.shards, self.starts, int(self.kept[index])))


def _sample_files(shard: Shard, row: int) -> SampleFiles:
    archive = Path(shown(shard.location))
    files = [
        None if (file := shard.file(row, number)) is None else archive / file
        for number in range(len(shard.suffixes[row]))
    ]
    masks = tuple(None if number is None else files[number] for number in shard.masks(row))
    valid = shard.valid(row)
    assert files[0] is not None
    return SampleFiles(
        files[0], masks, str(shard.keys[row]), None if valid is None else files[valid]
    )


def _locate(shards: Sequence[Shard], starts: NDArray[np.int64], position: int) -> tuple[Shard, int]:
    number = int(np.searchsorted(starts, position, side="right")) - 1
    return shards[number], position - int(starts[number])


def _suffixes(key: str, given: str) -> tuple[str, ...]:
    suffixes = tuple(suffix.strip().removeprefix(".") for suffix in given.split(";"))
    if not all(suffixes):
        raise ConfigError(
            f"dataset.{key}={given!r} must be suffixes separated by semicolons, such as jpg;png"
        )
    return suffixes
