"""The check of every mask before the first step, so that a wrong file is found in seconds."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segtrain.data.base import FileDataset, explain_shapes
from segtrain.data.images import image_size, read_image, read_mask
from segtrain.data.label_advice import override
from segtrain.data.labels import LabelContract, histogram
from segtrain.data.scan_cache import ScanCache
from segtrain.errors import DataError

_MOST_SHOWN = 3
_MOST_THREADS = 8
Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class ScanReport:
    """What a scan counted.

    Args:
        class_pixels: Pixels of each class, int64, shape ``(num_classes,)``.
        ignored_pixels: Pixels without a class.
        num_files: Number of masks.
        num_decoded: How many of them were read; the others were known from an earlier scan.
    """

    class_pixels: NDArray[np.int64]
    ignored_pixels: int
    num_files: int
    num_decoded: int


@dataclass(frozen=True)
class _Facts:
    """What is known of one pair of files: how it is wrong, or what the mask holds."""

    counts: dict[int, int]
    decoded: bool = False
    problem: str | None = None


def scan_dataset(
    dataset: FileDataset, progress: Progress | None = None, *, decode_images: bool = False
) -> ScanReport:
    """Read every mask and check its values, and its size against the header of its image.

    Args:
        dataset: The dataset to check.
        progress: Called with the number of files done and of all files after each one.
        decode_images: Also decode every image in full, to find truncated ones.

    Raises:
        DataError: One for all files with a problem.
    """
    if not dataset.pairs:
        raise DataError("the split has no files; check dataset.root and the patterns under it")
    cache = ScanCache([mask for _, mask in dataset.pairs])
    facts = _collect(dataset, cache, progress, decode_images)
    cache.save()
    _raise_problems(dataset, facts)
    totals: Counter[int] = Counter()
    for fact in facts:
        totals.update(fact.counts)
    _check_totals(dataset.labels, totals, dataset.pairs[0][1])
    return _report(dataset.labels, totals, facts)


def check_disjoint(train: FileDataset, val: FileDataset) -> None:
    """Check that no image is in both splits.

    Raises:
        DataError: When one is; a score on images that were trained on says nothing.
    """
    train_files = {os.path.realpath(image) for image, _ in train.pairs}
    both = [str(image) for image, _ in val.pairs if os.path.realpath(image) in train_files]
    if both:
        raise DataError(
            f"{len(both)} image files are in both dataset.train and dataset.val "
            f"({', '.join(both[:_MOST_SHOWN])}{', ...' if len(both) > _MOST_SHOWN else ''}); take "
            f"them out of one"
        )


def _collect(
    dataset: FileDataset, cache: ScanCache, progress: Progress | None, decode_images: bool
) -> list[_Facts]:
    def look(pair: tuple[Path, Path]) -> _Facts:
        try:
            if decode_images:
                read_image(pair[0])
            return _look_at(pair, cache)
        except DataError as error:
            return _Facts({}, problem=str(error))

    facts = []
    # Pillow decodes outside the interpreter lock, so threads help, and they need no start-up.
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        for fact in pool.map(look, dataset.pairs):
            facts.append(fact)
            if progress is not None:
                progress(len(facts), len(dataset))
    return facts


def _look_at(pair: tuple[Path, Path], cache: ScanCache) -> _Facts:
    image, mask = pair
    size = cache.get(image)
    if size is None:
        size = list(image_size(image))
        cache.put(image, size)
    known = cache.get(mask)
    decoded = known is None
    if known is None:
        raw = read_mask(mask)
        known = [list(raw.shape), sorted(histogram(raw).items())]
        cache.put(mask, known)
    shape, counts = known
    problem = explain_shapes(size, shape, image, mask)
    if problem is not None:  # a header may hide the orientation; the pixels decide
        problem = explain_shapes(read_image(image).shape[:2], shape, image, mask)
    return _Facts({int(value): int(count) for value, count in counts}, decoded, problem)


def _raise_problems(dataset: FileDataset, facts: Sequence[_Facts]) -> None:
    labels = dataset.labels
    bad = [i for i, fact in enumerate(facts) if fact.problem or labels.outside(fact.counts)]
    if not bad:
        return
    seen = {value for fact in facts for value in fact.counts}
    first = facts[bad[0]]
    message = first.problem or labels.explain(first.counts, str(dataset.pairs[bad[0]][1]), seen)
    raise DataError(f"{message}{_others(dataset, bad[1:])}")


def _others(dataset: FileDataset, bad: Sequence[int]) -> str:
    if not bad:
        return ""
    shown = ", ".join(str(dataset.pairs[index][1]) for index in bad[:_MOST_SHOWN])
    more = ", ..." if len(bad) > _MOST_SHOWN else ""
    return (
        f" ({len(bad)} more of the {len(dataset)} masks or their images have problems: "
        f"{shown}{more})"
    )


def _check_totals(labels: LabelContract, totals: Counter[int], first: Path) -> None:
    """Find contracts that every file keeps and that still cannot be meant."""
    ids = {labels.mapping[value] for value, count in totals.items() if count}
    where = f"the masks in {first.parent}"
    plain_binary = labels.label_map is None and (labels.num_classes, labels.ignore_label) == (
        2,
        255,
    )
    if plain_binary and 255 in ids and 1 not in ids:
        raise DataError(
            f"{where} hold 255 ({totals[255]} pixels) and never 1, and 255 is the ignore label, so "
            f"class 1 does not occur; if they are binary with 255 for the object, set "
            f"{override('label_map', {0: 0, 255: 1})}"
        )
    if ids == {labels.ignore_label}:
        raise DataError(
            f"{where} hold only pixels without a class, so there is nothing to learn; check "
            f"dataset.label_map and dataset.ignore_label={labels.ignore_label}"
        )


def _report(labels: LabelContract, totals: Counter[int], facts: Sequence[_Facts]) -> ScanReport:
    class_pixels = np.zeros(labels.num_classes, dtype=np.int64)
    ignored = 0
    for value, count in totals.items():
        class_id = labels.mapping[value]
        if class_id == labels.ignore_label:
            ignored += count
        else:
            class_pixels[class_id] += count
    return ScanReport(class_pixels, ignored, len(facts), sum(fact.decoded for fact in facts))
