"""The two splits of a run, looked at once, by one process, for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segtrain.assembly.trial import try_dataset
from segtrain.data import (
    DATASETS,
    FileDataset,
    Finding,
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
from segtrain.data.loading.sampler import Order
from segtrain.engine.distributed import Processes
from segtrain.errors import DataError, SegtrainError
from segtrain.schema.sections import Config, Spec
from segtrain.terminal import logger, progress

_MOST_SAID = 3
_DOUBLES = {
    "overlap": "images in both splits, as dataset.allow_overlap=true allows",
    "duplicate": "images that are there twice",
}


class _Looked(NamedTuple):
    """What the main process tells the others."""

    report: ScanReport | None
    left_out: list[tuple[list[int], list[str]]]


class Splits:
    """The training and the validation split of a run.

    Args:
        train: The training split.
        val: The validation split.
        name: What the dataset is called in messages.
        processes: Those of the run; the main one looks.

    Attributes:
        train: As given; after :meth:`check` without the samples that cannot be read, as far as
            `dataset.max_bad` allows that.
        val: Likewise.
    """

    def __init__(
        self, train: SegmentationDataset, val: SegmentationDataset, name: str, processes: Processes
    ) -> None:
        self.train, self.val, self.name, self.processes = train, val, name, processes
        self._report: ScanReport | None = None
        self._checked = False

    @property
    def left_out(self) -> list[str]:
        """What was left out of both splits, a sentence each."""
        splits = [split for split in (self.train, self.val) if isinstance(split, FileDataset)]
        return [text for split in splits for text in split.left_out]

    def check(self) -> None:
        """Look at every file of both splits, before anything is trained.

        Raises:
            SegtrainError: In every process, when training would go wrong.
        """
        if self._checked:
            return
        looked = self._on_main(self._look)
        self._report = looked.report
        kept: list[SegmentationDataset] = []
        for split, (indices, reasons) in zip((self.train, self.val), looked.left_out, strict=True):
            if isinstance(split, FileDataset) and indices:
                kept.append(split.without(indices, reasons))
            else:
                kept.append(split)
        self.train, self.val = kept
        self._checked = True

    def check_sizes(self, crop_size: tuple[int, int] | None, batch_size: int) -> None:
        """Refuse training images of several sizes where nothing makes them one.

        Raises:
            DataError: When a batch could not be stacked.
        """
        if crop_size is not None or batch_size == 1 or self._report is None:
            return
        sizes = np.unique(self._report.sizes, axis=0)
        if len(sizes) > 1:
            (least, narrow), (most, wide) = sizes[0], sizes[-1]
            raise DataError(
                f"the train images are of {len(sizes)} sizes, such as {least} x {narrow} and"
                f" {most} x {wide} pixels, and those of a batch must be of one; set"
                f" augmentation.crop_size=[{sizes[:, 0].min()},{sizes[:, 1].min()}] or another size"
            )

    def order(self, seed: int, group: int) -> Order | None:
        """The order of the epochs of a training split in shards; None: any order will do.

        Args:
            seed: The seed of the run.
            group: Samples that the processes share out at a time.
        """
        if not isinstance(self.train, ShardDataset):
            return None

        def order(epoch: int) -> NDArray[np.int64]:
            assert isinstance(self.train, ShardDataset)  # samples may have been left out since
            return self.train.epoch_order(seed, epoch, group)

        return order

    def report(self) -> ScanReport:
        """What was counted in the training split, the same in every process.

        Raises:
            SegtrainError: As :meth:`check`.
        """
        self.check()
        if self._report is None:
            looked = self._on_main(lambda: _Looked(self._count(), []))
            self._report = looked.report
        assert self._report is not None
        return self._report

    def _count(self) -> ScanReport:
        with progress("count train pixels", len(self.train)) as bar:
            return count_dataset(self.train, lambda *_: bar.advance())

    def _on_main(self, look: Callable[[], _Looked]) -> _Looked:
        found: _Looked | SegtrainError | None = None
        if self.processes.is_main:
            try:
                found = look()
            except SegtrainError as error:
                found = error
        shared = self.processes.gather(found)[0]
        if isinstance(found, SegtrainError):
            raise found
        if isinstance(shared, SegtrainError):  # said once, by the main process
            raise DataError("the main process found a mistake in the data, see its message")
        assert isinstance(shared, _Looked)
        return shared

    def _look(self) -> _Looked:
        if not isinstance(self.train, FileDataset) or not isinstance(self.val, FileDataset):
            for split in (self.train, self.val):
                try_dataset(split, self.name)
            return _Looked(None, [([], []), ([], [])])
        doubles = find_duplicates(self.train, self.val)
        check_overlap(self.train, self.val, doubles)
        for kind, what in _DOUBLES.items():
            _warn([item.text for item in doubles if item.kind == kind], what)
        reports, left_out = [], []
        for name, split in (("train", self.train), ("val", self.val)):
            report, fewer = self._scan(name, split)
            reports.append(report)
            kept = {files.name for files in fewer.files}
            gone = [index for index, files in enumerate(split.files) if files.name not in kept]
            left_out.append((gone, fewer.left_out[len(split.left_out) :]))
            _say_absent(fewer, report, name)
        return _Looked(reports[0], left_out)

    def _scan(self, name: str, split: FileDataset) -> tuple[ScanReport, FileDataset]:
        with progress(f"check {name} masks", len(split)) as bar:
            report, fewer = scan_split(split, lambda *_: bar.advance())
        try_dataset(fewer, self.name)
        _warn(fewer.left_out, f"samples of the {name} split that are left out")
        ignored = [finding.text for finding in report.findings if finding.kind == "ignored"]
        _warn(ignored, f"masks of the {name} split that are ignored as a whole")
        return report, fewer


def check_overlap(train: FileDataset, val: FileDataset, doubles: Sequence[Finding]) -> None:
    """Refuse images in both splits, unless the dataset allows them.

    Args:
        train: One split.
        val: The other.
        doubles: As from :func:`~segtrain.data.find_duplicates`.

    Raises:
        DataError: One for all of them.
    """
    overlap = [finding for finding in doubles if finding.kind == "overlap"]
    if overlap and not train.allow_overlap:
        raise DataError(summarize(overlap, len(train) + len(val)))


def scan_split(
    split: FileDataset, progress: Callable[[int, int], object] | None = None
) -> tuple[ScanReport, FileDataset]:
    """Look at every file of a split, as long as that is needed before training.

    Images are decoded in full, once, where some may be left out: whoever allows that wants no
    damaged one to end the run. Not so in shards, whose images were decoded when they were written.

    Raises:
        DataError: As :func:`sound_part`.
    """
    decode = split.max_bad > 0 and not isinstance(split, ShardDataset)
    return sound_part(split, scan_dataset(split, progress, decode_images=decode))


def sound_part(split: FileDataset, report: ScanReport) -> tuple[ScanReport, FileDataset]:
    """What training would go on with: the split without what cannot be read, and its counts.

    Args:
        split: A split.
        report: What a scan of it found.

    Raises:
        DataError: When too much would be left out, or training would go wrong on the rest.
    """
    fewer = leave_out_unreadable(split, report)
    if len(fewer) < len(split):
        report = scan_dataset(fewer)
    check_report(report)
    return report, fewer


def _say_absent(split: FileDataset, report: ScanReport, name: str) -> None:
    pixels = zip(split.class_names, report.class_pixels, strict=True)
    absent = [class_name for class_name, count in pixels if not count]
    if absent:
        logger.warning("no pixel of %s in the %s split", ", ".join(absent), name)


def _warn(texts: Sequence[str], what: str) -> None:
    if texts:
        more = "; ..." if len(texts) > _MOST_SAID else ""
        logger.warning("%s: %d (%s%s)", what, len(texts), "; ".join(texts[:_MOST_SAID]), more)


def dataset_title(config: Config) -> str:
    """What the data of a run is called: its title, or the name of its class."""
    return str(config.dataset.get("title") or config.dataset["name"])


def open_splits(config: Config, processes: Processes) -> Splits:
    """The splits of a run, each found but not looked at."""
    download_once(config.dataset, processes)
    train, val = (DATASETS.build(config.dataset, split=split) for split in ("train", "val"))
    return Splits(train, val, dataset_title(config), processes)


def download_once(spec: Spec, processes: Processes) -> None:
    """Let the main process download what is to be downloaded, before the others look for it."""
    problem = None
    if spec.get("download") and processes.world_size > 1 and processes.is_main:
        try:
            DATASETS.build(spec, split="train")
        except SegtrainError as error:
            problem = error
    if processes.any(int(problem is not None)):
        raise problem or DataError("the main process could not get the data, see its message")
