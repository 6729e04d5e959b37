"""What is in a shard: its samples, where their bytes are, and what their masks hold.

The index of a set of shards is a text file of JSON beside them, ``train-index.jsonl`` beside
``train-000000.tar``, ``train-000001.tar``, ...: a heading, then a line for each shard. With it a
sample is read from the middle of a shard, and a data set is checked, without reading the shards.
"""

from __future__ import annotations

import json
import re
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
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
from segtrain.errors import DataError

VERSION = 1  # goes up when the meaning of an entry changes
INDEX_SUFFIX = "-index.jsonl"
_NOWHERE = -1  # the offset of the mask of a class that is nowhere in the image
_MOST_LISTED = 5
_NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")  # webdataset's rule: up to the first dot


class ShardSample(NamedTuple):
    """The files of one sample in a shard.

    Attributes:
        key: The name that they share.
        suffixes: Of the image, then of the mask, or of the masks of the classes; None for the mask
            of a class that is nowhere in the image.
        members: Where each of them is.
    """

    key: str
    suffixes: tuple[str | None, ...]
    members: tuple[Member | None, ...]


class Shard(NamedTuple):
    """A tar file and the samples in it.

    Attributes:
        place: Its path or URL.
        size: Its bytes.
        digest: Its SHA-256 in hexadecimal, where known.
        keys: The name of each sample.
        suffixes: As in :class:`ShardSample`.
        ranges: Offset and size of each member, int64, ``(samples, members, 2)``.
        kind: Of the mask facts, see :func:`kind_of_facts`.
        described: Sizes and mask facts as compressed JSON, where known; it is large and seldom
            wanted.
    """

    place: str
    size: int
    digest: str | None
    keys: Sequence[str]
    suffixes: Sequence[tuple[str | None, ...]]
    ranges: NDArray[np.int64]
    kind: str | None = None
    described: bytes | None = None

    @classmethod
    def of(
        cls, place: str, size: int, samples: Sequence[ShardSample], digest: str | None = None
    ) -> Shard:
        """A shard of `samples`."""
        most = max((len(sample.members) for sample in samples), default=0)
        ranges = np.full((len(samples), most, 2), _NOWHERE, dtype=np.int64)
        for row, sample in zip(ranges, samples, strict=True):
            for entry, member in zip(row, sample.members, strict=False):
                entry[:] = (_NOWHERE, 0) if member is None else member
        known: dict[tuple[str | None, ...], tuple[str | None, ...]] = {}  # most are equal
        suffixes = [known.setdefault(sample.suffixes, sample.suffixes) for sample in samples]
        return cls(place, size, digest, [sample.key for sample in samples], suffixes, ranges)

    def with_facts(self, described: Sequence[SampleFacts], kind: str) -> Shard:
        """The same shard with what is known of each sample."""
        plain = [[list(shape), facts.to_json()] for shape, facts in described]
        packed = zlib.compress(json.dumps(plain, separators=(",", ":")).encode())
        return self._replace(described=packed, kind=kind)

    def member(self, row: int, number: int) -> Member | None:
        """Where the bytes of the image (0) or a mask (1, ...) of a sample are."""
        offset, size = self.ranges[row, number].tolist()
        return None if offset == _NOWHERE else Member(offset, size)

    def file(self, row: int, number: int) -> str | None:
        """The name in the shard of the image (0) or a mask (1, ...) of a sample."""
        suffix = self.suffixes[row][number]
        return None if suffix is None else f"{self.keys[row]}.{suffix}"

    def facts(self, row: int, kind: str) -> SampleFacts | None:
        """What is known of a sample without a look at it, as far as it is of that kind."""
        if self.described is None or self.kind != kind:
            return None
        try:
            shape, facts = _unpacked(self.described)[row]
            return (int(shape[0]), int(shape[1])), MaskFacts.from_json(facts)
        except (zlib.error, ValueError, TypeError, IndexError) as error:
            raise DataError(
                f"what the index says of {shown(self.place)} is damaged ({type(error).__name__});"
                " write it again with segtrain shards"
            ) from None

    def to_line(self) -> str:
        """One line of an index, in which the shard has no folder."""
        combinations = list(dict.fromkeys(self.suffixes))
        number = {suffixes: place for place, suffixes in enumerate(combinations)}
        plain = {
            "shard": self.place.rpartition("/")[2],
            "bytes": self.size,
            "sha256": self.digest,
            "keys": list(self.keys),
            "suffixes": combinations,
            "combination": [number[suffixes] for suffixes in self.suffixes],
            "ranges": self.ranges.ravel().tolist(),
            "kind": self.kind,
            "described": None if self.described is None else b64encode(self.described).decode(),
        }
        return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_line(cls, line: str, folder: str) -> Shard:
        """What :meth:`to_line` gave, of a shard in `folder`, which ends in a slash.

        Raises:
            ValueError: When it is damaged; :class:`KeyError` and :class:`TypeError` likewise.
        """
        plain = json.loads(line)
        name = str(plain["shard"])
        if "/" in name or name in ("", ".", ".."):
            raise ValueError(f"{name!r} is no name of a shard")
        combinations = [tuple(map(_text_or_none, suffixes)) for suffixes in plain["suffixes"]]
        suffixes = [combinations[place] for place in plain["combination"]]
        keys = [str(key) for key in plain["keys"]]
        most = max(map(len, combinations), default=0)
        ranges = np.array(plain["ranges"], dtype=np.int64).reshape(len(keys), most, 2)
        if len(suffixes) != len(keys):
            raise ValueError("its lists differ in length")
        described = plain["described"]
        packed = None if described is None else b64decode(described, validate=True)
        size = int(plain["bytes"])
        return cls(
            folder + name, size, plain["sha256"], keys, suffixes, ranges, plain["kind"], packed
        )


def _text_or_none(word: Any) -> str | None:
    return None if word is None else str(word)


def kind_of_facts(labels: LabelContract, reader: Reader) -> str:
    """What decides, besides its file, what a mask is said to hold."""
    return f"multi_label={labels.multi_label} exif={reader.exif}"


@lru_cache(maxsize=16)
def _unpacked(described: bytes) -> list[Any]:
    plain: list[Any] = json.loads(zlib.decompress(described))
    return plain


class Index(NamedTuple):
    """The index of a set of shards: its heading and its shards."""

    heading: dict[str, Any]
    shards: list[Shard]


def write_index(heading: Mapping[str, Any], lines: Sequence[str]) -> str:
    """The text of an index, from the lines of :meth:`Shard.to_line`."""
    first = json.dumps({"segtrain_shards": VERSION, **heading}, ensure_ascii=False)
    return "\n".join([first, *lines]) + "\n"


def read_index(text: str, place: str) -> Index:
    """The index in `text`.

    Args:
        text: The content of its file.
        place: The path or URL of the file; the shards are beside it.

    Raises:
        DataError: When it is none.
    """
    folder = place.rpartition("/")[0] + "/" if "/" in place else ""
    number = 1
    shards = []
    try:
        first, *lines = text.removesuffix("\n").split("\n")
        heading = json.loads(first)
        if heading["segtrain_shards"] != VERSION:
            raise DataError(
                f"{place} is an index of version {heading['segtrain_shards']}, and this segtrain"
                f" reads version {VERSION}; write the shards again, or use the segtrain that did"
            )
        for line in lines:
            number += 1
            shards.append(Shard.from_line(line, folder))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{place}, line {number}: it is no index of shards, or a damaged one"
            f" ({type(error).__name__}: {error}); write it again with segtrain shards"
        ) from None
    return Index(heading, shards)


def index_of(shard: str) -> str:
    """Where the index of a shard is.

    Example:
        >>> index_of("/data/train-000012.tar")
        '/data/train-index.jsonl'
    """
    folder, slash, name = shard.rpartition("/")
    stem = re.sub(r"[-_.]?\d+$", "", name.removesuffix(".tar"))
    return f"{folder}{slash}{stem}{INDEX_SUFFIX}"


# ---------------------------------------------------------------------- shards without an index


class Kinds(NamedTuple):
    """Which members are images and which are masks, by what follows the key and a dot.

    Attributes:
        image: Suffixes in the order of preference; ``*`` stands for anything.
        mask: Likewise.
        names: For masks of single classes, whose second word is a class: the name of each.
    """

    image: Sequence[str]
    mask: Sequence[str]
    names: Sequence[str] | None = None


def find_samples(
    members: Mapping[str, Member], kinds: Kinds, place: str
) -> tuple[list[ShardSample], list[str]]:
    """The samples in a shard, and a sentence for each image or mask that is alone.

    Args:
        members: The files in the shard.
        kinds: Which of them are images and masks.
        place: The shard, for messages.

    Example:
        >>> members = {"a.jpg": Member(512, 90), "a.mask.png": Member(1536, 9)}
        >>> found, problems = find_samples(members, Kinds(["jpg"], ["mask.*"]), "x.tar")
        >>> found[0].key, found[0].suffixes
        ('a', ('jpg', 'mask.png'))
    """
    groups: dict[str, dict[str, Member]] = {}
    for name, member in members.items():
        match = _NAME.fullmatch(name)
        if match is not None:
            groups.setdefault(match[1], {})[match[2]] = member
    found, problems = [], []
    for key, group in groups.items():
        images = _matching(group, kinds.image)
        masks = [suffix for suffix in _matching(group, kinds.mask) if suffix not in images[:1]]
        problem = _problem(key, group, images, masks, kinds)
        if problem is not None:
            problems.append(f"{place}: sample {key!r} {problem}")
        elif images:
            suffixes = (images[0], *_masks(masks, kinds.names))
            places = tuple(None if suffix is None else group[suffix] for suffix in suffixes)
            found.append(ShardSample(key, suffixes, places))
    return found, problems


def _matching(suffixes: Mapping[str, Member], patterns: Sequence[str]) -> list[str]:
    """The suffixes that the first pattern matches that matches any."""
    for pattern in patterns:
        found = [suffix for suffix in suffixes if fnmatchcase(suffix.lower(), pattern.lower())]
        if found:
            return sorted(found)
    return []


def _problem(
    key: str, group: Mapping[str, Member], images: list[str], masks: list[str], kinds: Kinds
) -> str | None:
    files = [f"{key}.{suffix}" for suffix in group]
    listed = ", ".join(files[:_MOST_LISTED]) + (", ..." if len(files) > _MOST_LISTED else "")
    if not images and not masks:
        return None
    if not masks:
        return (
            f"has an image and no mask, only {listed}; a mask is {key}."
            f"{f' or {key}.'.join(kinds.mask)}, or say with dataset.mask what it is called"
        )
    if not images:
        return f"has a mask and no image, only {listed}; say with dataset.image what it is called"
    if len(images) > 1:
        return f"has several images, {', '.join(images)}; say with dataset.image which is meant"
    if kinds.names is None and len(masks) > 1:
        return (
            f"has several masks, {', '.join(masks)}; say with dataset.mask which is meant, or set"
            " dataset.multi_label=true if each answers for a class"
        )
    unknown = [mask for mask in masks if len(masks) > 1 and _class_of(mask, kinds.names) is None]
    if unknown:
        return f"has the mask {key}.{unknown[0]}, whose second word is no class"
    return None


def _masks(masks: Sequence[str], names: Sequence[str] | None) -> tuple[str | None, ...]:
    """The suffix of the one mask, or one for each class."""
    by_class = {_class_of(mask, names): mask for mask in masks}
    if names is None or (len(masks) == 1 and None in by_class):
        return (masks[0],)
    return tuple(by_class.get(class_id) for class_id in range(len(names)))


def _class_of(mask: str, names: Sequence[str] | None) -> int | None:
    """The class id in ``mask.3.png`` or ``mask.car.png``."""
    words = mask.split(".")
    if names is None or len(words) < 3:
        return None
    word = ".".join(words[1:-1])
    if word in names:
        return list(names).index(word)
    return int(word) if word.isdecimal() and int(word) < len(names) else None
