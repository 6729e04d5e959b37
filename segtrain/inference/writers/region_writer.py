"""The writer of regions: it finds them once, for every kind of file that holds them."""

from __future__ import annotations

from collections.abc import Sequence

from segtrain.data import LabelContract
from segtrain.inference.writers.base import Band, Target, Writer
from segtrain.inference.writers.outlines import Outlines
from segtrain.inference.writers.regions import Region


class RegionFiles:
    """A kind of file that holds regions; the calls are those of a writer, with regions."""

    def start(self, target: Target) -> None:
        """Begin the next image."""

    def add(self, class_id: int, region: Region) -> None:
        """Write a region of the image."""

    def finish(self) -> None:
        """Complete the image."""

    def abort(self) -> None:
        """Drop what was written for the image."""

    def close(self) -> None:
        """Write what concerns all images, after the last one."""


class RegionWriter(Writer):
    """Finds the regions of an image, and writes each as soon as its last row is known.

    Args:
        labels: The label contract of the model.
        min_area: Smaller regions, in pixels, are left out.
        files: What the regions are written to.
    """

    def __init__(self, labels: LabelContract, min_area: int, files: Sequence[RegionFiles]) -> None:
        self.labels, self.min_area, self.files = labels, min_area, files
        self._outlines: list[Outlines] = []

    def start(self, target: Target) -> None:
        """Begin the next image."""
        if self.labels.multi_label:  # one class map of 0 and 1 per class
            self._outlines = [
                Outlines(target.width, 2, first=1) for _ in range(self.labels.num_classes)
            ]
        else:
            first = 1 if self.labels.is_binary else 0  # the background is no region
            self._outlines = [Outlines(target.width, self.labels.num_ids, first=first)]
        for file in self.files:
            file.start(target)

    def write(self, band: Band) -> None:
        """Add the next rows, and write the regions that they complete."""
        for index, outlines in enumerate(self._outlines):
            outlines.add(band.ids[..., index] if self.labels.multi_label else band.ids)
            for region in outlines.closed(self.min_area):
                self._add(index, region)

    def finish(self) -> None:
        """Write the other regions."""
        for index, outlines in enumerate(self._outlines):
            for region in outlines.regions(self.min_area):
                self._add(index, region)
        self._outlines = []
        for file in self.files:
            file.finish()

    def abort(self) -> None:
        """Drop the image."""
        self._outlines = []
        for file in self.files:
            file.abort()

    def close(self) -> None:
        """Write what concerns all images."""
        for file in self.files:
            file.close()

    def _add(self, index: int, region: Region) -> None:
        class_id = index if self.labels.multi_label else region.class_id
        for file in self.files:
            file.add(class_id, region)
