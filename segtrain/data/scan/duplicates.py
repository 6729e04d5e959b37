"""Images that occur twice: in both splits, or more than once in one."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from segtrain.data.dataset import FileDataset
from segtrain.data.io.storage import open_file, stamp
from segtrain.data.scan.cache import ScanCache
from segtrain.data.scan.findings import Finding

_START = 1 << 16  # bytes of a file that are compared first
_ALLOW = "remove them from one split, or set dataset.allow_overlap=true"


def find_duplicates(
    train: FileDataset, val: FileDataset | None = None, names: tuple[str, str] = ("train", "val")
) -> list[Finding]:
    """Find images that are in both splits, or more than once in one, as the same file or bytes.

    A file is read only if another one has the same size, and its digest is cached.

    Args:
        train: One split.
        val: The other split; None: only `train` is checked.
        names: The names of the two splits, for messages.
    """
    splits = {id(split): split for split in (train, val) if split is not None}
    places: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    for key, split in splits.items():
        for files in split.files:
            places[os.path.realpath(files.image)].append((key, files.image))
    findings = [_finding(group, names) for group in places.values() if len(group) > 1]
    single = {group[0][1]: group[0][0] for group in places.values()}
    for same in _with_equal_bytes(list(single)):
        findings.append(_finding([(single[path], path) for path in same], names))
    return findings


def _finding(group: Sequence[tuple[int, Path]], names: tuple[str, str]) -> Finding:
    files = [str(path) for _, path in group]
    if len({key for key, _ in group}) > 1:
        which = f"{files[0]} is"
        if len(set(files)) > 1:
            which = f"{' and '.join(files)} are the same image,"
        text = f"{which} in both dataset.{names[0]} and dataset.{names[1]}; {_ALLOW}"
        return Finding("overlap", files[0], text)
    text = f"{' and '.join(files)} are the same image, so it counts {len(files)} times"
    return Finding("duplicate", files[0], text)


def _with_equal_bytes(paths: Sequence[Path]) -> Iterable[list[Path]]:
    groups = _grouped(paths, lambda path: stamp(path)[0])
    if not any(groups):
        return []
    cache = ScanCache(paths)
    for whole in (False, True):
        digest = partial(_digest, cache=cache, whole=whole)
        groups = [finer for group in groups for finer in _grouped(group, digest)]
    cache.save()
    return groups


def _grouped(paths: Iterable[Path], key: Callable[[Path], object]) -> list[list[Path]]:
    found: dict[object, list[Path]] = defaultdict(list)
    for path in paths:
        try:
            found[key(path)].append(path)
        except OSError:
            continue  # the scan reports files that cannot be read
    return [group for group in found.values() if len(group) > 1]


def _digest(path: Path, cache: ScanCache, *, whole: bool) -> str:
    kind = "digest" if whole else "digest of the start"
    known = cache.get(kind, path)
    if known is None:
        with open_file(path) as stream:
            data = stream.read() if whole else stream.read(_START)
        known = hashlib.sha256(data).hexdigest()
        cache.put(known, kind, path)
    return str(known)
