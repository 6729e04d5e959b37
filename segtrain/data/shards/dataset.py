"""Data sets in tar shards, on disk or behind a URL, read sample by sample.

Shards are plain tar archives in the layout of webdataset: ``KEY.jpg`` beside ``KEY.mask.png``. Of
that package its way of naming shards is used here and its writer in
:mod:`segtrain.data.shards.writer`; the reading is our own, as its readers are streams, in which a
sample has no number, so that neither a step could be found again nor a mask be asked for, and some
of whose URLs are shell commands.
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
from segtrain.data.shards.index import Kinds, Shard, kind_of_facts
from segtrain.data.shards.locations import Shelf, check_installed, list_places, load_shards
from segtrain.data.shards.order import shard_order
from segtrain.errors import ConfigError, DataError
from segtrain.files import cache_dir as default_cache_dir

IMAGE_KINDS = "jpg;jpeg;png;webp;tif;tiff;bmp;npy"
MASK_KINDS = "mask.*;seg.*"
_UNIT = 10**9
_ATTEMPTS = 5  # a copy may be gone again before it is opened
Places = Mapping[str, str | Sequence[str]]


@DATASETS.register("webdataset")
class ShardDataset(ConfiguredDataset):
    """Images and masks in tar shards, in the layout of webdataset.

    A shard holds ``KEY.jpg`` and ``KEY.mask.png`` for every sample. Shards that ``segtrain shards``
    wrote have an index beside them; others are looked through once.

    Args:
        train: ``shards`` of the training split: an index (``train-index.jsonl``), or shards as a
            path, a glob, a range in braces (``train-{000000..000099}.tar``), a URL, or a list of
            them. What is relative is below `root`, which may be a URL too.
        val: The same for the validation split.
        root: The directory or URL of the shards.
        image: What follows the key of an image, in the order of preference, between semicolons;
            ``*`` stands for anything. For shards without an index.
        mask: Likewise of a mask. With ``multi_label`` there may be a mask for each class,
            ``KEY.mask.CLASS.png``.
        streams: How many shards an epoch mixes at a time. More is more random; a process reads
            from ``streams / processes`` shards at a time.
        cache_dir: Where copies of remote shards are kept; a folder of their own by default.
        cache_size_gb: The most that they may take, in 1e9 bytes; None: no limit.
        **common: See :class:`~segtrain.data.datasets.configured.ConfiguredDataset`.

    Raises:
        ConfigError: When the extra is not installed, the split is not configured, or the cache is
            smaller than what is read at a time.
        DataError: When a shard is missing, truncated or damaged, or a sample has no mask.
    """

    def __init__(
        self,
        *,
        train: Places | None = None,
        val: Places | None = None,
        root: str = ".",
        image: str = IMAGE_KINDS,
        mask: str = MASK_KINDS,
        streams: int = 16,
        cache_dir: str | None = None,
        cache_size_gb: float | None = 50.0,
        **common: Any,
    ) -> None:
        check_installed()
        if streams < 1:
            raise ConfigError(f"dataset.streams must be at least 1, got {streams}")
        if cache_size_gb is not None and cache_size_gb <= 0:
            raise ConfigError(f"dataset.cache_size_gb must be above 0, got {cache_size_gb}")
        folder = default_cache_dir() / "copies" if cache_dir is None else Path(cache_dir)
        limit = None if cache_size_gb is None else int(cache_size_gb * _UNIT)
        self.cache = ShardCache(folder.expanduser(), limit)
        self.places = {"train": train, "val": val}
        self.base, self.streams = root, streams
        self.kinds = (_words("image", image), _words("mask", mask))
        self.shards: list[Shard] = []
        self.starts = np.zeros(1, np.int64)  # of the first sample of each shard, before any left
        self.kept = np.zeros(0, np.int64)  # the samples that are not left out
        super().__init__(root=root, **common)

    def find(self) -> Sequence[SampleFiles]:
        hint = "an index such as train-index.jsonl, or shards such as train-{000000..000099}.tar"
        places = self.given(self.places[self.split], ("shards",), hint, needed=1)
        names = self.labels.names if self.labels.multi_label else None
        shelf = Shelf(Kinds(*self.kinds, names), self.cache, self._look, self._kind())
        listed = list_places(self.base, places["shards"], self.split)
        self.shards, problems = load_shards(listed, shelf)
        if problems and self.max_bad == 0:
            more = f" ({len(problems) - 1} more samples are like that)" if problems[1:] else ""
            raise DataError(problems[0] + more)
        self.left_out += problems
        self.starts = np.cumsum([0, *(len(shard.keys) for shard in self.shards)])
        self.kept = np.arange(self.starts[-1])
        if not len(self.kept):
            raise DataError(
                f"dataset.{self.split}.shards: no sample in {len(self.shards)} shards; say with"
                " dataset.image and dataset.mask what images and masks are called"
            )
        self._check_cache()
        return _Files(self.shards, self.starts, self.kept)

    def _remote_sizes(self) -> list[int]:
        return [shard.size for shard in self.shards if is_url(shard.place)]

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
        """Refuse an order of the samples that asks for all shards all the time.

        Args:
            key: What asks for it, for the message.

        Raises:
            ConfigError: When the shards are remote and more than the cache holds.
        """
        total, limit = sum(self._remote_sizes()), self.cache.limit
        if limit is not None and total > limit:
            raise ConfigError(
                f"{key} takes samples from all shards all the time, {total / _UNIT:.3g} GB of them,"
                f" and dataset.cache_size_gb={limit / _UNIT:g} holds less; raise it, or leave {key}"
                " out"
            )

    def spare_shards(self, world_size: int) -> int:
        """How many more shards than those in use each process may have at hand; 0 on disk."""
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

    def known_facts(self, index: int) -> SampleFacts | None:
        shard, row = self._locate(index)
        known = shard.facts(row, self._kind())
        if known is None and is_url(shard.place):  # a scan cannot open its files by itself
            return self._look(shard, row)
        return known

    def keep(self, indices: Sequence[int]) -> None:
        self.kept = self.kept[np.asarray(indices, dtype=np.int64)]
        self.files = _Files(self.shards, self.starts, self.kept)

    def epoch_order(self, seed: int, epoch: int, group: int) -> NDArray[np.int64]:
        """The order of an epoch, in which every process needs few shards at a time.

        Args:
            seed: The seed of the run.
            epoch: From 0.
            group: Samples that the processes share out at a time, each a part in one piece.
        """
        starts = np.searchsorted(self.kept, self.starts)
        return shard_order(starts, self.streams, seed=seed, epoch=epoch, group=group)

    def fetch(self, index: int) -> None:
        """Have the shard of a sample at hand, on disk."""
        shard, _ = self._locate(index)
        self._path(shard)

    def shard_of(self, index: int) -> int:
        """The number of the shard of a sample."""
        return int(np.searchsorted(self.starts, self.kept[index], side="right")) - 1

    def _locate(self, index: int) -> tuple[Shard, int]:
        return _locate(self.shards, self.starts, int(self.kept[index]))

    def _image(self, shard: Shard, row: int, path: Path | None = None) -> NDArray[Any]:
        return self.reader.decode_image(*self._read(shard, row, 0, path))

    def _mask(
        self, shard: Shard, row: int, path: Path | None = None
    ) -> NDArray[Any] | list[NDArray[Any]]:
        masks = [
            None if suffix is None else number
            for number, suffix in enumerate(shard.suffixes[row][1:], start=1)
        ]

        def read(number: int, *, all_channels: bool = False) -> NDArray[Any]:
            data, name = self._read(shard, row, number, path)
            return self.reader.decode_mask(data, name, all_channels=all_channels)

        def image_size() -> tuple[int, int]:
            height, width = self._image(shard, row, path).shape[:2]
            return int(height), int(width)

        return read_masks(masks, read, image_size, multi_label=self.labels.multi_label)

    def _look(self, shard: Shard, row: int, path: Path | None = None) -> SampleFacts:
        height, width = self._image(shard, row, path).shape[:2]
        return (int(height), int(width)), self.labels.count(self._mask(shard, row, path))

    def _kind(self) -> str:
        return kind_of_facts(self.labels, self.reader)

    def _read(
        self, shard: Shard, row: int, number: int, path: Path | None = None
    ) -> tuple[bytes, str]:
        """The bytes of a member, and its name for messages.

        Args:
            shard: Its shard.
            row: The number of the sample in it.
            number: 0 for the image, 1 and more for masks.
            path: Where the shard is, if that is known.
        """
        member = shard.member(row, number)
        assert member is not None
        name = f"{shown(shard.place)}/{shard.file(row, number)}"
        for attempt in range(_ATTEMPTS):
            try:
                return read_range(path or self._path(shard), member), name
            except FileNotFoundError:
                if not is_url(shard.place) or attempt == _ATTEMPTS - 1:
                    raise DataError(
                        f"{name}: the shard does not exist any more; put it back, or take it out of"
                        f" dataset.{self.split}.shards"
                    ) from None
            except OSError as error:
                raise DataError(
                    f"{name}: the sample cannot be read ({error}); fetch or write the shard again"
                ) from error
        raise AssertionError

    def _path(self, shard: Shard) -> Path:
        if is_url(shard.place):
            return self.cache.path(shard.place, shard.size, shard.digest)
        return Path(shard.place)


class _Files(Sequence[SampleFiles]):
    """The files of every sample, made when asked for: there may be many millions."""

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
        shard, row = _locate(self.shards, self.starts, int(self.kept[index]))
        place = Path(shown(shard.place))
        image, *masks = (
            None if (file := shard.file(row, number)) is None else place / file
            for number in range(len(shard.suffixes[row]))
        )
        assert image is not None
        return SampleFiles(image, tuple(masks), str(shard.keys[row]))


def _locate(shards: Sequence[Shard], starts: NDArray[np.int64], position: int) -> tuple[Shard, int]:
    number = int(np.searchsorted(starts, position, side="right")) - 1
    return shards[number], position - int(starts[number])


def _words(key: str, given: str) -> tuple[str, ...]:
    words = tuple(word.strip().removeprefix(".") for word in given.split(";"))
    if not all(words):
        raise ConfigError(
            f"dataset.{key}={given!r} must be suffixes between semicolons, as jpg;png"
        )
    return words
