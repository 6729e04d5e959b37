"""From what a config calls a set of shards to their paths or URLs, and to what is in each."""

from __future__ import annotations

import glob
import hashlib
import importlib
import importlib.util
import io
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from segtrain.data.dataset import SampleFacts
from segtrain.data.io.remote import GoneError, check_url, fetch, is_url, shown
from segtrain.data.io.tar import read_members
from segtrain.data.shards.cache import ShardCache
from segtrain.data.shards.index import (
    INDEX_SUFFIX,
    VERSION,
    Index,
    Kinds,
    Shard,
    find_samples,
    index_of,
    read_index,
)
from segtrain.errors import ConfigError, DataError
from segtrain.files import cache_dir, write_text

_PACKAGES = ("webdataset", "braceexpand", "filelock")
_SEPARATOR = "::"  # as in webdataset
logger = logging.getLogger("segtrain")


def check_installed() -> None:
    """Refuse to go on without the packages of the extra.

    Raises:
        ConfigError: When one is missing.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"shards need the package {missing[0]}, which is not installed: pip install"
            ' "segtrain[webdataset]"'
        )


def list_places(root: str, given: str | Sequence[str], split: str) -> list[str]:
    """The paths or URLs of shards, or of an index of them, in the order given.

    Args:
        root: A directory or a URL, which relative places are below.
        given: A place or several: a shard, a glob (not in URLs), a range in braces such as
            ``train-{000000..000099}.tar``, an index, or what ends in a slash: a directory or URL
            with an index of the split.
        split: The split.

    Raises:
        ConfigError: When a place cannot be meant.
        DataError: When a place on disk is not there.
    """
    where = f"dataset.{split}.shards"
    words = [given] if isinstance(given, str) else list(given)
    found: list[str] = []
    for part in [part for word in words for part in word.split(_SEPARATOR)]:
        for name in _expand(part, where):
            found += _look(_join(root, name, where), split, where)
    seen: set[str] = set()
    for place in found:
        if place in seen:
            raise ConfigError(f"{where} names {shown(place)} twice")
        seen.add(place)
    return found


def _expand(word: str, where: str) -> list[str]:
    braces: Any = importlib.import_module("braceexpand")
    try:
        return list(braces.braceexpand(word))
    except (braces.UnbalancedBracesError, ValueError) as error:
        raise ConfigError(f"{where}: {word!r} cannot be expanded: {error}") from None


def _join(root: str, name: str, where: str) -> str:
    if is_url(name):
        check_url(name, where)
        return name
    if is_url(root):
        check_url(root, "dataset.root")
        return f"{root.rstrip('/')}/{name.removeprefix('./')}"
    path = str(Path(root).expanduser() / Path(name).expanduser())
    return f"{path}/" if name.endswith("/") or Path(path).is_dir() else path


def _look(place: str, split: str, where: str) -> list[str]:
    if place.endswith("/"):
        place = f"{place}{split}{INDEX_SUFFIX}"
    if is_url(place):
        if "*" in place:
            raise ConfigError(
                f"{where}: {shown(place)} has a wildcard, but a server does not list its files;"
                " give a range in braces, as in train-{000000..000099}.tar, or the index"
            )
        return [place]
    found = sorted(glob.glob(place)) if glob.has_magic(place) else [place]  # noqa: PTH207  absolute patterns, too
    there = [path for path in found if Path(path).is_file()]
    if not there or len(there) < len(found):
        missing = next((path for path in found if path not in there), place)
        raise DataError(
            f"{where}: {missing} does not exist; give shards (.tar), or an index ({INDEX_SUFFIX})"
            " as segtrain shards writes it, relative to dataset.root"
        )
    return there


class Shelf(NamedTuple):
    """What it takes to find out what is in shards.

    Attributes:
        kinds: Which members are images and masks, where there is no index.
        cache: Of remote shards.
        look: What a sample of a shard holds, which is at a path: for remote shards without an
            index, while they are at hand.
        kind_of_facts: Of what `look` finds.
    """

    kinds: Kinds
    cache: ShardCache
    look: Callable[[Shard, int, Path], SampleFacts]
    kind_of_facts: str


def load_shards(places: Sequence[str], shelf: Shelf) -> tuple[list[Shard], list[str]]:
    """The shards at `places`, from their index where there is one.

    Args:
        places: As :func:`list_places` gives them.
        shelf: How to look at what has no index.

    Returns:
        The shards, and a sentence for each image or mask that is alone.

    Raises:
        DataError: When something is missing or damaged, or a shard has not the size that the index
            says.
    """
    indices: dict[str, Index | None] = {}
    shards, problems = [], []
    for place in places:
        if _path(place).endswith((".jsonl", ".json")):
            shards += _read_index(place).shards
            continue
        name = index_of(place)
        if name not in indices:
            indices[name] = _find_index(name)
        index = indices[name]
        known = {} if index is None else {shard.place: shard for shard in index.shards}
        if place in known:
            shards.append(known[place])
        else:
            shard, lonely = _look_into(place, shelf)
            shards.append(shard)
            problems += lonely
    for shard in shards:
        _check_size(shard)
    return shards, problems


def _path(place: str) -> str:
    """`place` without what may follow the path in a URL."""
    return urlsplit(place).path if is_url(place) else place


def _find_index(place: str) -> Index | None:
    if not is_url(place):
        return _read_index(place) if Path(place).is_file() else None
    try:
        return _read_index(place)
    except GoneError:
        logger.info("%s does not exist: the shards are fetched one by one to index them", place)
        return None


def _read_index(place: str) -> Index:
    if is_url(place):
        stream = io.BytesIO()

        def start(_: int | None) -> io.BytesIO:
            stream.seek(0)
            stream.truncate()
            return stream

        fetch(place, start)
        data = stream.getvalue()
    else:
        try:
            data = Path(place).read_bytes()
        except OSError as error:
            raise DataError(f"{place} cannot be read: {error.strerror or error}") from None
    try:
        return read_index(data.decode("utf-8"), place)
    except UnicodeDecodeError:
        raise DataError(f"{shown(place)} is no text; write it again with segtrain shards") from None


def _check_size(shard: Shard) -> None:
    if is_url(shard.place):
        return
    try:
        size = Path(shard.place).stat().st_size
    except OSError:
        raise DataError(f"{shard.place} does not exist, but the index beside it names it") from None
    if size != shard.size:
        raise DataError(
            f"{shard.place} has {size} bytes, not {shard.size} as the index beside it says; it is"
            " truncated or was replaced, so copy shard and index again"
        )


# ---------------------------------------------------------------------- shards without an index


def _look_into(place: str, shelf: Shelf) -> tuple[Shard, list[str]]:
    """A shard from its headers; what was found is remembered, so that it is read once."""
    file = _memory(place, shelf.kinds)
    try:
        line, problems = json.loads(file.read_text(encoding="utf-8"))
        return Shard.from_line(line, _folder(place)), problems
    except (OSError, ValueError, KeyError, TypeError):
        pass
    remote = is_url(place)
    path = shelf.cache.path(place) if remote else Path(place)
    samples, problems = find_samples(read_members(path), shelf.kinds, shown(place))
    shard = Shard.of(place, path.stat().st_size, samples)
    if remote:
        found = [shelf.look(shard, row, path) for row in range(len(samples))]
        shard = shard.with_facts(found, shelf.kind_of_facts)
    try:
        write_text(file, json.dumps([shard.to_line(), problems]))
    except OSError:
        logger.debug("%s cannot be written", file)
    return shard, problems


def _memory(place: str, kinds: Kinds) -> Path:
    """Where it is remembered what is in a shard; of one on disk, as long as it does not change."""
    stamp: list[int] = []
    if not is_url(place):
        status = Path(place).stat()
        stamp = [status.st_size, status.st_mtime_ns]
    key = json.dumps([VERSION, place, stamp, *kinds])
    return cache_dir() / "shards" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _folder(place: str) -> str:
    return place.rpartition("/")[0] + "/" if "/" in place else ""
