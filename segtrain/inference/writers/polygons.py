"""Regions as polygons: a GeoJSON file per image, and a COCO file for all images."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from segtrain.data import LabelContract
from segtrain.data.io.geo import Georeference, load_rasterio
from segtrain.files import atomic_write, temporary_name
from segtrain.inference.writers.base import Band, Target, Writer, path_of
from segtrain.inference.writers.outlines import Outlines
from segtrain.inference.writers.regions import Region, shoelace

_LONGITUDE_AND_LATITUDE = "OGC:CRS84"  # WGS84, the only system of GeoJSON
_DECIMALS = 9  # a tenth of a millimetre on the ground


class RegionWriter(Writer):
    """Finds the regions of an image, and writes each as soon as its last row is known.

    Args:
        labels: The label contract of the model.
        min_area: Smaller regions, in pixels, are left out.
    """

    def __init__(self, labels: LabelContract, min_area: int) -> None:
        self.labels, self.min_area = labels, min_area
        self._outlines: list[Outlines] = []

    def start(self, target: Target) -> None:
        """Begin the next image."""
        self.target = target
        if self.labels.multi_label:  # one class map of 0 and 1 per class
            self._outlines = [
                Outlines(target.width, 2, first=1) for _ in range(self.labels.num_classes)
            ]
        else:
            first = 1 if self.labels.is_binary else 0  # the background is no region
            self._outlines = [Outlines(target.width, self.labels.num_ids, first=first)]

    def write(self, band: Band) -> None:
        """Add the next rows, and write the regions that they complete."""
        for index, outlines in enumerate(self._outlines):
            outlines.add(band.ids[..., index] if self.labels.multi_label else band.ids)
            for region in outlines.closed(self.min_area):
                self._add(index if self.labels.multi_label else region.class_id, region)

    def finish(self) -> None:
        """Write the other regions."""
        for index, outlines in enumerate(self._outlines):
            for region in outlines.regions(self.min_area):
                self._add(index if self.labels.multi_label else region.class_id, region)
        self._outlines = []

    def abort(self) -> None:
        """Forget the image."""
        self._outlines = []

    def _add(self, class_id: int, region: Region) -> None:
        """Write a region."""
        raise NotImplementedError


class GeoJsonWriter(RegionWriter):
    """Writes a GeoJSON file per image with a polygon per region.

    Coordinates are longitude and latitude (WGS84, as RFC 7946 wants) if the image has a coordinate
    reference system; else x and y of pixel corners, from the upper left corner of the image.

    Args:
        output: The folder to write to.
        labels: The label contract of the model.
        min_area: Smaller regions, in pixels, are left out.
    """

    def __init__(self, output: Path, labels: LabelContract, min_area: int) -> None:
        super().__init__(labels, min_area)
        self.folder = output / "geojson"
        self._stream: IO[bytes] | None = None

    def start(self, target: Target) -> None:
        """Begin the file."""
        super().start(target)
        self._place = _placing(target.georeference)
        self._path = path_of(self.folder, target, ".geojson")
        self._temporary = temporary_name(self._path)
        self._stream = self._temporary.open("wb")
        self._stream.write(b'{"type": "FeatureCollection", "features": [')
        self._separator = b"\n"

    def _add(self, class_id: int, region: Region) -> None:
        """Write a feature, in a line of its own."""
        if self._stream is not None:
            feature = json.dumps(self._feature(class_id, region), ensure_ascii=False)
            self._stream.write(self._separator + feature.encode())
            self._separator = b",\n"

    def finish(self) -> None:
        """Complete the file."""
        super().finish()
        if self._stream is not None:
            self._stream.write(b"\n]}\n")
            self._stream.close()
            self._stream = None
            self._temporary.replace(self._path)

    def abort(self) -> None:
        """Remove the file."""
        super().abort()
        if self._stream is not None:
            self._stream.close()
            self._stream = None
            self._temporary.unlink(missing_ok=True)

    def _feature(self, class_id: int, region: Region) -> dict[str, Any]:
        rings = []
        for number, corners in enumerate(region.rings):
            ring = self._place(corners)
            # Outer rings turn counterclockwise, holes clockwise.
            ring = ring if (shoelace(ring) > 0) == (number == 0) else ring[::-1]
            rings.append([*ring.tolist(), ring[0].tolist()])
        return {
            "type": "Feature",
            "properties": {
                "class_id": class_id,
                "class": self.labels.names[class_id],
                "area_pixels": region.area,
            },
            "geometry": {"type": "Polygon", "coordinates": rings},
        }


def _placing(place: Georeference | None) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return the function from pixel corners ``(k, 2)`` to the coordinates of the file."""
    if place is None or place.crs is None or load_rasterio() is None:
        return lambda corners: corners
    warp: Any = importlib.import_module("rasterio.warp")
    a, b, c, d, e, f = place.transform

    def to_ground(corners: NDArray[Any]) -> NDArray[Any]:
        x, y = corners[:, 0], corners[:, 1]
        ground = (a * x + b * y + c).tolist(), (d * x + e * y + f).tolist()
        found = warp.transform(place.crs, _LONGITUDE_AND_LATITUDE, *ground)
        return np.stack(found, 1).round(_DECIMALS)

    return to_ground


class CocoWriter(RegionWriter):
    """Writes ``coco.json`` with all images, and an annotation per region as run lengths.

    The ids of categories are the class ids. Run lengths keep holes and every pixel.

    Args:
        output: The folder to write to.
        labels: The label contract of the model.
        min_area: Smaller regions, in pixels, are left out.
    """

    def __init__(self, output: Path, labels: LabelContract, min_area: int) -> None:
        super().__init__(labels, min_area)
        self.path = output / "coco.json"
        self._images: list[dict[str, Any]] = []
        # A line each, as there may be millions.
        self._annotations: IO[bytes] = TemporaryFile()  # noqa: SIM115  close() closes it
        self._count = 0
        self._before = (0, 0)

    def start(self, target: Target) -> None:
        """Begin the next image."""
        super().start(target)
        self._before = (self._count, self._annotations.tell())

    def _add(self, class_id: int, region: Region) -> None:
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
        """Add the image and its other regions."""
        super().finish()
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
        super().abort()
        self._count, place = self._before
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
