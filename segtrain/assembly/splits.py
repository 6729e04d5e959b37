"""The splits of a run, scanned once for all processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segtrain.assembly.opening import build_splits, dataset_title, download_once, log_fold
from segtrain.assembly.trial import try_dataset
from segtrain.data import (
    FileDataset,
    Finding,
    ImageValues,
    ScanReport,
    SegmentationDataset,
    ShardDataset,
    check_report,
    count_dataset,
    find_duplicates,
    leave_out_unreadable,
    scan_dataset,
    summarize,
)
from segtrain.data.build import has_split
from segtrain.data.loading.sampler import Order
from segtrain.engine.distributed import Processes
from segtrain.errors import DataError, SegtrainError
from segtrain.schema.sections import Config
from segtrain.terminal import logger, progress

_MAX_LISTED = 3
_DUPLICATES = {
    "overlap": "images in two splits, as dataset.allow_overlap=true allows",
    "duplicate": "images that occur twice",
}


_LeftOut = tuple[list[int], list[str]]
"""The samples that are left out of a split, and a message for each of them."""


class _Scanned(NamedTuple):
    """The findings that the main process sends to the others."""

    report: ScanReport | None
    left_out: list[_LeftOut]


class Splits:
    """The training and the validation split of a run.

    Args:
        train: The training split.
        val: The validation split.
        name: The name of the dataset in messages.
        processes: The processes of the run; the main one scans for all.

    Attributes:
        train: The training split; :meth:`check` leaves out samples that cannot be read, as far as
            `dataset.max_bad` allows.
        val: The validation split, likewise.
        opened: Both splits with all samples.
    """

    def __init__(
        self, train: SegmentationDataset, val: SegmentationDataset, name: str, processes: Processes
    ) -> None:
        self.train, self.val, self.name, self.processes = train, val, name, processes
        self.opened = (train, val)
        self._report: ScanReport | None = None
        self._checked = False

    @property
    def left_out(self) -> list[str]:
        """One message per sample that was left out of either split."""
        splits = [split for split in (self.train, self.val) if isinstance(split, FileDataset)]
        return [text for split in splits for text in split.left_out]

    @property
    def image_values(self) -> ImageValues | None:
        """The values in the image files of the training split; None before :meth:`check`."""
        return None if self._report is None else self._report.values

    def check(self) -> None:
        """Scan every file of both splits, before training starts.

        Raises:
            SegtrainError: In every process, when the data is not fit for training.
        """
        if self._checked:
            return
        scanned = _on_main(self.processes, self._scan_both)
        self._report = scanned.report
        self.train, self.val = (
            _without(split, *left_out)
            for split, left_out in zip((self.train, self.val), scanned.left_out, strict=True)
        )
        self._checked = True

    def check_sizes(self, crop_size: tuple[int, int] | None, batch_size: int) -> None:
        """Refuse training images of different sizes if they are not cropped to one size.

        Raises:
            DataError: When the images of a batch could not be stacked.
        """
        if crop_size is not None or batch_size == 1 or self._report is None:
            return
        sizes = np.unique(self._report.sizes, axis=0)
        if len(sizes) > 1:
            (least, narrow), (most, wide) = sizes[0], sizes[-1]
            raise DataError(
                f"the train images have {len(sizes)} sizes, such as {least} x {narrow} and"
                f" {most} x {wide} pixels, but the images of a batch must have one size; set"
                f" augmentation.crop_size=[{sizes[:, 0].min()},{sizes[:, 1].min()}] or another size"
            )

    def order(self, seed: int, group: int) -> Order | None:
        """The order of the samples in each epoch, for a training split in shards; else None.

        Args:
            seed: The seed of the run.
            group: Number of samples that all processes take at a time.
        """
        if not isinstance(self.train, ShardDataset):
            return None

        def order(epoch: int) -> NDArray[np.int64]:
            assert isinstance(self.train, ShardDataset)  # read late: check() may replace the split
            return self.train.epoch_order(seed, epoch, group)

        return order

    def report(self) -> ScanReport:
        """The pixel counts of the training split, the same in every process.

        Raises:
            SegtrainError: As in :meth:`check`.
        """
        self.check()
        if self._report is None:
            counted = _on_main(self.processes, lambda: _Scanned(self._count(), []))
            self._report = counted.report
        assert self._report is not None
        return self._report

    def _count(self) -> ScanReport:
        with progress("count train pixels", len(self.train)) as bar:
            return count_dataset(self.train, lambda *_: bar.advance())

    def _scan_both(self) -> _Scanned:
        if not isinstance(self.train, FileDataset) or not isinstance(self.val, FileDataset):
            for split in (self.train, self.val):
                try_dataset(split, self.name)
            return _Scanned(None, [([], []), ([], [])])
        duplicates = find_duplicates(self.train, self.val)
        check_overlap(self.train, self.val, duplicates)
        for kind, what in _DUPLICATES.items():
            _warn([item.text for item in duplicates if item.kind == kind], what)
        reports, left_out = [], []
        for name, split in (("train", self.train), ("val", self.val)):
            report, gone = _scan(name, split, self.name)
            reports.append(report)
            left_out.append(gone)
        return _Scanned(reports[0], left_out)


def _on_main(processes: Processes, scan: Callable[[], _Scanned]) -> _Scanned:
    """Scan in the main process; raise in every process when that fails."""
    found: _Scanned | SegtrainError | None = None
    if processes.is_main:
        try:
            found = scan()
        except SegtrainError as error:
            found = error
    shared = processes.gather(found)[0]
    if isinstance(found, SegtrainError):
        raise found
    if isinstance(shared, SegtrainError):  # only the main process prints the details
        raise DataError("the main process found an error in the data, see its message")
    assert isinstance(shared, _Scanned)
    return shared


def _scan(name: str, split: FileDataset, title: str) -> tuple[ScanReport, _LeftOut]:
    """Scan a split; return its counts, and the samples that are left out of it."""
    log_notes(split)
    with progress(f"check {name} masks", len(split)) as bar:
        report, fewer = scan_split(split, lambda *_: bar.advance())
    try_dataset(fewer, title)
    _warn(fewer.left_out, f"samples of the {name} split that are left out")
    ignored = [finding.text for finding in report.findings if finding.kind == "ignored"]
    _warn(ignored, f"masks of the {name} split that are ignored as a whole")
    for finding in report.findings:
        if finding.kind in ("oriented", "soft"):
            logger.info("%s", finding.text)
    _warn_of_absent_classes(fewer, report, name)
    return report, _left_out(split, fewer)


def _left_out(split: FileDataset, fewer: FileDataset) -> _LeftOut:
    gone: list[int] = []
    if len(fewer) < len(split):
        kept = {files.name for files in fewer.files}
        gone = [index for index, files in enumerate(split.files) if files.name not in kept]
    return gone, fewer.left_out[len(split.left_out) :]


def _without(
    split: SegmentationDataset, indices: list[int], reasons: list[str]
) -> SegmentationDataset:
    return split.without(indices, reasons) if isinstance(split, FileDataset) and indices else split


def check_overlap(train: FileDataset, other: FileDataset, duplicates: Sequence[Finding]) -> None:
    """Refuse images that are in two splits, unless the dataset allows them.

    Args:
        train: The training split.
        other: The validation or the test split.
        duplicates: The findings of :func:`~segtrain.data.find_duplicates` about these splits.

    Raises:
        DataError: One error for all such images.
    """
    overlap = [finding for finding in duplicates if finding.kind == "overlap"]
    if overlap and not train.allow_overlap:
        raise DataError(summarize(overlap, len(train) + len(other)))


def scan_split(
    split: FileDataset, progress: Callable[[int, int], object] | None = None
) -> tuple[ScanReport, FileDataset]:
    """Scan a split before training; return its counts and the samples to train on.

    Where `dataset.max_bad` allows to leave samples out, every image is decoded once, so that no
    damaged image can end the run later. Images in shards were decoded when they were written.

    Raises:
        DataError: As in :func:`sound_part`.
    """
    decode = split.max_bad > 0 and not isinstance(split, ShardDataset)
    return sound_part(split, scan_dataset(split, progress, decode_images=decode))


def scan_on_main(
    split: FileDataset, processes: Processes
) -> tuple[ScanReport | None, SegmentationDataset]:
    """Scan a split in the main process; every process returns the same samples.

    Raises:
        DataError: As in :func:`sound_part`, in every process.
    """

    def scan() -> _Scanned:
        report, fewer = scan_split(split)
        return _Scanned(report, [_left_out(split, fewer)])

    scanned = _on_main(processes, scan)
    return scanned.report, _without(split, *scanned.left_out[0])


def sound_part(split: FileDataset, report: ScanReport) -> tuple[ScanReport, FileDataset]:
    """Return the counts of the readable part of a split, and that part.

    Args:
        split: A split.
        report: The result of its scan.

    Raises:
        DataError: When too many samples would be left out, or the rest is not fit for training.
    """
    fewer = leave_out_unreadable(split, report)
    if len(fewer) < len(split):
        report = scan_dataset(fewer)
    check_report(report)
    return report, fewer


def _warn_of_absent_classes(split: FileDataset, report: ScanReport, name: str) -> None:
    pixels = zip(split.class_names, report.class_pixels, strict=True)
    absent = [class_name for class_name, count in pixels if not count]
    if absent:
        logger.warning("no pixel of %s in the %s split", ", ".join(absent), name)


def _warn(texts: Sequence[str], what: str) -> None:
    if texts:
        more = "; ..." if len(texts) > _MAX_LISTED else ""
        logger.warning("%s: %d (%s%s)", what, len(texts), "; ".join(texts[:_MAX_LISTED]), more)


def open_splits(config: Config, processes: Processes) -> Splits:
    """Open the splits of a run without scanning them."""
    download_once(config.dataset, processes)
    train, val = build_splits(config.dataset, ("train", "val"), processes)
    if processes.is_main:
        log_fold(config.dataset)
    return Splits(train, val, dataset_title(config), processes)


def log_notes(split: FileDataset) -> None:
    """Log how the files of a split were paired, and which ones were passed over."""
    for note in split.notes:
        logger.info("%s", note)


def open_test_split(
    config: Config, opened: Sequence[SegmentationDataset], processes: Processes
) -> SegmentationDataset | None:
    """Open the test split of a run and check it, as :meth:`Splits.check` does for the others.

    Args:
        config: The configuration of the run.
        opened: The training and the validation split, as they were opened.
        processes: The processes of the run; the main one scans for all.

    Returns:
        The split without the samples that cannot be read, as far as `dataset.max_bad` allows; None
        if there is no test split.

    Raises:
        SegtrainError: In every process, when the split cannot be opened or is not fit for an
            evaluation, or when it shares an image with another split.
    """
    if not has_split(config.dataset, "test"):
        return None
    (test,) = build_splits(config.dataset, ["test"], processes)
    train, val = opened
    title = dataset_title(config)

    def scan() -> _Scanned:
        if not isinstance(train, FileDataset) or not isinstance(test, FileDataset):
            try_dataset(test, title)
            return _Scanned(None, [([], [])])
        other = val if isinstance(val, FileDataset) else None
        found = [item for item in find_duplicates(train, other, test) if "test" in item.splits]
        check_overlap(train, test, found)
        for kind, what in _DUPLICATES.items():
            _warn([item.text for item in found if item.kind == kind], what)
        return _Scanned(None, [_scan("test", test, title)[1]])

    return _without(test, *_on_main(processes, scan).left_out[0])
