"""Outliers among the counts: classes with very few pixels, and images of unusual sizes."""

from __future__ import annotations

import numpy as np

from segtrain.data import Finding
from segtrain.inspection.scanned_split import ScannedSplit
from segtrain.terminal import percent

TINY_SHARE = 1e-4
"""A class with a smaller share of the pixels is tiny."""
TINY_IMAGES = 0.01
"""A class in a smaller share of the images is tiny, too; so is one in a single image, if there are
at least :data:`ENOUGH_IMAGES`."""
ENOUGH_IMAGES = 10
LARGE = 4.0
"""An image with more than this many times the pixels of the median image is large."""

_ABSENT = {
    "train": "it cannot be learned, so check dataset.label_map or remove it from the classes",
    "val": "its IoU will be undefined, and the mean IoU leaves it out",
    "test": "its IoU will be undefined, and the mean IoU leaves it out",
}
_TINY = {
    "train": "loader.sampling=rare_class and loss.class_weights=auto help, more images help more",
    "val": "its IoU depends on a few pixels, so do not select a model by it",
    "test": "its IoU depends on a few pixels, so do not compare models by it",
}


def class_findings(name: str, split: ScannedSplit) -> list[Finding]:
    """Report the classes without a pixel and those with very few.

    Args:
        name: ``train``, ``val`` or ``test``.
        split: The split.
    """
    total = split.report.num_files
    findings = []
    columns = (split.dataset.class_names, split.class_shares, split.class_images)
    for class_name, share, count in zip(*columns, strict=True):
        start = f"class {class_name!r} has"
        if not count:
            text = f"{start} no pixel in the {name} split; {_ABSENT[name]}"
            findings.append(Finding("absent", "", text))
        elif share < TINY_SHARE or _is_in_few_images(int(count), total):
            text = (
                f"{start} {percent(share)} of the pixels of the {name} split, in {count} of"
                f" {total} images; {_TINY[name]}"
            )
            findings.append(Finding("tiny", "", text))
    return findings


def size_findings(name: str, split: ScannedSplit) -> list[Finding]:
    """Report images far larger than the median image, and train images of several sizes.

    Args:
        name: ``train``, ``val`` or ``test``.
        split: The split.
    """
    sizes = split.report.sizes
    pixels = sizes.prod(1)
    if not pixels.any():
        return []
    findings = []
    distinct = np.unique(sizes[pixels > 0], axis=0)
    if name == "train" and len(distinct) > 1:
        (height, width), (last_height, last_width) = distinct[0], distinct[-1]
        text = (
            f"the train images have {len(distinct)} sizes, from {height} x {width} to"
            f" {last_height} x {last_width} (height x width); training needs"
            " augmentation.crop_size, or trainer.batch_size=1"
        )
        findings.append(Finding("mixed", "", text))
    median = float(np.median(pixels[pixels > 0]))
    for index in np.flatnonzero(pixels > LARGE * median):
        file = split.sample_name(int(index))
        height, width = sizes[index]
        text = (
            f"{file}: the image is {height} x {width} (height x width),"
            f" {pixels[index] / median:.1f} times the pixels of the median image; a crop covers"
            " less of it and evaluation needs more memory, so resize it or cut it into tiles"
        )
        findings.append(Finding("large", file, text, int(index)))
    return findings


def _is_in_few_images(count: int, total: int) -> bool:
    return total >= ENOUGH_IMAGES and (count == 1 or count < TINY_IMAGES * total)
