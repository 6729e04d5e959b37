"""The look at every file before the first step, so that a wrong one is found in seconds.

Masks are decoded and counted, images are compared with them by their headers, and what was found is
kept for the next time. A scan collects what is wrong; :func:`check_report` raises it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segtrain.data.dataset import FileDataset, SampleFiles, SegmentationDataset, explain_shapes
from segtrain.data.io.raster import JPEG_END, PNG_END
from segtrain.data.io.storage import open_file
from segtrain.data.labels.advice import override
from segtrain.data.labels.contract import LabelContract
from segtrain.data.labels.label_map import OTHER
from segtrain.data.labels.mask_facts import MaskFacts
from segtrain.data.scan.cache import ScanCache
from segtrain.data.scan.findings import Finding, summarize
from segtrain.data.scan.statistics import image_moments
from segtrain.errors import DataError

_MOST_THREADS = 8
_ENDS = {".jpg": JPEG_END, ".jpeg": JPEG_END, ".png": PNG_END}
_WHITE, _TWO = 255, 2  # the value and the number of classes of binary masks
_DOUBTFUL, _HEADER, _DECODED = -1, 0, 1  # how well an image was looked at
Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class ScanReport:
    """What a scan counted and found.

    Args:
        class_pixels: Pixels of each class id, int64, shape ``(num_ids,)``.
        ignored_pixels: Pixels without a class.
        image_pixels: Pixels of each class id in each image, int64, shape ``(N, num_ids)``.
        sizes: Height and width of each image, int64, shape ``(N, 2)``; 0 where unknown.
        num_files: Number of samples.
        num_decoded: How many masks were read; the others were known from an earlier scan.
        findings: What is wrong, in the order of the samples.
        moments: Mean and deviation of each channel of each image, of pixels from 0 to 1, float64,
            shape ``(N, 2, channels)``; NaN where an image was not decoded.
    """

    class_pixels: NDArray[np.int64]
    ignored_pixels: int
    image_pixels: NDArray[np.int64]
    sizes: NDArray[np.int64]
    num_files: int
    num_decoded: int
    findings: tuple[Finding, ...] = ()
    moments: NDArray[np.float64] | None = None


class _Look(NamedTuple):
    """What is known of one sample."""

    size: tuple[int, int] = (0, 0)
    facts: MaskFacts | None = None
    decoded: bool = False
    finding: Finding | None = None
    moments: Sequence[Sequence[float]] | None = None


def scan_dataset(
    dataset: FileDataset, progress: Progress | None = None, *, decode_images: bool = False
) -> ScanReport:
    """Count every mask, check its values, and its size against the header of its image.

    Args:
        dataset: The dataset to look at.
        progress: Called with the number of files done and of all files after each one.
        decode_images: Also decode every image in full. Without it, a JPEG or PNG file that lacks
            its end is decoded, and so is one that could not be decoded in an earlier scan; whatever
            else a header cannot tell is not found.

    Returns:
        What was counted and what is wrong; nothing is raised for a single file.

    Raises:
        DataError: When there is nothing to look at.
    """
    if not dataset.files:
        raise DataError("the split has no files; check dataset.root and the patterns under it")
    cache = ScanCache([files.mask for files in dataset.files])
    looks = _look_at_all(dataset, cache, progress, decode_images)
    cache.save()
    labels = dataset.labels
    pixels = np.zeros((len(looks), labels.num_ids), dtype=np.int64)
    ignored = 0
    findings = [Finding("left_out", text.partition(": ")[0], text) for text in dataset.left_out]
    seen = {value for look in looks if look.facts for value in look.facts.values}
    for index, (files, look) in enumerate(zip(dataset.files, looks, strict=True)):
        finding = look.finding
        if look.facts is not None:
            pixels[index], without = labels.class_pixels(look.facts)
            ignored += without
            finding = finding or _judge(labels, look.facts, files, index, seen)
            if finding is None and not labels.multi_label and not pixels[index].any():
                text = f"{files.mask}: the mask has no pixel of a class"
                finding = Finding("ignored", str(files.mask), text, index)
        if finding is not None:
            findings.append(finding)
    findings += _judge_all(labels, looks, pixels, dataset.files[0].mask)
    return ScanReport(
        pixels.sum(0),
        ignored,
        pixels,
        np.array([look.size for look in looks], dtype=np.int64),
        len(looks),
        sum(look.decoded for look in looks),
        tuple(findings),
        _all_moments(looks, dataset.channels),
    )


def count_dataset(dataset: SegmentationDataset, progress: Progress | None = None) -> ScanReport:
    """Count the targets of a dataset that is not made of files, by asking for every sample.

    Args:
        dataset: The dataset to count.
        progress: Called with the number of samples done and of all samples after each one.

    Raises:
        DataError: When a target is outside the contract.
    """
    labels = dataset.labels
    pixels = np.zeros((len(dataset), labels.num_ids), dtype=np.int64)
    sizes = np.zeros((len(dataset), 2), dtype=np.int64)
    moments = np.full((len(dataset), 2, dataset.channels), np.nan)
    ignored = 0
    for index in range(len(dataset)):
        image, target, name = dataset[index]
        labels.check_ids(target, name)
        sizes[index], moments[index] = target.shape[:2], image_moments(image)
        for class_id in range(labels.num_ids):
            there = target[..., class_id] == 1 if labels.multi_label else target == class_id
            pixels[index, class_id] = there.sum()
        ignored += int((target == labels.ignore_label).sum())
        if progress is not None:
            progress(index + 1, len(dataset))
    total = len(dataset)
    return ScanReport(pixels.sum(0), ignored, pixels, sizes, total, total, (), moments)


def check_report(report: ScanReport) -> None:
    """Raise what would make training go wrong.

    Raises:
        DataError: One for all files with a problem.
    """
    errors = [finding for finding in report.findings if finding.is_error]
    if errors:
        raise DataError(summarize(errors, report.num_files))


def leave_out_unreadable(dataset: FileDataset, report: ScanReport) -> FileDataset:
    """`dataset` without the samples that cannot be read, as far as its `max_bad` allows.

    Raises:
        DataError: When it does not.
    """
    bad = [finding for finding in report.findings if finding.kind in ("unreadable", "size")]
    if not bad or not dataset.max_bad:
        return dataset
    indices = {finding.sample for finding in bad if finding.sample is not None}
    return dataset.without(indices, [finding.text for finding in bad])


def _look_at_all(
    dataset: FileDataset, cache: ScanCache, progress: Progress | None, decode_images: bool
) -> list[_Look]:
    def look(index: int) -> _Look:
        files = dataset.files[index]
        try:
            return _look_at(dataset, index, cache, decode_images)
        except DataError as error:
            name = str(files.image if str(error).startswith(str(files.image)) else files.mask)
            return _Look(finding=Finding("unreadable", name, str(error), index))

    looks = []
    # The decoders work outside the interpreter lock, so threads help, and they need no start-up.
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        for found in pool.map(look, range(len(dataset))):
            looks.append(found)
            if progress is not None:
                progress(len(looks), len(dataset))
    return looks


def _look_at(dataset: FileDataset, index: int, cache: ScanCache, decode_images: bool) -> _Look:
    files = dataset.files[index]
    known = dataset.known_facts(index)
    moments = None
    if known is not None:
        (size, facts), decoded = known, False
        if decode_images:
            moments = image_moments(dataset.read_image(index)).tolist()
    else:
        height, width, _, *moments = _image_facts(dataset, index, cache, decode_images)
        size = height, width
        facts, decoded = _mask_facts(dataset, index, cache)
    problem = explain_shapes(size, facts.shape, files, dataset.reader.exif)
    if problem is not None and known is None:  # a header may hide the orientation
        size = dataset.read_image(index).shape[:2]
        problem = explain_shapes(size, facts.shape, files, dataset.reader.exif)
    finding = None if problem is None else Finding("size", str(files.mask), problem, index)
    return _Look((size[0], size[1]), facts, decoded, finding, moments)


def _image_facts(dataset: FileDataset, index: int, cache: ScanCache, decode: bool) -> list[Any]:
    """Height, width, how well it was looked at; mean and deviation where that was in full."""
    image, reader = dataset.files[index].image, dataset.reader
    kind = f"image {reader}"
    stored: list[Any] | None = cache.get(kind, image)
    if stored is not None and (len(stored) > 3 or (stored[2] > _DOUBTFUL and not decode)):
        return stored
    if decode or stored is not None or not _has_end(image):
        try:
            pixels = dataset.read_image(index)
        except DataError:
            # What keeps it from being decoded may pass, so a later scan tries again, in full.
            with contextlib.suppress(OSError):
                cache.put([0, 0, _DOUBTFUL], kind, image)
            raise
        found = [*pixels.shape[:2], _DECODED, *image_moments(pixels).tolist()]
    else:
        found = [*reader.size(image), _HEADER]
    cache.put(found, kind, image)
    return found


def _all_moments(looks: Sequence[_Look], channels: int) -> NDArray[np.float64]:
    moments = np.full((len(looks), 2, channels), np.nan)
    for index, look in enumerate(looks):
        if look.moments:
            moments[index] = look.moments
    return moments


def _mask_facts(dataset: FileDataset, index: int, cache: ScanCache) -> tuple[MaskFacts, bool]:
    masks = [mask for mask in dataset.files[index].masks if mask is not None]
    kind = f"mask {dataset.mask_kind(index)}"
    stored = cache.get(kind, *masks)
    if stored is not None:
        return MaskFacts.from_json(stored), False
    facts = dataset.labels.count(dataset.read_mask(index))
    cache.put(facts.to_json(), kind, *masks)
    return facts, True


def _has_end(image: Path) -> bool:
    """Whether a JPEG or PNG file has its last bytes, which one that was cut short lacks."""
    end = _ENDS.get(image.suffix.lower())
    if end is None:
        return True
    try:
        with open_file(image) as stream:
            stream.seek(-len(end), os.SEEK_END)
            return stream.read() == end
    except OSError:
        return False


def _judge(
    labels: LabelContract, facts: MaskFacts, files: SampleFiles, index: int, seen: set[int]
) -> Finding | None:
    problem = labels.explain(facts, str(files.mask), seen)
    return None if problem is None else Finding("values", str(files.mask), problem, index)


def _judge_all(
    labels: LabelContract, looks: Sequence[_Look], pixels: NDArray[np.int64], first: Path
) -> list[Finding]:
    """Find contracts that every file keeps and that still cannot be meant."""
    found = [look.facts for look in looks if look.facts is not None]
    if not found or any(labels.outside(facts) for facts in found):
        return []
    where = f"the masks in {first.parent}"
    ignored = sum(channel.get(_WHITE, 0) for facts in found for channel in facts.counts)
    is_binary = labels.multi_label or labels.num_ids == _TWO
    objects = pixels if labels.multi_label else pixels[:, 1:]
    if is_binary and labels.mapping.get(_WHITE) == _WHITE and ignored and not objects.any():
        given = {0: 0} if labels.label_map is None else labels.map.values
        text = (
            f"{where} hold 255 ({ignored} pixels) and never 1, and 255 is the ignore label, so "
            f"{'no class occurs' if labels.multi_label else 'class 1 does not occur'}; if they are"
            " binary with 255 for the object, set"
            f" {override('label_map', {**given, _WHITE: 1, **_other_of(labels)})}"
        )
        return [Finding("contract", "", text)]
    if not pixels.any():
        what = "no pixel of any class" if labels.multi_label else "only pixels without a class"
        text = (
            f"{where} hold {what}, so there is nothing to learn; check dataset.label_map and"
            f" dataset.ignore_label={labels.ignore_label}"
        )
        return [Finding("contract", "", text)]
    return []


def _other_of(labels: LabelContract) -> dict[str, int]:
    return {} if labels.map.other is None else {OTHER: labels.map.other}
