"""What a shard contains: its samples, where their bytes are, and what their masks hold.

The index of a set of shards is a text file of JSON lines next to them, ``train-index.jsonl`` for
``train-000000.tar``, ``train-000001.tar``, ...: a heading, then one line per shard. With it, a
sample is read from the middle of a shard, and a dataset is checked without reading its shards.
"""

from __future__ import annotations

import json
import re
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segtrain.data.dataset import SampleFacts
from segtrain.data.io.reader import Reader
from segtrain.data.io.remote import shown
from segtrain.data.io.tar import Member
from segtrain.data.labels.contract import LabelContract
from segtrain.data.labels.mask_facts import MaskFacts
from segtrain.data.shards.samples import VALID, ShardSample
from segtrain.errors import DataError

VERSION = 1  # increased when the meaning of an entry changes
INDEX_SUFFIX = "-index.jsonl"
_NOWHERE = -1  # the offset that stands for the missing mask of a class


class Shard(NamedTuple):
    """A tar file and the samples in it.

    Attributes:
        location: Path or URL.
        size: Number of bytes.
        digest: SHA-256 in hexadecimal, or None if unknown.
        keys: Name of each sample.
        suffixes: Suffixes of the files of each sample, as in
            :class:`~segtrain.data.shards.samples.ShardSample`.
        ranges: Offset and size of each member, int64, ``(samples, members, 2)``.
        facts_key: The settings under which `packed_facts` are valid, see :func:`facts_key`.
        packed_facts: Image sizes and mask facts of the samples as compressed JSON, or None if
            unknown. They stay compressed because they are large and rarely needed.
    """

    location: str
    size: int
    digest: str | None
    keys: Sequence[str]
    suffixes: Sequence[tuple[str | None, ...]]
    ranges: NDArray[np.int64]
    facts_key: str | None = None
    packed_facts: bytes | None = None

    @classmethod
    def of(
        cls, location: str, size: int, samples: Sequence[ShardSample], digest: str | None = None
    ) -> Shard:
        """Describe a shard with these samples."""
        most = max((len(sample.members) for sample in samples), default=0)
        ranges = np.full((len(samples), most, 2), _NOWHERE, dtype=np.int64)
        for row, sample in zip(ranges, samples, strict=True):
            for entry, member in zip(row, sample.members, strict=False):
                entry[:] = (_NOWHERE, 0) if member is None else member
        known: dict[tuple[str | None, ...], tuple[str | None, ...]] = {}  # most are equal
        suffixes = [known.setdefault(sample.suffixes, sample.suffixes) for sample in samples]
        return cls(location, size, digest, [sample.key for sample in samples], suffixes, ranges)

    def with_facts(self, facts: Sequence[SampleFacts], key: str) -> Shard:
        """Return the same shard with the facts of each sample."""
        plain = [[list(shape), mask.to_json()] for shape, mask in facts]
        packed = zlib.compress(json.dumps(plain, separators=(",", ":")).encode())
        return self._replace(packed_facts=packed, facts_key=key)

    def member(self, row: int, number: int) -> Member | None:
        """Return where the image (0) or another file (1, ...) of a sample is in the archive."""
        offset, size = self.ranges[row, number].tolist()
        return None if offset == _NOWHERE else Member(offset, size)

    def file(self, row: int, number: int) -> str | None:
        """Return the name in the archive of the image (0) or another file of a sample."""
        suffix = self.suffixes[row][number]
        return None if suffix is None else f"{self.keys[row]}.{suffix}"

    def masks(self, row: int) -> list[int | None]:
        """Return the numbers of the masks of a sample; None for a class without one."""
        last = len(self.suffixes[row]) - (self.valid(row) is not None)
        return [None if self.suffixes[row][number] is None else number for number in range(1, last)]

    def valid(self, row: int) -> int | None:
        """Return the number of the valid file of a sample; None: it has none."""
        last = len(self.suffixes[row]) - 1
        return last if (self.suffixes[row][last] or "").startswith(f"{VALID}.") else None

    def facts(self, row: int, key: str) -> SampleFacts | None:
        """Return the facts of a sample if they are known for the settings `key`, else None.

        Raises:
            DataError: When the facts are damaged.
        """
        if self.packed_facts is None or self.facts_key != key:
            return None
        try:
            shape, facts = _unpacked(self.packed_facts)[row]
            return (int(shape[0]), int(shape[1])), MaskFacts.from_json(facts)
        except (zlib.error, ValueError, TypeError, IndexError) as error:
            raise DataError(
                f"the entry of {shown(self.location)} in its index is damaged"
                f" ({type(error).__name__}); write it again with segtrain shards"
            ) from None

    def to_line(self) -> str:
        """Return the line of an index for this shard; it names the shard without its folder."""
        combinations = list(dict.fromkeys(self.suffixes))
        number = {suffixes: position for position, suffixes in enumerate(combinations)}
        packed = self.packed_facts
        plain = {
            "shard": self.location.rpartition("/")[2],
            "bytes": self.size,
            "sha256": self.digest,
            "keys": list(self.keys),
            "suffixes": combinations,
            "combination": [number[suffixes] for suffixes in self.suffixes],
            "ranges": self.ranges.ravel().tolist(),
            "kind": self.facts_key,
            "described": None if packed is None else b64encode(packed).decode(),
        }
        return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_line(cls, line: str, folder: str) -> Shard:
        """Parse a line of :meth:`to_line`.

        Args:
            line: The line.
            folder: Folder or URL of the shard, with a slash at the end.

        Raises:
            ValueError: When the line is damaged; also :class:`KeyError` and :class:`TypeError`.
        """
        plain = json.loads(line)
        name = str(plain["shard"])
        if "/" in name or name in ("", ".", ".."):
            raise ValueError(f"{name!r} is not the name of a shard")
        combinations = [tuple(map(_text_or_none, suffixes)) for suffixes in plain["suffixes"]]
        suffixes = [combinations[number] for number in plain["combination"]]
        keys = [str(key) for key in plain["keys"]]
        most = max(map(len, combinations), default=0)
        ranges = np.array(plain["ranges"], dtype=np.int64).reshape(len(keys), most, 2)
        if len(suffixes) != len(keys):
            raise ValueError("its lists differ in length")
        packed = plain["described"]
        packed = None if packed is None else b64decode(packed, validate=True)
        size = int(plain["bytes"])
        return cls(
            folder + name, size, plain["sha256"], keys, suffixes, ranges, plain["kind"], packed
        )


def _text_or_none(word: Any) -> str | None:
    return None if word is None else str(word)


_LARGEST_FACTS = 256 * 2**20  # bytes of the facts of one shard, about a hundred per sample


@lru_cache(maxsize=16)
def _unpacked(packed: bytes) -> list[Any]:
    unpacking = zlib.decompressobj()
    text = unpacking.decompress(packed, _LARGEST_FACTS)
    if unpacking.unconsumed_tail:
        raise ValueError("it is too large")
    plain: list[Any] = json.loads(text)
    return plain


def facts_key(labels: LabelContract, reader: Reader) -> str:
    """Return a key of the settings that, besides the file, decide the facts of a mask."""
    return f"multi_label={labels.multi_label} {reader.with_soft_masks(labels.reads_ranges).rules}"


class Index(NamedTuple):
    """The index of a set of shards: its heading and its shards."""

    heading: dict[str, Any]
    shards: list[Shard]


def index_text(heading: Mapping[str, Any], lines: Sequence[str]) -> str:
    """Return the content of an index file, from the lines of :meth:`Shard.to_line`."""
    first = json.dumps({"segtrain_shards": VERSION, **heading}, ensure_ascii=False)
    return "\n".join([first, *lines]) + "\n"


def parse_index(text: str, location: str) -> Index:
    """Parse the content of an index file.

    Args:
        text: The content.
        location: Path or URL of the file; the shards are in the same folder.

    Raises:
        DataError: When it is not an index, or a damaged one, or one of another version.
    """
    folder = folder_of(location)
    number = 1
    shards = []
    try:
        first, *lines = text.removesuffix("\n").split("\n")
        heading = json.loads(first)
        version = heading["segtrain_shards"]
        if version != VERSION:
            raise DataError(
                f"{shown(location)} is an index of version {version}, and this segtrain reads"
                f" version {VERSION}; write the shards again, or use the segtrain that wrote them"
            )
        for line in lines:
            number += 1
            shards.append(Shard.from_line(line, folder))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{shown(location)}, line {number}: this is not an index of shards, or it is damaged"
            f" ({type(error).__name__}: {error}); write it again with segtrain shards"
        ) from None
    return Index(heading, shards)


def folder_of(location: str) -> str:
    """Return the folder or URL of a file with a slash at the end; empty for a bare name."""
    return location.rpartition("/")[0] + "/" if "/" in location else ""


def index_location(shard: str) -> str:
    """Return where the index of a shard is expected.

    Example:
        >>> index_location("/data/train-000012.tar")
        '/data/train-index.jsonl'
    """
    folder, slash, name = shard.rpartition("/")
    stem = re.sub(r"[-_.]?\d+$", "", name.removesuffix(".tar"))
    return f"{folder}{slash}{stem}{INDEX_SUFFIX}"
