"""Write a dataset of files as tar shards with an index; the bytes of the files stay the same.

The tar files are written by webdataset. A shard gets its final name when it is complete, and the
index is written last. Until then a journal next to the shards holds their lines of the index, so
that an interrupted run can be resumed.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segtrain.data.dataset import FileDataset
from segtrain.data.io.tar import Hashed, read_members
from segtrain.data.shards.index import INDEX_SUFFIX, Shard, facts_key, index_text
from segtrain.data.shards.locations import check_installed
from segtrain.data.shards.packing import PackedSample, fingerprint, pack_samples, sample_keys
from segtrain.data.shards.samples import ShardSample
from segtrain.errors import ConfigError
from segtrain.files import atomic_write, write_text

Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class ShardsReport:
    """Result of :func:`make_shards`.

    Attributes:
        index: The index file.
        num_shards: Number of shards.
        num_samples: Number of samples in them.
        size: Number of bytes in them.
        num_written: Number of shards written by this run; an earlier run wrote the others.
    """

    index: Path
    num_shards: int
    num_samples: int
    size: int
    num_written: int


def make_shards(
    dataset: FileDataset,
    output: str | Path,
    prefix: str,
    *,
    samples_per_shard: int = 1000,
    max_bytes: int = 10**9,
    seed: int | None = 0,
    progress: Progress | None = None,
) -> ShardsReport:
    """Write `dataset` as ``PREFIX-000000.tar``, ... and ``PREFIX-index.jsonl``.

    Image and mask files are copied byte for byte. Masks that need another file to be understood
    (panoptic masks) are written as their raw values instead. Every file is decoded once, so that a
    shard holds nothing unreadable and nothing outside the label contract.

    Args:
        dataset: The dataset.
        output: Directory of the shards.
        prefix: Start of the file names, such as the split.
        samples_per_shard: Maximum number of samples in a shard.
        max_bytes: Maximum size of the files in a shard; a single sample may exceed it.
        seed: Seed of the order of the samples, which are shuffled because an epoch mixes few shards
            at a time. None keeps the order of the dataset.
        progress: Called with the number of samples written and the number of all samples.

    Raises:
        ConfigError: When the extra is not installed, or `output` holds other shards of that prefix.
        DataError: When a file is missing, unreadable or outside the label contract.
    """
    check_installed()
    for name, value in (("samples_per_shard", samples_per_shard), ("max_bytes", max_bytes)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
    order = np.arange(len(dataset))
    if seed is not None:
        order = np.random.default_rng(seed).permutation(order)
    keys = sample_keys(dataset)
    limits = (samples_per_shard, max_bytes)
    heading = {
        "kind": facts_key(dataset.labels, dataset.reader),
        "limits": list(limits),
        "samples": fingerprint(dataset, [keys[index] for index in order]),
    }
    journal = _Journal(Path(output).expanduser(), prefix, heading)
    earlier = len(journal.shards)
    done = sum(len(shard.keys) for shard in journal.shards)
    samples = pack_samples(dataset, keys, order[done:])
    for group in _grouped(_counted(samples, progress, done, len(order)), *limits):
        journal.write(group)
    journal.close()
    shards = journal.shards
    size = sum(shard.size for shard in shards)
    return ShardsReport(journal.index, len(shards), len(order), size, len(shards) - earlier)


class _Journal:
    """The complete shards of a set, recorded on disk as they are written.

    Args:
        folder: Directory of the shards.
        prefix: Start of their names.
        heading: Heading of the index; an earlier run is resumed if it had the same.

    Raises:
        ConfigError: When the directory holds shards of another set.
    """

    def __init__(self, folder: Path, prefix: str, heading: dict[str, Any]) -> None:
        self.folder, self.prefix, self.heading = folder, prefix, heading
        self.index = folder / f"{prefix}{INDEX_SUFFIX}"
        self.part = folder / f".{prefix}{INDEX_SUFFIX}.part"
        self.lines: list[str] = []
        self.shards: list[Shard] = []
        self.is_open = False
        folder.mkdir(parents=True, exist_ok=True)
        found = next((file for file in (self.index, self.part) if file.is_file()), None)
        if found is not None:
            self._resume(found)
        others = sorted(
            file.name
            for file in folder.glob(f"{prefix}-*.tar")
            if file.name not in {self._name(number) for number in range(len(self.shards) + 1)}
        )
        if others:
            raise ConfigError(
                f"output={folder} holds {others[0]}, which is not of this set of shards; name"
                " another directory, or delete it"
            )

    def _resume(self, file: Path) -> None:
        """Take over the shards of an earlier run up to the first that is missing or incomplete."""
        first, *lines = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        try:
            heading = json.loads(first)
            same = all(heading[key] == value for key, value in self.heading.items())
        except (ValueError, KeyError, TypeError):
            same = False
        if not same:
            raise ConfigError(
                f"{file} is of other samples, or was written with other settings; name another"
                f" output, or delete {self.prefix}-*.tar and {file.name}"
            )
        for line in lines:
            try:
                shard = Shard.from_line(line, f"{self.folder}/")
                is_whole = Path(shard.location).stat().st_size == shard.size
            except (OSError, ValueError, KeyError, TypeError):
                break
            if not is_whole:
                break
            self.lines.append(line)
            self.shards.append(shard)

    def _name(self, number: int) -> str:
        return f"{self.prefix}-{number:06d}.tar"

    def write(self, samples: Sequence[PackedSample]) -> None:
        """Write one shard; it appears under its name only when it is complete."""
        path = self.folder / self._name(len(self.shards))
        writer: Any = importlib.import_module("webdataset").TarWriter
        with atomic_write(path) as stream:
            hashed = Hashed(stream)
            # The GNU format allows names of any length.
            with writer(hashed, encoder=False, compress=False, mtime=0, format="GNU_FORMAT") as tar:
                for sample in samples:
                    tar.write({"__key__": sample.key, **sample.files})
        members = read_members(path)  # also checks the file that was written
        found = [
            ShardSample(
                sample.key,
                sample.suffixes,
                tuple(None if s is None else members[f"{sample.key}.{s}"] for s in sample.suffixes),
            )
            for sample in samples
        ]
        shard = Shard.of(str(path), path.stat().st_size, found, hashed.digest.hexdigest())
        shard = shard.with_facts([sample.facts for sample in samples], self.heading["kind"])
        if not self.is_open:
            write_text(self.part, index_text(self.heading, self.lines))
            self.is_open = True
        self.shards.append(shard)
        self.lines.append(shard.to_line())
        with self.part.open("a", encoding="utf-8") as lines:
            lines.write(self.lines[-1] + "\n")

    def close(self) -> None:
        """Write the index and remove the journal: the set is complete."""
        write_text(self.index, index_text(self.heading, self.lines))
        self.part.unlink(missing_ok=True)


def _grouped(
    samples: Iterable[PackedSample], max_samples: int, max_bytes: int
) -> Iterator[list[PackedSample]]:
    """Group the samples by shard."""
    group: list[PackedSample] = []
    size = 0
    for sample in samples:
        more = sum(map(len, sample.files.values()))
        if group and (len(group) == max_samples or size + more > max_bytes):
            yield group
            group, size = [], 0
        group.append(sample)
        size += more
    if group:
        yield group


def _counted(
    samples: Iterable[PackedSample], progress: Progress | None, done: int, total: int
) -> Iterator[PackedSample]:
    for number, sample in enumerate(samples, start=done + 1):
        if progress is not None:
            progress(number, total)
        yield sample
