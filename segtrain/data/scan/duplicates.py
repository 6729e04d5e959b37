"""Images that occur twice: in two splits, or more than once in one."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

from segtrain.data.dataset import FileDataset
from segtrain.data.io.storage import open_file, stamp, volume_of
from segtrain.data.scan.cache import ScanCache
from segtrain.data.scan.findings import Finding
from segtrain.data.scan.remembered import Remembered

_START = 1 << 16  # bytes of a file that are compared first
_ALLOW = "remove them from one split, or set dataset.allow_overlap=true"
_TWO = 2

_Place = tuple[str, Path]
"""A split and an image file in it."""


def find_duplicates(
    train: FileDataset, val: FileDataset | None = None, test: FileDataset | None = None
) -> list[Finding]:
    """Find images that are in two splits, or more than once in one, as the same file or bytes.

    A file is read only if another one has the same size, and its digest is cached.

    Args:
        train: The training split.
        val: The validation split; None: it is not checked.
        test: The test split; None: it is not checked.
    """
    given = {"train": train, "val": val, "test": test}
    splits = {name: split for name, split in given.items() if split is not None}
    remembered = Remembered("duplicates", list(splits.values()), [*splits])
    known = remembered.load()
    if known is not None:
        return [Finding.from_json(row) for row in known[1]]
    findings = _find(splits)
    remembered.save(findings)
    return findings


def _find(splits: Mapping[str, FileDataset]) -> list[Finding]:
    places: dict[str, list[_Place]] = defaultdict(list)
    real_folder = cache(os.path.realpath)  # the real path of every file takes long
    for name, split in splits.items():
        for image in _whole_files(split):
            real = (
                os.path.realpath(image)
                if image.is_symlink()
                else f"{real_folder(image.parent)}/{image.name}"
            )
            places[real].append((name, image))
    findings = [_finding(group) for group in places.values() if len(group) > 1]
    single = {group[0][1]: group[0][0] for group in places.values()}
    for same in _with_equal_bytes(list(single)):
        findings.append(_finding([(single[path], path) for path in same]))
    return findings


def _whole_files(dataset: FileDataset) -> list[Path]:
    """Return the image files; a volume once, since empty slices of two volumes may be equal.

    A sample that a list repeats is there once: it is repeated on purpose, to be drawn more often.
    """
    images = [files.image for files in dict.fromkeys(dataset.files)]
    volumes = dict.fromkeys(volume for image in images if (volume := volume_of(image)))
    return [*(image for image in images if image.parent not in volumes), *volumes]


def _finding(group: Sequence[_Place]) -> Finding:
    files = [str(path) for _, path in group]
    splits = tuple(dict.fromkeys(split for split, _ in group))
    if len(splits) > 1:
        *others, last = (f"dataset.{split}" for split in splits)
        which = f"{files[0]} is"
        if len(set(files)) > 1:
            which = f"{' and '.join(files)} are the same image,"
        both = "both " if len(splits) == _TWO else ""
        text = f"{which} in {both}{', '.join(others)} and {last}; {_ALLOW}"
        return Finding("overlap", files[0], text, splits=splits)
    text = f"{' and '.join(files)} are the same image, so it counts {len(files)} times"
    return Finding("duplicate", files[0], text, splits=splits)


def _with_equal_bytes(paths: Sequence[Path]) -> Iterable[list[Path]]:
    groups = _grouped(paths, lambda path: stamp(path)[0])
    if not any(groups):
        return []
    stored = ScanCache(paths)
    for whole in (False, True):
        digest = stored.sha256 if whole else partial(_start_digest, cache=stored)
        groups = [finer for group in groups for finer in _grouped(group, digest)]
    stored.save()
    return groups


def _grouped(paths: Iterable[Path], key: Callable[[Path], object]) -> list[list[Path]]:
    found: dict[object, list[Path]] = defaultdict(list)
    for path in paths:
        try:
            found[key(path)].append(path)
        except OSError:
            continue  # the scan reports files that cannot be read
    return [group for group in found.values() if len(group) > 1]


def _start_digest(path: Path, cache: ScanCache) -> str:
    kind = "digest of the start"
    known = cache.get(kind, path)
    if known is None:
        with open_file(path) as stream:
            known = hashlib.sha256(stream.read(_START)).hexdigest()
        cache.put(known, kind, path)
    return str(known)
