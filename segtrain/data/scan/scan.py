"""A scan of every file before the first step, so that a wrong one is found within seconds.

Masks are decoded and counted, images are compared with them by their headers, and the results are
cached for the next scan. A scan collects problems; :func:`check_report` raises them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segtrain.data.dataset import FileDataset, SegmentationDataset, explain_shapes
from segtrain.data.io.raster import JPEG_END, PNG_END, UPRIGHT
from segtrain.data.io.storage import open_file
from segtrain.data.labels.contract import LabelContract
from segtrain.data.labels.label_map import OTHER
from segtrain.data.labels.mask_facts import MaskFacts, total_counts
from segtrain.data.labels.wording import override, percent
from segtrain.data.scan.cache import ScanCache
from segtrain.data.scan.findings import Finding, summarize
from segtrain.data.scan.image_files import check_orientations, check_values, probe_images
from segtrain.data.scan.normalization import image_mean_std
from segtrain.data.scan.report import RememberedReport, ScanReport, left_out_findings
from segtrain.errors import DataError, SizeError

_MAX_THREADS = 8
_ENDS = {".jpg": JPEG_END, ".jpeg": JPEG_END, ".png": PNG_END}
_WHITE, _TWO = 255, 2  # the value and the number of classes of binary masks
_HEADER_FACTS = 4  # of an image that was not decoded
_NEAR = 32  # of a threshold between two classes
_FAILED, _HEADER, _DECODED = -1, 0, 1  # how an image was read
Progress = Callable[[int, int], object]


class _ScannedSample(NamedTuple):
    """The facts about one sample, or the finding that kept the scan from them."""

    size: tuple[int, int] = (0, 0)
    facts: MaskFacts | None = None
    finding: Finding | None = None
    mean_std: Sequence[Sequence[float]] | None = None
    orientation: int = UPRIGHT


def scan_dataset(
    dataset: FileDataset, progress: Progress | None = None, *, decode_images: bool = False
) -> ScanReport:
    """Count every mask, check its values, and compare its size with the header of its image.

    Args:
        dataset: The dataset to scan.
        progress: Called after each file with the number of files done and of all files.
        decode_images: Whether to decode every image in full. Without it, only these images are: a
            JPEG or PNG file that lacks its end, and one that could not be decoded in an earlier
            scan. Other damage that a header does not show is not found.

    Returns:
        Counts and problems; nothing is raised for a single file.

    Raises:
        DataError: When the dataset has no files.
    """
    if not dataset.files:
        raise DataError("the split has no files; check dataset.root and the patterns under it")
    remembered = RememberedReport(dataset, decode_images=decode_images)
    known = remembered.load()
    if known is not None:
        return known
    cache = ScanCache([files.mask for files in dataset.files])
    samples = _scan_samples(dataset, cache, progress, decode_images)
    cache.save()
    pixels = np.zeros((len(samples), dataset.labels.num_ids), dtype=np.int64)
    invalid = np.zeros(len(samples), dtype=np.int64)
    ignored = 0
    for index, sample in enumerate(samples):
        if sample.facts is not None:
            pixels[index], without = dataset.labels.class_pixels(sample.facts)
            invalid[index] = sample.facts.invalid
            ignored += without
    findings = left_out_findings(dataset)
    findings += _check_samples(dataset, samples, pixels)
    findings += _check_contract(dataset, samples, pixels)
    findings += _check_soft(dataset, samples)
    orientations = [sample.orientation for sample in samples]
    findings += check_orientations(dataset, orientations, [sample.size for sample in samples])
    values = probe_images(dataset)
    findings += check_values(dataset, values)
    sizes = np.array([sample.size for sample in samples], dtype=np.int64)
    mean_std = _all_mean_std(samples, dataset.channels)
    report = ScanReport(pixels, ignored, sizes, tuple(findings), mean_std, invalid, values)
    remembered.save(report)
    return report


def count_dataset(dataset: SegmentationDataset, progress: Progress | None = None) -> ScanReport:
    """Count the targets of a dataset that is not made of files, by reading every sample.

    Args:
        dataset: The dataset to count.
        progress: Called after each sample with the number of samples done and of all samples.

    Raises:
        DataError: When a target holds a value outside the contract.
    """
    labels, total = dataset.labels, len(dataset)
    pixels = np.zeros((total, labels.num_ids), dtype=np.int64)
    sizes = np.zeros((total, 2), dtype=np.int64)
    mean_std = np.full((total, 3, dataset.channels), np.nan)
    ignored = 0
    for index in range(total):
        image, target, name = dataset[index]
        labels.check_ids(target, name)
        sizes[index], mean_std[index] = target.shape[:2], image_mean_std(image)
        for class_id in range(labels.num_ids):
            there = target[..., class_id] == 1 if labels.multi_label else target == class_id
            pixels[index, class_id] = there.sum()
        ignored += int((target == labels.ignore_label).sum())
        if progress is not None:
            progress(index + 1, total)
    return ScanReport(pixels, ignored, sizes, (), mean_std, np.zeros(total, dtype=np.int64))


def check_report(report: ScanReport) -> None:
    """Raise the problems that would make training go wrong.

    Raises:
        DataError: One error for all files with a problem.
    """
    errors = [finding for finding in report.findings if finding.is_error]
    if errors:
        raise DataError(summarize(errors, report.num_files))


def leave_out_unreadable(dataset: FileDataset, report: ScanReport) -> FileDataset:
    """Return `dataset` without the samples that cannot be read, if its `max_bad` allows it.

    Raises:
        DataError: When `max_bad` is above 0 and more samples than it allows cannot be read.
    """
    bad = [finding for finding in report.findings if finding.kind in ("unreadable", "size")]
    if not bad or not dataset.max_bad:
        return dataset
    indices = {finding.sample for finding in bad if finding.sample is not None}
    return dataset.without(indices, [finding.text for finding in bad])


def _scan_samples(
    dataset: FileDataset, cache: ScanCache, progress: Progress | None, decode_images: bool
) -> list[_ScannedSample]:
    def scan(index: int) -> _ScannedSample:
        files = dataset.files[index]
        try:
            return _scan_sample(dataset, index, cache, decode_images)
        except DataError as error:
            kind = "size" if isinstance(error, SizeError) else "unreadable"
            places = [str(file) for file in (files.image, files.valid) if file is not None]
            named = [place for place in places if str(error).startswith(place)]
            name = named[0] if named else str(files.mask)
            return _ScannedSample(finding=Finding(kind, name, str(error), index))

    samples = []
    # The decoders release the interpreter lock, so threads help, and they need no start-up.
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        for sample in pool.map(scan, range(len(dataset))):
            samples.append(sample)
            if progress is not None:
                progress(len(samples), len(dataset))
    return samples


def _scan_sample(
    dataset: FileDataset, index: int, cache: ScanCache, decode_images: bool
) -> _ScannedSample:
    files = dataset.files[index]
    known = dataset.known_facts(index)
    mean_std, orientation = None, UPRIGHT
    if known is not None:
        size, facts = known
        if decode_images:
            mean_std = image_mean_std(dataset.read_image(index)).tolist()
    else:
        height, width, _, orientation, *mean_std = _image_facts(
            dataset, index, cache, decode_images
        )
        size = height, width
        facts = _mask_facts(dataset, index, cache)
    problem = explain_shapes(size, facts.shape, files, dataset.reader.turns)
    if problem is not None and known is None:  # the header may not show the orientation
        size = dataset.read_image(index).shape[:2]
        problem = explain_shapes(size, facts.shape, files, dataset.reader.turns)
    finding = None if problem is None else Finding("size", str(files.mask), problem, index)
    return _ScannedSample((size[0], size[1]), facts, finding, mean_std, orientation)


def _image_facts(dataset: FileDataset, index: int, cache: ScanCache, decode: bool) -> list[Any]:
    """Return height, width, how the image was read, its orientation; mean and std if decoded."""
    image, reader = dataset.files[index].image, dataset.reader
    kind = f"image {reader}"
    stored: list[Any] | None = cache.get(kind, image)
    if stored is not None and (len(stored) > _HEADER_FACTS or (stored[2] > _FAILED and not decode)):
        return stored
    if decode or stored is not None or not _has_end(image):
        try:
            pixels = dataset.read_image(index)
        except DataError:
            # The cause of the failure may pass, so a later scan decodes the image again.
            with contextlib.suppress(OSError):
                cache.put([0, 0, _FAILED, UPRIGHT], kind, image)
            raise
        *_, orientation = reader.header(image)
        found = [*pixels.shape[:2], _DECODED, orientation, *image_mean_std(pixels).tolist()]
    else:
        height, width, orientation = reader.header(image)
        found = [height, width, _HEADER, orientation]
    cache.put(found, kind, image)
    return found


def _all_mean_std(samples: Sequence[_ScannedSample], channels: int) -> NDArray[np.float64]:
    mean_std = np.full((len(samples), 3, channels), np.nan)
    for index, sample in enumerate(samples):
        if sample.mean_std:
            mean_std[index] = sample.mean_std
    return mean_std


def _mask_facts(dataset: FileDataset, index: int, cache: ScanCache) -> MaskFacts:
    files = dataset.files[index]
    kind = f"mask{'' if files.valid is None else ' and valid'} {dataset.mask_kind(index)}"
    read = [file for file in (*files.masks, files.valid) if file is not None]
    stored = cache.get(kind, *read)
    if stored is not None:
        return MaskFacts.from_json(stored)
    facts = dataset.count_mask(index)
    cache.put(facts.to_json(), kind, *read)
    return facts


def _has_end(image: Path) -> bool:
    """Return whether a JPEG or PNG file has its last bytes; a truncated file lacks them."""
    end = _ENDS.get(image.suffix.lower())
    if end is None:
        return True
    try:
        with open_file(image) as stream:
            stream.seek(-len(end), os.SEEK_END)
            return stream.read() == end
    except OSError:
        return False


def _check_samples(
    dataset: FileDataset, samples: Sequence[_ScannedSample], pixels: NDArray[np.int64]
) -> Iterator[Finding]:
    """Find the first problem of each sample."""
    labels = dataset.labels
    seen = total_counts(sample.facts for sample in samples if sample.facts is not None)
    for index, (files, sample) in enumerate(zip(dataset.files, samples, strict=True)):
        mask = str(files.mask)
        if sample.finding is not None:
            yield sample.finding
        elif sample.facts is not None:
            problem = labels.explain(sample.facts, mask, seen)
            if problem is not None:
                yield Finding("values", mask, problem, index)
            elif not labels.multi_label and not pixels[index].any():
                text = f"{mask}: the mask has no pixel of a class"
                yield Finding("ignored", mask, text, index)


def _check_contract(
    dataset: FileDataset, samples: Sequence[_ScannedSample], pixels: NDArray[np.int64]
) -> Iterator[Finding]:
    """Find a contract that fits every file and is still not the intended one."""
    labels = dataset.labels
    found = [sample.facts for sample in samples if sample.facts is not None]
    if not found or any(labels.outside(facts) for facts in found):
        return
    where = f"the masks in {dataset.files[0].mask.parent}"
    white = sum(channel.get(_WHITE, 0) for facts in found for channel in facts.counts)
    if white and _ignores_all_objects(labels, pixels):
        given = {0: 0} if labels.label_map is None else labels.map.values
        other = {} if labels.map.other is None else {OTHER: labels.map.other}
        text = (
            f"{where} hold 255 ({white} pixels) and never 1, and 255 is the ignore label, so "
            f"{'no class occurs' if labels.multi_label else 'class 1 does not occur'}; if they are"
            f" binary with 255 for the object, set"
            f" {override('label_map', {**given, _WHITE: 1, **other})}"
        )
        yield Finding("contract", "", text)
    elif not pixels.any():
        what = "no pixel of any class" if labels.multi_label else "only pixels without a class"
        text = (
            f"{where} hold {what}, so there is nothing to learn; check dataset.label_map and"
            f" dataset.ignore_label={labels.ignore_label}"
        )
        yield Finding("contract", "", text)


def _check_soft(dataset: FileDataset, samples: Sequence[_ScannedSample]) -> Iterator[Finding]:
    """Say how many pixels of masks that are read by ranges lie near a threshold."""
    labels = dataset.labels
    facts = [sample.facts for sample in samples if sample.facts is not None]
    if not labels.reads_ranges or not facts or labels.multi_label:
        return
    counts, mapping = total_counts(facts), labels.mapping
    known = [mapping.get(value, labels.map.other) for value in range(_WHITE + 1)]
    edges = [value for value in range(_WHITE) if known[value] != known[value + 1]]
    near = sum(
        n for v, n in counts.items() if any(-_NEAR <= v - edge - 1 < _NEAR for edge in edges)
    )
    if not near:
        return
    text = (
        f"the masks in {dataset.files[0].mask.parent} hold {len(counts)} values, read by ranges;"
        f" {percent(near, sum(counts.values()))} of the pixels are within {_NEAR} of a threshold"
    )
    yield Finding("soft", "", text)


def _ignores_all_objects(labels: LabelContract, pixels: NDArray[np.int64]) -> bool:
    """Return whether a binary contract ignores 255, and no mask holds its object."""
    is_binary = labels.multi_label or labels.num_ids == _TWO
    objects = pixels if labels.multi_label else pixels[:, 1:]
    return is_binary and labels.mapping.get(_WHITE) == _WHITE and not objects.any()
