"""What the shards of a dataset contain, from their index or from the archives themselves."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from segtrain.data.dataset import SampleFacts
from segtrain.data.io.remote import GoneError, fetch, is_url, shown
from segtrain.data.io.tar import read_members
from segtrain.data.shards.cache import ShardCache
from segtrain.data.shards.index import (
    VERSION,
    Index,
    Shard,
    folder_of,
    index_location,
    parse_index,
)
from segtrain.data.shards.samples import MemberPatterns, find_samples
from segtrain.errors import DataError
from segtrain.files import cache_dir, write_text

logger = logging.getLogger("segtrain")


class ShardScanner(NamedTuple):
    """Lists the samples of shards that have no index.

    Attributes:
        patterns: Which members are images and masks.
        cache: Copies of remote shards.
        read_facts: Returns the facts of a sample, given its shard, its row in it and the path of
            the archive. Called for remote shards only, while their copy is on disk.
        facts_key: The settings under which these facts are valid.
    """

    patterns: MemberPatterns
    cache: ShardCache
    read_facts: Callable[[Shard, int, Path], SampleFacts]
    facts_key: str

    def scan(self, location: str) -> tuple[Shard, list[str]]:
        """List the samples of a shard from its headers; the result is stored for the next time.

        Returns:
            The shard, and a message for each image or mask without its partner.
        """
        file = self._stored_at(location)
        try:
            line, problems = json.loads(file.read_text(encoding="utf-8"))
            return Shard.from_line(line, folder_of(location)), problems
        except (OSError, ValueError, KeyError, TypeError):
            pass
        remote = is_url(location)
        path = self.cache.path(location) if remote else Path(location)
        samples, problems = find_samples(read_members(path), self.patterns, shown(location))
        shard = Shard.of(location, path.stat().st_size, samples)
        if remote:
            facts = [self.read_facts(shard, row, path) for row in range(len(samples))]
            shard = shard.with_facts(facts, self.facts_key)
        try:
            write_text(file, json.dumps([shard.to_line(), problems]))
        except OSError:
            logger.debug("%s cannot be written", file)
        return shard, problems

    def _stored_at(self, location: str) -> Path:
        """Return the file of an earlier result; it changes when a shard on disk does."""
        stamp: list[int] = []
        if not is_url(location):
            status = Path(location).stat()
            stamp = [status.st_size, status.st_mtime_ns]
        key = json.dumps([VERSION, location, stamp, *self.patterns])
        return cache_dir() / "shards" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def load_shards(locations: Sequence[str], scanner: ShardScanner) -> tuple[list[Shard], list[str]]:
    """Describe the shards at `locations`, from their index if there is one.

    Args:
        locations: Paths and URLs of shards and indices, as from
            :func:`~segtrain.data.shards.locations.list_locations`.
        scanner: Lists the samples of shards without an index.

    Returns:
        The shards, and a message for each image or mask without its partner.

    Raises:
        DataError: When something is missing or damaged, or the size of a shard differs from the
            size in its index.
    """
    indices: dict[str, Index | None] = {}
    shards, problems = [], []
    for location in locations:
        if _path(location).endswith((".jsonl", ".json")):
            shards += _read_index(location).shards
            continue
        name = index_location(location)
        if name not in indices:
            indices[name] = _find_index(name)
        index = indices[name]
        known = {} if index is None else {shard.location: shard for shard in index.shards}
        if location in known:
            shards.append(known[location])
        else:
            shard, more = scanner.scan(location)
            shards.append(shard)
            problems += more
    for shard in shards:
        _check_size(shard)
    return shards, problems


def _path(location: str) -> str:
    """Return a path as it is, and of a URL its path without the query."""
    return urlsplit(location).path if is_url(location) else location


def _find_index(location: str) -> Index | None:
    if not is_url(location):
        return _read_index(location) if Path(location).is_file() else None
    try:
        return _read_index(location)
    except GoneError:
        logger.info(
            "%s does not exist: the shards are fetched one by one to index them", shown(location)
        )
        return None


def _read_index(location: str) -> Index:
    if is_url(location):
        stream = io.BytesIO()

        def start(_: int | None) -> io.BytesIO:
            stream.seek(0)
            stream.truncate()
            return stream

        fetch(location, start)
        data = stream.getvalue()
    else:
        try:
            data = Path(location).read_bytes()
        except OSError as error:
            raise DataError(f"{location} cannot be read: {error.strerror or error}") from None
    try:
        return parse_index(data.decode("utf-8"), location)
    except UnicodeDecodeError:
        raise DataError(
            f"{shown(location)} is not a text file; write it again with segtrain shards"
        ) from None


def _check_size(shard: Shard) -> None:
    if is_url(shard.location):
        return
    try:
        size = Path(shard.location).stat().st_size
    except OSError:
        raise DataError(
            f"{shard.location} does not exist, but the index in its folder names it"
        ) from None
    if size != shard.size:
        raise DataError(
            f"{shard.location} has {size} bytes, but its index has {shard.size}; it is truncated or"
            " was replaced, so copy shard and index again"
        )
