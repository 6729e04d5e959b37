"""The result of a scan, and how that of a long split is remembered."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from segtrain.data.dataset import FileDataset
from segtrain.data.io.image_values import ImageValues
from segtrain.data.scan.findings import Finding
from segtrain.data.scan.remembered import Remembered

_LEFT_OUT = "left_out"
# A dataset that replaces one of these may read other values from the same files.
_READING = ("read_image", "read_mask", "read_valid", "count_mask", "count_valid", "mask_kind",
            "known_facts")  # fmt: skip


@dataclass(frozen=True)
class ScanReport:
    """The counts and the problems that a scan found.

    Args:
        image_pixels: Pixels of each class id in each image, int64, shape ``(N, num_ids)``.
        ignored_pixels: Number of pixels without a class, `invalid_pixels` among them.
        sizes: Height and width of each image, int64, shape ``(N, 2)``; 0 where unknown.
        findings: Problems, in the order of the samples.
        mean_std: See :func:`~segtrain.data.scan.normalization.image_mean_std`, of each image,
            float64, shape ``(N, 3, channels)``; NaN where an image was not decoded.
        invalid_pixels: Pixels of each image that do not count, by its valid file, int64, shape
            ``(N,)``.
        values: The values in some of the image files; None: unknown.
    """

    image_pixels: NDArray[np.int64]
    ignored_pixels: int
    sizes: NDArray[np.int64]
    findings: tuple[Finding, ...]
    mean_std: NDArray[np.float64]
    invalid_pixels: NDArray[np.int64]
    values: ImageValues | None = None

    @property
    def num_files(self) -> int:
        """Number of samples."""
        return len(self.image_pixels)

    @cached_property
    def class_pixels(self) -> NDArray[np.int64]:
        """Pixels of each class id, shape ``(num_ids,)``."""
        pixels: NDArray[np.int64] = self.image_pixels.sum(0)
        return pixels

    @cached_property
    def areas(self) -> NDArray[np.int64]:
        """Pixels of each image that count, shape ``(N,)``; 0 where unknown."""
        areas: NDArray[np.int64] = self.sizes.prod(1) - self.invalid_pixels
        return areas


class RememberedReport:
    """The report of an earlier scan of the same files by the same rules.

    Only reports without errors are remembered, since the cause of an error may pass.

    Args:
        dataset: The dataset to scan.
        decode_images: As in :func:`~segtrain.data.scan_dataset`.
    """

    def __init__(self, dataset: FileDataset, *, decode_images: bool) -> None:
        self.dataset = dataset
        own = all(getattr(type(dataset), name) is getattr(FileDataset, name) for name in _READING)
        rules = [repr(dataset.labels), repr(dataset.reader), decode_images]
        splits = [dataset] if own and dataset.reads_whole_files else []
        self._remembered = Remembered("scan-of-list", splits, rules)

    def load(self) -> ScanReport | None:
        """Return the report, with findings about what is left out now; None: it is not known."""
        found = self._remembered.load()
        if found is None:
            return None
        arrays, facts = found
        total = len(self.dataset)
        mean_std = arrays.get("mean_std", np.full((total, 3, self.dataset.channels), np.nan))
        findings = [Finding.from_json(row) for row in facts["findings"]]
        return ScanReport(
            arrays["image_pixels"].astype(np.int64),
            facts["ignored_pixels"],
            arrays["sizes"].astype(np.int64),
            (*left_out_findings(self.dataset), *findings),
            mean_std,
            arrays["invalid_pixels"].astype(np.int64),
            None if facts["values"] is None else ImageValues(*facts["values"]),
        )

    def save(self, report: ScanReport) -> None:
        """Remember a report if it has no errors."""
        if any(finding.is_error for finding in report.findings):
            return
        findings = [finding for finding in report.findings if finding.kind != _LEFT_OUT]
        facts = {
            "ignored_pixels": report.ignored_pixels,
            "findings": findings,
            "values": report.values,
        }
        mean_std = {} if np.isnan(report.mean_std).all() else {"mean_std": report.mean_std}
        self._remembered.save(
            facts,
            image_pixels=_small(report.image_pixels),
            sizes=_small(report.sizes),
            invalid_pixels=_small(report.invalid_pixels),
            **mean_std,
        )


def left_out_findings(dataset: FileDataset) -> list[Finding]:
    """Return a finding for each sample that is left out of a dataset."""
    return [Finding(_LEFT_OUT, text.partition(": ")[0], text) for text in dataset.left_out]


def _small(numbers: NDArray[np.int64]) -> NDArray[np.integer]:
    """Return numbers that are not negative in the smallest type that holds them."""
    return numbers.astype(np.min_scalar_type(numbers.max(initial=0)))
