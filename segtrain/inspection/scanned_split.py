"""One split of a dataset together with what a scan counted in it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segtrain.data import ScanReport, SegmentationDataset
from segtrain.data.scan.class_weights import pixel_share


class ScannedSplit(NamedTuple):
    """A split and its counts."""

    dataset: SegmentationDataset
    report: ScanReport

    @property
    def areas(self) -> NDArray[np.int64] | None:
        """Pixels of each image that count, ``(N,)``, for multi-label data.

        None: the sum over the classes.
        """
        return self.report.areas if self.dataset.labels.multi_label else None

    @property
    def class_shares(self) -> NDArray[np.float64]:
        """Share of each class in the pixels that have a class, ``(C,)``."""
        return pixel_share(self.report.image_pixels, self.areas)

    @property
    def class_images(self) -> NDArray[np.int64]:
        """Number of images that contain each class, ``(C,)``."""
        counts: NDArray[np.int64] = (self.report.image_pixels > 0).sum(0)
        return counts

    @property
    def invalid_share(self) -> float:
        """Share of the pixels that do not count, by the valid files of the split."""
        return float(self.report.invalid_pixels.sum() / max(self.report.sizes.prod(1).sum(), 1))

    def sample_name(self, index: int) -> str:
        """Return the path of the image file of a sample, or its name if it has no file."""
        files = getattr(self.dataset, "files", None)
        return str(files[index].image) if files else str(self.dataset[index].name)
