"""Images that are there twice: in both splits, or more than once in one."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from segtrain.data.dataset import FileDataset
from segtrain.data.io.storage import open_file, stamp
from segtrain.data.scan.cache import ScanCache
from segtrain.data.scan.findings import Finding

_START = 1 << 16  # bytes that are compared first
_ALLOW = "take them out of one, or set dataset.allow_overlap=true"


def find_duplicates(train: FileDataset, val: FileDataset | None = None) -> list[Finding]:
    """Images whose file or bytes are in both splits, or more than once in one of them.

    Files are read only where another has the same size, and what was read is kept.

    Args:
        train: One split.
        val: The other; None: only `train` is looked at.
    """
    splits = {id(split): split for split in (train, val) if split is not None}
    places: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    for key, split in splits.items():
        for files in split.files:
            places[os.path.realpath(files.image)].append((key, files.image))
    findings = [_finding(group) for group in places.values() if len(group) > 1]
    single = {group[0][1]: group[0][0] for group in places.values()}
    for same in _of_equal_bytes(list(single)):
        findings.append(_finding([(single[path], path) for path in same]))
    return findings


def _finding(group: Sequence[tuple[int, Path]]) -> Finding:
    files = [str(path) for _, path in group]
    if len({key for key, _ in group}) > 1:
        which = f"{files[0]} is" if len(set(files)) == 1 else f"{' and '.join(files)} are one image"
        text = f"{which} in both dataset.train and dataset.val; {_ALLOW}"
        return Finding("overlap", files[0], text)
    text = f"{' and '.join(files)} are the same image, which counts {len(files)} times"
    return Finding("duplicate", files[0], text)


def _of_equal_bytes(paths: Sequence[Path]) -> Iterable[list[Path]]:
    groups = _grouped(paths, lambda path: stamp(path)[0])
    if not any(groups):
        return []
    cache = ScanCache(paths)
    for whole in (False, True):
        finer = [
            _grouped(group, lambda path, w=whole: _digest(path, cache, whole=w)) for group in groups
        ]
        groups = [group for part in finer for group in part]
    cache.save()
    return groups


def _grouped(paths: Iterable[Path], key: object) -> list[list[Path]]:
    found: dict[object, list[Path]] = defaultdict(list)
    for path in paths:
        try:
            found[key(path)].append(path)  # type: ignore[operator]
        except OSError:
            continue  # the scan says that it cannot be read
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
