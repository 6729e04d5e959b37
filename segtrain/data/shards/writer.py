"""Write a dataset of files as tar shards, byte for byte, with an index beside them.

The tar files are written by webdataset. Each takes its name when it is whole, and the index comes
last; in between, a file beside them holds the lines of the shards that are done, and the next run
goes on from there.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from segtrain.data.dataset import SPLITS, FileDataset, SampleFacts, explain_shapes
from segtrain.data.io.storage import read_bytes
from segtrain.data.io.tar import Hashed, read_members
from segtrain.data.shards.index import (
    INDEX_SUFFIX,
    Shard,
    ShardSample,
    kind_of_facts,
    write_index,
)
from segtrain.data.shards.locations import check_installed
from segtrain.errors import ConfigError, DataError
from segtrain.files import atomic_write, write_text

_AT_A_TIME = 64  # samples whose bytes are in memory
_MOST_THREADS = 8
_MASK = "mask"
Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class ShardsReport:
    """What was written.

    Attributes:
        index: The index file.
        num_shards: Number of shards.
        num_samples: Samples in them.
        size: Their bytes.
        num_written: How many of the shards are new; an earlier run wrote the others.
    """

    index: Path
    num_shards: int
    num_samples: int
    size: int
    num_written: int


class _Packed(NamedTuple):
    """A sample ready to be written: bytes by suffix, and what is known of it."""

    key: str
    files: dict[str, bytes]
    suffixes: tuple[str | None, ...]
    described: SampleFacts


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

    The bytes of image and mask files go in as they are, but for masks that mean something only
    together with another file (panoptic ones): of those it is the raw values. Everything is decoded
    once, so nothing unreadable or outside the label contract gets into a shard.

    Args:
        dataset: What to write.
        output: The directory.
        prefix: The start of the names, such as the split.
        samples_per_shard: The most samples in a shard.
        max_bytes: The most bytes of files in a shard that holds more than one sample.
        seed: The samples are shuffled with it, since an epoch mixes few shards at a time; None:
            they stay in their order.
        progress: Called with the number of samples done and of all samples.

    Raises:
        ConfigError: When the extra is not installed, or `output` holds other shards of that prefix.
        DataError: When a file is missing, unreadable or outside the contract.
    """
    check_installed()
    for name, value in (("samples_per_shard", samples_per_shard), ("max_bytes", max_bytes)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
    folder = Path(output).expanduser()
    order = np.arange(len(dataset))
    if seed is not None:
        order = np.random.default_rng(seed).permutation(order)
    keys = _keys(dataset)
    limits = (samples_per_shard, max_bytes)
    heading = {
        "kind": kind_of_facts(dataset.labels, dataset.reader),
        "limits": list(limits),
        "samples": _fingerprint(dataset, [keys[index] for index in order]),
    }
    journal = _Journal(folder, prefix, heading)
    earlier = len(journal.shards)
    done = sum(len(shard.keys) for shard in journal.shards)
    samples = _packed(dataset, keys, order[done:])
    for group in _grouped(_counted(samples, progress, done, len(order)), *limits):
        journal.write(group)
    journal.close()
    shards = journal.shards
    size = sum(shard.size for shard in shards)
    return ShardsReport(journal.index, len(shards), len(order), size, len(shards) - earlier)


class _Journal:
    """The shards of a set that are done, on disk as they get done.

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
            self._go_on(found)
        strangers = sorted(
            file.name
            for file in folder.glob(f"{prefix}-*.tar")
            if file.name not in {self._name(number) for number in range(len(self.shards) + 1)}
        )
        if strangers:
            raise ConfigError(
                f"output={folder} holds {strangers[0]}, which is not of this set of shards; name"
                " another directory, or delete it"
            )

    def _go_on(self, file: Path) -> None:
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
                is_whole = Path(shard.place).stat().st_size == shard.size
            except (OSError, ValueError, KeyError, TypeError):
                break  # this one and those after it are written again
            if not is_whole:
                break
            self.lines.append(line)
            self.shards.append(shard)

    def _name(self, number: int) -> str:
        return f"{self.prefix}-{number:06d}.tar"

    def write(self, samples: Sequence[_Packed]) -> None:
        """Write one shard; it is there whole or not at all."""
        path = self.folder / self._name(len(self.shards))
        writer: Any = importlib.import_module("webdataset").TarWriter
        with atomic_write(path) as stream:
            hashed = Hashed(stream)
            # The format is that of GNU tar, for names of any length.
            with writer(hashed, encoder=False, compress=False, mtime=0, format="GNU_FORMAT") as tar:
                for sample in samples:
                    tar.write({"__key__": sample.key, **sample.files})
        members = read_members(path)  # also a check of what was written
        found = [
            ShardSample(
                sample.key,
                sample.suffixes,
                tuple(None if s is None else members[f"{sample.key}.{s}"] for s in sample.suffixes),
            )
            for sample in samples
        ]
        shard = Shard.of(str(path), path.stat().st_size, found, hashed.digest.hexdigest())
        shard = shard.with_facts([sample.described for sample in samples], self.heading["kind"])
        if not self.is_open:
            write_text(self.part, write_index(self.heading, self.lines))
            self.is_open = True
        self.shards.append(shard)
        self.lines.append(shard.to_line())
        with self.part.open("a", encoding="utf-8") as lines:
            lines.write(self.lines[-1] + "\n")

    def close(self) -> None:
        """Write the index: the set is complete."""
        write_text(self.index, write_index(self.heading, self.lines))
        self.part.unlink(missing_ok=True)


def _grouped(samples: Iterable[_Packed], most: int, max_bytes: int) -> Iterator[list[_Packed]]:
    """The samples of one shard after another."""
    group: list[_Packed] = []
    size = 0
    for sample in samples:
        more = sum(map(len, sample.files.values()))
        if group and (len(group) == most or size + more > max_bytes):
            yield group
            group, size = [], 0
        group.append(sample)
        size += more
    if group:
        yield group


def _counted(
    samples: Iterable[_Packed], progress: Progress | None, done: int, total: int
) -> Iterator[_Packed]:
    for number, sample in enumerate(samples, start=done + 1):
        if progress is not None:
            progress(number, total)
        yield sample


def _packed(
    dataset: FileDataset, keys: Sequence[str], order: NDArray[np.int64]
) -> Iterator[_Packed]:
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        for start in range(0, len(order), _AT_A_TIME):
            some = order[start : start + _AT_A_TIME].tolist()
            yield from pool.map(lambda index: _pack(dataset, index, keys[index]), some)


def _pack(dataset: FileDataset, index: int, key: str) -> _Packed:
    """The files of one sample, decoded once to see that they are whole and fit.

    Raises:
        DataError: When they are not, or do not.
    """
    files = dataset.files[index]
    image, mask = dataset.read_image(index), dataset.read_mask(index)
    facts = dataset.labels.count(mask)
    problem = explain_shapes(image.shape[:2], facts.shape, files, dataset.reader.exif)
    problem = problem or dataset.labels.explain(facts, str(files.mask))
    if problem is not None:
        raise DataError(problem)
    contents = {_suffix(files.image): _bytes(files.image)}
    suffixes: list[str | None] = list(contents)
    # A mask file of another class of dataset may mean nothing by itself.
    is_plain = type(dataset).read_mask is FileDataset.read_mask
    masks: Sequence[Any] = files.masks if is_plain else mask if isinstance(mask, list) else [mask]
    for number, given in enumerate(masks):
        word = f"{_MASK}.{number}" if len(masks) > 1 else _MASK
        if given is None:
            suffixes.append(None)
            continue
        ending, data = (_suffix(given), _bytes(given)) if is_plain else _encode(given)
        suffixes.append(f"{word}.{ending}")
        contents[f"{word}.{ending}"] = data
    height, width = image.shape[:2]
    return _Packed(key, contents, tuple(suffixes), ((int(height), int(width)), facts))


def _encode(mask: NDArray[Any]) -> tuple[str, bytes]:
    """Raw values in a file of their own, and its suffix."""
    stream = io.BytesIO()
    least, most = int(mask.min(initial=0)), int(mask.max(initial=0))
    if least >= 0 and most <= 65535 and mask.ndim == 2:
        dtype = np.uint8 if most <= 255 else np.uint16
        Image.fromarray(np.ascontiguousarray(mask, dtype=dtype)).save(stream, format="PNG")
        return "png", stream.getvalue()
    np.save(stream, mask)
    return "npy", stream.getvalue()


def _bytes(path: Path) -> bytes:
    try:
        return read_bytes(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _suffix(path: Path) -> str:
    return path.suffix.lower().removeprefix(".")


def _keys(dataset: FileDataset) -> list[str]:
    """A key for every sample: its name, without the dot that ends a key."""
    keys: dict[str, str] = {}
    for files in dataset.files:
        folder, slash, name = files.name.rpartition("/")
        key = f"{folder}{slash}{name.replace('.', '_')}"
        if key in keys:
            raise DataError(
                f"the samples {keys[key]!r} and {files.name!r} would both be {key!r} in a shard, as"
                " a key has no dot; rename one"
            )
        keys[key] = files.name
    return list(keys)


def _fingerprint(dataset: FileDataset, keys: Sequence[str]) -> str:
    """What is the same in two runs that write the same samples in the same order."""
    digest = hashlib.sha256("\n".join(keys).encode())
    for files in dataset.files:
        digest.update(str(files.image.absolute()).encode())
    return digest.hexdigest()


def write_config(dataset: FileDataset, output: str | Path, title: str) -> str:
    """Write a dataset config for shards in `output`, with the contract of `dataset`; its name."""
    labels, reader = dataset.labels, dataset.reader
    folder = Path(output).expanduser().absolute()
    name = "".join(c if c.isalnum() or c in "-_" else "_" for c in title) + "_shards"
    content = {
        "name": "webdataset",
        "title": title,
        "root": str(folder),
        **{split: {"shards": f"{split}{INDEX_SUFFIX}"} for split in SPLITS},
        "num_classes": labels.num_classes,
        "class_names": list(labels.names),
        "ignore_label": labels.ignore_label,
        "label_map": labels.label_map,
        "palette": labels.palette,
        "multi_label": labels.multi_label,
        "flip_pairs": labels.flip_pairs,
        "channels": reader.channels,
        "value_range": reader.value_range,
        "exif": reader.exif,
        "max_pixels": reader.max_pixels,
    }
    plain = json.loads(json.dumps({**content, "label_map": None}))
    if labels.label_map is not None:  # JSON would make texts of its keys
        given = labels.label_map
        plain["label_map"] = dict(given) if isinstance(given, Mapping) else list(given)
    text = "# Written with the shards. They may be copied elsewhere; root may be a URL too.\n"
    text += yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, default_flow_style=None)
    write_text(folder / "dataset" / f"{name}.yaml", text)
    return name
