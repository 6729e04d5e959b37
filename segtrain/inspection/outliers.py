"""What stands out in counts: classes that hardly occur, and images far larger than the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segtrain.data import Finding, ScanReport, SegmentationDataset
from segtrain.data.scan.class_weights import pixel_share

TINY_SHARE = 1e-4
"""A class with a smaller share of the pixels is tiny."""
TINY_IMAGES = 0.01
"""So is one in a smaller share of the images, or in a single one of :data:`ENOUGH_IMAGES`."""
ENOUGH_IMAGES = 10
LARGE = 4.0
"""An image with more than so many times the pixels of the median is large."""

_ABSENT = {
    "train": "it cannot be learned, so check dataset.label_map or take it out of the classes",
    "val": "its IoU will be undefined, and the mean IoU leaves it out",
}
_TINY = {
    "train": "loader.sampling=rare_class and loss.class_weights=auto help, more images help more",
    "val": "its IoU hangs on a few pixels, so do not choose a model by it",
}


def areas(dataset: SegmentationDataset, report: ScanReport) -> NDArray[np.int64] | None:
    """What the pixels of a class are a share of, where not the sum over the classes, ``(N,)``."""
    return report.sizes.prod(1) if dataset.labels.multi_label else None


def class_findings(split: str, dataset: SegmentationDataset, report: ScanReport) -> list[Finding]:
    """The classes of `split` without a pixel, and those with very few."""
    shares = pixel_share(report.image_pixels, areas(dataset, report))
    images = (report.image_pixels > 0).sum(0)
    total = report.num_files
    findings = []
    for name, share, count in zip(dataset.class_names, shares, images, strict=True):
        start = f"class {name!r} has"
        if not count:
            text = f"{start} no pixel in the {split} split; {_ABSENT[split]}"
            findings.append(Finding("absent", "", text))
        elif share < TINY_SHARE or _is_seldom(int(count), total):
            text = (
                f"{start} {_percent(share)} of the pixels of the {split} split, in {count} of"
                f" {total} images; {_TINY[split]}"
            )
            findings.append(Finding("tiny", "", text))
    return findings


def _is_seldom(count: int, total: int) -> bool:
    return total >= ENOUGH_IMAGES and (count == 1 or count < TINY_IMAGES * total)


def _percent(share: float) -> str:
    """A share in words, never 0 where it is not.

    Example:
        >>> _percent(0.25), _percent(0.00003), _percent(1e-9)
        ('25 %', '0.003 %', '1e-07 %')
    """
    return f"{100 * share:.3g} %"


def size_findings(split: str, dataset: SegmentationDataset, report: ScanReport) -> list[Finding]:
    """The images with far more pixels than the median image, and train images of several sizes."""
    pixels = report.sizes.prod(1)
    if not pixels.any():
        return []
    median = float(np.median(pixels[pixels > 0]))
    sizes = np.unique(report.sizes[pixels > 0], axis=0)
    findings = []
    if split == "train" and len(sizes) > 1:
        text = (
            f"the train images are of {len(sizes)} sizes, from {sizes[0][0]} x {sizes[0][1]} to"
            f" {sizes[-1][0]} x {sizes[-1][1]} (height x width); training needs"
            " augmentation.crop_size, or trainer.batch_size=1"
        )
        findings.append(Finding("mixed", "", text))
    for index in np.flatnonzero(pixels > LARGE * median):
        name = sample_name(dataset, int(index))
        height, width = report.sizes[index]
        times = f"{pixels[index] / median:.1f}"
        text = (
            f"{name}: the image is {height} x {width} (height x width), {times}"
            " times the pixels of the median image; crops show less of it, and an evaluation needs"
            " more memory, so resize it or cut it into tiles"
        )
        findings.append(Finding("large", name, text, int(index)))
    return findings


def sample_name(dataset: SegmentationDataset, index: int) -> str:
    """The image file of a sample, or what else it is called."""
    files = getattr(dataset, "files", None)
    return str(files[index].image) if files else str(dataset[index].name)
