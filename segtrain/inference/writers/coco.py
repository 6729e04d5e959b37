"""Regions as run lengths: a COCO file for all images."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from segtrain.data import LabelContract
from segtrain.files import atomic_write
from segtrain.inference.writers.base import Target
from segtrain.inference.writers.region_writer import RegionFiles
from segtrain.inference.writers.regions import Region


class CocoFile(RegionFiles):
    """Writes ``coco.json`` with all images, and an annotation per region as run lengths.

    The ids of categories are the class ids. Run lengths keep holes and every pixel.

    Args:
        output: The folder to write to.
        labels: The label contract of the model.
    """

    def __init__(self, output: Path, labels: LabelContract) -> None:
        self.labels, self.path = labels, output / "coco.json"
        self._images: list[dict[str, Any]] = []
        # A line each, as there may be millions.
        self._annotations: IO[bytes] = TemporaryFile()  # noqa: SIM115  close() closes it
        self._count = 0
        self._before = (0, 0, 0)

    def start(self, target: Target) -> None:
        """Begin the next image."""
        self.target = target
        self._before = (self._count, self._annotations.tell(), len(self._images))

    def add(self, class_id: int, region: Region) -> None:
        """Write an annotation."""
        coco: Any = importlib.import_module("pycocotools.mask")
        height, width = self.target.height, self.target.width
        lengths = {"counts": region.run_lengths(height, width), "size": [height, width]}
        packed = coco.frPyObjects(lengths, height, width)
        self._count += 1
        annotation = {
            "id": self._count,
            "image_id": len(self._images) + 1,
            "category_id": class_id,
            "segmentation": {"size": [height, width], "counts": packed["counts"].decode()},
            "area": region.area,
            "bbox": [*region.box],
            "iscrowd": 0,
        }
        self._annotations.write((",\n" if self._count > 1 else "").encode())
        self._annotations.write(json.dumps(annotation).encode())

    def finish(self) -> None:
        """Add the image."""
        self._images.append(
            {
                "id": len(self._images) + 1,
                "file_name": self.target.file_name,
                "height": self.target.height,
                "width": self.target.width,
            }
        )

    def abort(self) -> None:
        """Forget the image."""
        self._count, place, images = self._before
        del self._images[images:]
        self._annotations.seek(place)
        self._annotations.truncate()

    def close(self) -> None:
        """Write the file."""
        first = 1 if self.labels.is_binary else 0
        names = [*enumerate(self.labels.names)][first:]
        categories = [{"id": index, "name": name} for index, name in names]
        self._annotations.seek(0)
        with self._annotations as annotations, atomic_write(self.path) as stream:
            for key, content in (("images", self._images), ("categories", categories)):
                stream.write(f'{"{" if key == "images" else ""}"{key}": '.encode())
                stream.write(json.dumps(content, ensure_ascii=False).encode() + b",\n")
            stream.write(b'"annotations": [\n')
            shutil.copyfileobj(annotations, stream)
            stream.write(b"\n]}\n")
