"""The look at both splits of a dataset: what is in it, what is wrong with it, what follows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from segtrain.assembly.splits import check_overlap, sound_part
from segtrain.assembly.trial import try_dataset
from segtrain.data import (
    DATASETS,
    FileDataset,
    Finding,
    ScanReport,
    SegmentationDataset,
    count_dataset,
    find_duplicates,
    scan_dataset,
)
from segtrain.data.scan.class_weights import METHODS, class_weights
from segtrain.data.scan.findings import KINDS
from segtrain.data.scan.normalization import total_mean_std
from segtrain.errors import DataError, SegtrainError
from segtrain.inspection.outliers import areas, class_findings, size_findings
from segtrain.schema.sections import Spec
from segtrain.terminal import progress

SPLITS = ("train", "val")
BOTH = "both"
_NO_SAMPLE = ("unreadable", "size", "values")
_LEFT_OUT = ("left_out", "unreadable", "size")  # what `dataset.max_bad` is about


class Found(NamedTuple):
    """A finding, where it is, and whether training would go wrong for it.

    Attributes:
        split: ``train``, ``val``, or ``both`` for what is in both of them.
        finding: What was found.
        is_error: Whether training goes wrong, which the keys of the dataset decide too.
    """

    split: str
    finding: Finding
    is_error: bool


class Examined(NamedTuple):
    """A split with what was counted in it."""

    dataset: SegmentationDataset
    report: ScanReport


@dataclass(frozen=True)
class Examination:
    """Everything that a report says.

    Args:
        title: What the dataset is called.
        splits: Each split by name.
        found: What was found, errors first.
        refusal: The sentence with which training would end; None: it would not.
        weights: One weight per class by each method, from the training split.
        moments: Mean and deviation of each channel of the training images, of pixels from 0 to 1;
            None where no image was decoded.
    """

    title: str
    splits: dict[str, Examined]
    found: tuple[Found, ...]
    refusal: str | None
    weights: dict[str, list[float]]
    moments: tuple[list[float], list[float]] | None

    @property
    def verdict(self) -> str:
        """``fine``, ``warnings`` or ``refused``."""
        return "refused" if self.refusal else "warnings" if self.found else "fine"

    @property
    def unreadable(self) -> list[int]:
        """The samples of the train split that cannot be had."""
        return [
            item.finding.sample
            for item in self.found
            if item.split == "train"
            and item.finding.sample is not None
            and item.finding.kind in _NO_SAMPLE
        ]

    def kinds(self) -> list[tuple[str, list[Found]]]:
        """The findings of each kind there is, kinds with errors first."""
        groups = [(kind, [item for item in self.found if item[1].kind == kind]) for kind in KINDS]
        there = [group for group in groups if group[1]]
        return sorted(there, key=lambda group: not any(item.is_error for item in group[1]))


def examine(spec: Spec, *, decode: bool = True) -> Examination:
    """Look at every file of both splits.

    Args:
        spec: The section ``dataset`` of a configuration.
        decode: Whether every image is decoded in full; otherwise its header is read, there are no
            `moments`, and damage inside an image is not found.

    Raises:
        SegtrainError: When there are no files to look at, or the configuration is wrong.
    """
    opened = {split: _open(spec, split) for split in SPLITS}
    title = str(opened["train"][0].title or spec["name"])
    splits = {split: _scan(title, split, opened[split][0], decode=decode) for split in SPLITS}
    doubles = _doubles(splits)
    found = [item for split in SPLITS for item in _judged(split, splits[split])]
    allowed = isinstance(splits["train"].dataset, FileDataset) and bool(
        splits["train"].dataset.allow_overlap
    )
    train_files = {str(files.image) for files in getattr(splits["train"].dataset, "files", ())}
    for double in doubles:
        where = "train" if double.file in train_files else "val"
        where = BOTH if double.kind == "overlap" else where
        found.append(Found(where, double, double.kind == "overlap" and not allowed))
    train, report = splits["train"]
    whole = areas(train, report)
    return Examination(
        title,
        splits,
        tuple(sorted(found, key=lambda item: not item.is_error)),
        next((why for _, why in opened.values() if why), None) or _refusal(splits, doubles),
        {method: class_weights(method, report.image_pixels, whole).tolist() for method in METHODS},
        total_mean_std(report.mean_std, report.sizes),
    )


def _open(spec: Spec, split: str) -> tuple[SegmentationDataset, str | None]:
    """A split, and why training would refuse it on account of its list of files."""
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


def _scan(title: str, split: str, dataset: SegmentationDataset, *, decode: bool) -> Examined:
    if not isinstance(dataset, FileDataset):
        try_dataset(dataset, title)
    with progress(f"look at {split}", len(dataset)) as bar:
        if isinstance(dataset, FileDataset):
            report = scan_dataset(dataset, lambda *_: bar.advance(), decode_images=decode)
        else:
            report = count_dataset(dataset, lambda *_: bar.advance())
    return Examined(dataset, report)


def _doubles(splits: dict[str, Examined]) -> list[Finding]:
    train, val = (splits[split].dataset for split in SPLITS)
    if not isinstance(train, FileDataset) or not isinstance(val, FileDataset):
        return []
    return find_duplicates(train, val)


def _judged(split: str, examined: Examined) -> list[Found]:
    """The findings of a split, with what its `max_bad` makes of them."""
    dataset, report = examined
    kinds = Counter(finding.kind for finding in report.findings)
    left_out = sum(kinds[kind] for kind in _LEFT_OUT)
    most, total = 0.0, report.num_files
    if isinstance(dataset, FileDataset):
        most, total = dataset.max_bad, total + len(dataset.left_out)
    too_many = left_out > most * total
    found = [
        Found(split, item, too_many if item.kind in _LEFT_OUT else item.is_error)
        for item in report.findings
    ]
    others = size_findings(split, dataset, report)
    if not kinds["unreadable"]:  # what was not counted may hold any class
        others = [*class_findings(split, dataset, report), *others]
    return found + [Found(split, item, is_error=False) for item in others]


def _refusal(splits: dict[str, Examined], doubles: Sequence[Finding]) -> str | None:
    """What training would say, in the order in which it looks."""
    train, val = (splits[split].dataset for split in SPLITS)
    if not isinstance(train, FileDataset) or not isinstance(val, FileDataset):
        return None
    try:
        check_overlap(train, val, doubles)
        for dataset, report in ((train, splits["train"].report), (val, splits["val"].report)):
            _, fewer = sound_part(dataset, report)
            try_dataset(fewer, str(dataset.title))
    except DataError as error:
        return str(error)
    return None
