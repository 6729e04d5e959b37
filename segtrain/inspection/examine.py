"""Examination of all splits of a dataset: contents, problems, and what training would do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from segtrain.assembly.opening import log_fold
from segtrain.assembly.splits import check_overlap, log_notes, sound_part
from segtrain.assembly.trial import try_dataset
from segtrain.data import (
    DATASETS,
    FileDataset,
    Finding,
    SegmentationDataset,
    count_dataset,
    find_duplicates,
    scan_dataset,
)
from segtrain.data.build import has_split
from segtrain.data.dataset import SPLITS
from segtrain.data.scan.class_weights import METHODS, class_weights
from segtrain.data.scan.findings import KINDS
from segtrain.data.scan.normalization import total_mean_std
from segtrain.errors import DataError, SegtrainError
from segtrain.inspection.outliers import class_findings, size_findings
from segtrain.inspection.scanned_split import ScannedSplit
from segtrain.schema.sections import Spec
from segtrain.terminal import progress

TEST = "test"
_NOT_LOADABLE = ("unreadable", "size", "values")
_LEFT_OUT = ("left_out", "unreadable", "size")  # the kinds that `dataset.max_bad` covers


class SplitFinding(NamedTuple):
    """A finding, the split it is in, and whether it stops training.

    Attributes:
        split: ``train``, ``val`` or ``test``; for an image that is in several of them, such as
            ``train and val``.
        finding: The finding.
        is_error: Whether it stops training; this also depends on the keys of the dataset.
    """

    split: str
    finding: Finding
    is_error: bool


@dataclass(frozen=True)
class Examination:
    """The contents of a report.

    Args:
        title: Title of the dataset.
        splits: The splits by name.
        findings: All findings, errors first.
        refusal: The error message with which training would end; None if it would start.
        weights: One weight per class by each method, from the train split.
        normalization: Mean and standard deviation of each channel of the train images, for pixels
            from 0 to 1; None if no image was decoded.
    """

    title: str
    splits: dict[str, ScannedSplit]
    findings: tuple[SplitFinding, ...]
    refusal: str | None
    weights: dict[str, list[float]]
    normalization: tuple[list[float], list[float]] | None

    @property
    def verdict(self) -> str:
        """``fine``, ``warnings`` or ``refused``."""
        return "refused" if self.refusal else "warnings" if self.findings else "fine"

    @property
    def not_loadable(self) -> list[int]:
        """Indices of the train samples that cannot be loaded."""
        return [
            item.finding.sample
            for item in self.findings
            if item.split == "train"
            and item.finding.sample is not None
            and item.finding.kind in _NOT_LOADABLE
        ]

    def kinds(self) -> list[tuple[str, list[SplitFinding]]]:
        """Return the findings grouped by kind, kinds with errors first."""
        groups = [
            (kind, [item for item in self.findings if item.finding.kind == kind]) for kind in KINDS
        ]
        present = [group for group in groups if group[1]]
        return sorted(present, key=lambda group: not any(item.is_error for item in group[1]))


def examine(spec: Spec, *, decode: bool = True) -> Examination:
    """Scan every file of the training, the validation and, if configured, the test split.

    Args:
        spec: The section ``dataset`` of a configuration.
        decode: Whether to decode every image in full. If false, only the headers are read: damage
            inside an image is not found, and `normalization` is None unless an earlier scan
            measured it.

    Raises:
        SegtrainError: If there are no files to scan, or the configuration is wrong.
    """
    opened = {
        split: _open(spec, split) for split in SPLITS if split != TEST or has_split(spec, TEST)
    }
    log_fold(spec)
    title = str(opened["train"][0].title or spec["name"])
    splits = {
        split: _scan(title, split, dataset, decode=decode) for split, (dataset, _) in opened.items()
    }
    files = _file_splits(splits)
    duplicates = find_duplicates(**files) if files else []
    findings = [
        *(item for name, split in splits.items() for item in _split_findings(name, split)),
        *_duplicate_findings(splits["train"].dataset, duplicates),
    ]
    report, areas = splits["train"].report, splits["train"].areas
    refusals = [refusal for _, refusal in opened.values() if refusal]
    return Examination(
        title,
        splits,
        tuple(sorted(findings, key=lambda item: not item.is_error)),
        refusals[0] if refusals else _refusal(splits, duplicates),
        {method: class_weights(method, report.image_pixels, areas).tolist() for method in METHODS},
        total_mean_std(report.mean_std, report.sizes),
    )


def _open(spec: Spec, split: str) -> tuple[SegmentationDataset, str | None]:
    """Open a split.

    Returns:
        The dataset, and the error message if training would refuse its list of files. In that case
        the dataset holds the files that can be used, so that they can be scanned as well.
    """
    try:
        return DATASETS.build(spec, split=split), None
    except DataError as error:
        keys = DATASETS.schema(str(spec["name"]))
        if "max_bad" not in keys:
            raise
        try:
            dataset = DATASETS.build({**spec, "max_bad": 1.0}, split=split)
        except SegtrainError:
            raise error from None
        if not len(dataset) or not isinstance(dataset, FileDataset):
            raise
        dataset.max_bad = spec.get("max_bad", keys["max_bad"].default)
        return dataset, str(error)


def _scan(title: str, split: str, dataset: SegmentationDataset, *, decode: bool) -> ScannedSplit:
    if isinstance(dataset, FileDataset):
        log_notes(dataset)
    else:
        try_dataset(dataset, title)
    with progress(f"scan {split}", len(dataset)) as bar:
        if isinstance(dataset, FileDataset):
            report = scan_dataset(dataset, lambda *_: bar.advance(), decode_images=decode)
        else:
            report = count_dataset(dataset, lambda *_: bar.advance())
    return ScannedSplit(dataset, report)


def _file_splits(splits: dict[str, ScannedSplit]) -> dict[str, FileDataset]:
    """Return the splits by name if they are made of files, else nothing."""
    files = {
        name: split.dataset
        for name, split in splits.items()
        if isinstance(split.dataset, FileDataset)
    }
    return files if len(files) == len(splits) else {}


def _split_findings(name: str, split: ScannedSplit) -> list[SplitFinding]:
    """Return the findings of one split, its outliers included; `max_bad` decides on errors."""
    dataset, report = split
    kinds = Counter(finding.kind for finding in report.findings)
    left_out = sum(kinds[kind] for kind in _LEFT_OUT)
    allowed = 0.0
    if isinstance(dataset, FileDataset):
        allowed = dataset.max_bad * (report.num_files + len(dataset.left_out))
    too_many = left_out > allowed
    found = [
        SplitFinding(name, item, too_many if item.kind in _LEFT_OUT else item.is_error)
        for item in report.findings
    ]
    outliers = size_findings(name, split)
    if not kinds["unreadable"]:  # a mask that was not counted may hold any class
        outliers = [*class_findings(name, split), *outliers]
    return found + [SplitFinding(name, item, is_error=False) for item in outliers]


def _duplicate_findings(
    train: SegmentationDataset, duplicates: Sequence[Finding]
) -> list[SplitFinding]:
    allowed = isinstance(train, FileDataset) and bool(train.allow_overlap)
    return [
        SplitFinding(_words(item.splits), item, is_error=item.is_error and not allowed)
        for item in duplicates
    ]


def _words(splits: Sequence[str]) -> str:
    *others, last = splits
    return f"{', '.join(others)} and {last}" if others else last


def _refusal(splits: dict[str, ScannedSplit], duplicates: Sequence[Finding]) -> str | None:
    """Return the error message of training: its checks, in its order; None if all pass."""
    files = _file_splits(splits)
    if not files:
        return None
    try:
        shared = [item for item in duplicates if {"train", "val"} <= {*item.splits}]
        check_overlap(files["train"], files["val"], shared)
        _check_sound(files, splits, ("train", "val"))
        if TEST in files:
            shared = [item for item in duplicates if TEST in item.splits]
            check_overlap(files["train"], files[TEST], shared)
            _check_sound(files, splits, (TEST,))
    except DataError as error:
        return str(error)
    return None


def _check_sound(
    files: dict[str, FileDataset], splits: dict[str, ScannedSplit], names: Sequence[str]
) -> None:
    for name in names:
        _, fewer = sound_part(files[name], splits[name].report)
        try_dataset(fewer, str(files[name].title))
