"""From the shards that a config names to their paths or URLs."""

from __future__ import annotations

import glob
import importlib
import importlib.util
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segtrain.data.io.remote import check_url, is_url, shown
from segtrain.data.shards.index import INDEX_SUFFIX
from segtrain.errors import ConfigError, DataError

_PACKAGES = ("webdataset", "braceexpand", "filelock")
_MOST_SHARDS = 1_000_000
_SEPARATOR = "::"  # as in webdataset


def check_installed() -> None:
    """Check that the packages of the extra ``webdataset`` are installed.

    Raises:
        ConfigError: When one is missing.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"shards need the package {missing[0]}, which is not installed: pip install"
            ' "segtrain[webdataset]"'
        )


def list_locations(root: str, given: str | Sequence[str], split: str) -> list[str]:
    """List the paths or URLs of shards or indices, in the order of the config.

    Args:
        root: Directory or URL that relative paths start from.
        given: One entry or several. An entry is a shard, an index, a glob (not in URLs), a range in
            braces such as ``train-{000000..000099}.tar``, or a directory or URL that ends in a
            slash and holds an index of the split.
        split: The split.

    Raises:
        ConfigError: When an entry is not valid, or names a shard for the second time.
        DataError: When a file on disk does not exist.
    """
    where = f"dataset.{split}.shards"
    entries = [given] if isinstance(given, str) else list(given)
    found: list[str] = []
    for part in [part for entry in entries for part in entry.split(_SEPARATOR)]:
        for name in _expand(part, where):
            found += _existing(_join(root, name, where), split, where)
    seen: set[str] = set()
    for location in found:
        if location in seen:
            raise ConfigError(f"{where} names {shown(location)} twice")
        seen.add(location)
    return found


def _expand(entry: str, where: str) -> list[str]:
    braces: Any = importlib.import_module("braceexpand")
    try:
        names = list(itertools.islice(braces.braceexpand(_bounded(entry, where)), _MOST_SHARDS + 1))
        if len(names) > _MOST_SHARDS:
            raise ConfigError(f"{where}: {entry!r} names more than {_MOST_SHARDS:,} shards")
        return names
    except (braces.UnbalancedBracesError, ValueError) as error:
        raise ConfigError(f"{where}: {entry!r} cannot be expanded: {error}") from None


def _bounded(entry: str, where: str) -> str:
    """Refuse a range of numbers that alone is too long; expanding it would take minutes."""
    for first, last in re.findall(r"\{(-?\d+)\.\.(-?\d+)", entry):
        if abs(int(last) - int(first)) >= _MOST_SHARDS:
            raise ConfigError(
                f"{where}: {entry!r} names more than {_MOST_SHARDS:,} shards; give the range of the"
                " shards that exist"
            )
    return entry


def _join(root: str, name: str, where: str) -> str:
    if is_url(name):
        check_url(name, where)
        return name
    if is_url(root):
        check_url(root, "dataset.root")
        return f"{root.rstrip('/')}/{name.removeprefix('./')}"
    path = str(Path(root).expanduser() / Path(name).expanduser())
    return f"{path}/" if name.endswith("/") or Path(path).is_dir() else path


def _existing(location: str, split: str, where: str) -> list[str]:
    """Return the files that a path or glob stands for; URLs are not checked."""
    if location.endswith("/"):
        location = f"{location}{split}{INDEX_SUFFIX}"
    if is_url(location):
        if "*" in location:
            raise ConfigError(
                f"{where}: {shown(location)} has a wildcard, but a server does not list its files;"
                " give a range in braces, as in train-{000000..000099}.tar, or the index"
            )
        return [location]
    found = sorted(glob.glob(location)) if glob.has_magic(location) else [location]  # noqa: PTH207  absolute patterns, too
    existing = [path for path in found if Path(path).is_file()]
    if not existing or len(existing) < len(found):
        missing = next((path for path in found if path not in existing), location)
        raise DataError(
            f"{where}: {missing} does not exist; give shards (.tar), or an index ({INDEX_SUFFIX})"
            " as segtrain shards writes it, relative to dataset.root"
        )
    return existing
