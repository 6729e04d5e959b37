"""Samples as they go into a shard: checked, with the bytes of their files."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segtrain.data.dataset import FileDataset, SampleFacts, explain_shapes
from segtrain.data.io.storage import read_bytes
from segtrain.data.shards.samples import VALID
from segtrain.errors import DataError

_CHUNK = 64  # samples whose bytes are in memory
_MAX_THREADS = 8
_MASK = "mask"


class PackedSample(NamedTuple):
    """A sample ready to be written.

    Attributes:
        key: Its key in the shard.
        files: Bytes by suffix.
        suffixes: Suffixes of image, masks and valid file, see
            :class:`~segtrain.data.shards.samples.ShardSample`.
        facts: Size of the image and content of the mask.
    """

    key: str
    files: dict[str, bytes]
    suffixes: tuple[str | None, ...]
    facts: SampleFacts


def pack_samples(
    dataset: FileDataset, keys: Sequence[str], order: NDArray[np.int64]
) -> Iterator[PackedSample]:
    """Pack the samples of `dataset` in `order`, several at a time in threads.

    Args:
        dataset: The dataset.
        keys: Key of each sample.
        order: Indices of the samples to pack.

    Raises:
        DataError: When a file is missing, unreadable or outside the label contract.
    """
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        for start in range(0, len(order), _CHUNK):
            chunk = order[start : start + _CHUNK].tolist()
            yield from pool.map(lambda index: _pack(dataset, index, keys[index]), chunk)


def _pack(dataset: FileDataset, index: int, key: str) -> PackedSample:
    """Read the files of one sample; they are decoded to check them."""
    files = dataset.files[index]
    image, mask = dataset.read_image(index), dataset.read_mask(index)
    facts = dataset.count_valid(mask, dataset.read_valid(index), files, lambda: image.shape)
    problem = explain_shapes(image.shape, facts.shape, files, dataset.reader.turns)
    problem = problem or dataset.labels.explain(facts, str(files.mask))
    if problem is not None:
        raise DataError(problem)
    contents = {_suffix(files.image): _read(files.image)}
    suffixes: list[str | None] = list(contents)
    # The mask file of a dataset with its own `read_mask` may mean nothing without another file.
    is_plain = type(dataset).read_mask is FileDataset.read_mask
    masks: Sequence[Any] = files.masks if is_plain else mask if isinstance(mask, list) else [mask]
    for number, given in enumerate(masks):
        stem = f"{_MASK}.{number}" if len(masks) > 1 else _MASK
        if given is None:
            suffixes.append(None)
            continue
        suffix, data = (_suffix(given), _read(given)) if is_plain else _encode(given)
        suffixes.append(f"{stem}.{suffix}")
        contents[f"{stem}.{suffix}"] = data
    if files.valid is not None:
        suffixes.append(f"{VALID}.{_suffix(files.valid)}")
        contents[f"{VALID}.{_suffix(files.valid)}"] = _read(files.valid)
    height, width = image.shape[:2]
    return PackedSample(key, contents, tuple(suffixes), ((int(height), int(width)), facts))


def _encode(mask: NDArray[Any]) -> tuple[str, bytes]:
    """Return a suffix and the bytes of a file with these raw values."""
    stream = io.BytesIO()
    least, most = int(mask.min(initial=0)), int(mask.max(initial=0))
    if least >= 0 and most <= 65535 and mask.ndim == 2:
        dtype = np.uint8 if most <= 255 else np.uint16
        Image.fromarray(np.ascontiguousarray(mask, dtype=dtype)).save(stream, format="PNG")
        return "png", stream.getvalue()
    np.save(stream, mask)
    return "npy", stream.getvalue()


def _read(path: Path) -> bytes:
    try:
        return read_bytes(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _suffix(path: Path) -> str:
    return path.suffix.lower().removeprefix(".")


def sample_keys(dataset: FileDataset) -> list[str]:
    """Return a key for each sample: its name with every dot replaced, as a dot ends a key.

    Raises:
        DataError: When two samples would have the same key.
    """
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


def fingerprint(dataset: FileDataset, keys: Sequence[str]) -> str:
    """Return a hash that two runs share if they write the same samples in the same order.

    Args:
        dataset: The dataset.
        keys: Keys in the order of writing.
    """
    digest = hashlib.sha256("\n".join(keys).encode(errors="surrogateescape"))
    for files in dataset.files:
        digest.update(str(files.image.absolute()).encode(errors="surrogateescape"))
        if files.valid is not None:
            digest.update(str(files.valid.absolute()).encode(errors="surrogateescape"))
    return digest.hexdigest()
