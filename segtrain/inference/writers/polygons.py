"""Regions as polygons: a GeoJSON file per image, and a COCO file for all images."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segtrain.data import LabelContract
from segtrain.data.io.geo import Georeference, load_rasterio
from segtrain.files import atomic_write
from segtrain.inference.writers.base import Band, Target, Writer, path_of
from segtrain.inference.writers.outlines import Outlines, Region, shoelace

_LONGITUDE_AND_LATITUDE = "OGC:CRS84"  # WGS84, the only system of GeoJSON
_DECIMALS = 9  # a tenth of a millimetre on the ground


class RegionWriter(Writer):
    """Collects the class ids of an image and finds its regions.

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
        """Add the next rows."""
        if self.labels.multi_label:
            for index, outlines in enumerate(self._outlines):
                outlines.add(band.ids[..., index])
        else:
            self._outlines[0].add(band.ids)

    def abort(self) -> None:
        """Forget the image."""
        self._outlines = []

    def _regions(self) -> Iterator[tuple[int, Region]]:
        """Yield the class id and the region of every region."""
        for index, outlines in enumerate(self._outlines):
            for region in outlines.regions(self.min_area):
                yield (index if self.labels.multi_label else region.class_id), region
        self._outlines = []


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

    def finish(self) -> None:
        """Write the file, one feature per line."""
        place = _placing(self.target.georeference)
        with atomic_write(path_of(self.folder, self.target, ".geojson")) as stream:
            stream.write(b'{"type": "FeatureCollection", "features": [')
            for number, (class_id, region) in enumerate(self._regions()):
                feature = self._feature(class_id, region, place)
                stream.write(b",\n" if number else b"\n")
                stream.write(json.dumps(feature, ensure_ascii=False).encode())
            stream.write(b"\n]}\n")

    def _feature(
        self, class_id: int, region: Region, place: Callable[[NDArray[Any]], NDArray[Any]]
    ) -> dict[str, Any]:
        rings = []
        for number, corners in enumerate(region.rings):
            ring = place(corners)
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
        self._annotations: list[dict[str, Any]] = []

    def finish(self) -> None:
        """Add the image and its regions."""
        coco: Any = importlib.import_module("pycocotools.mask")
        height, width = self.target.height, self.target.width
        number = len(self._images) + 1
        for class_id, region in self._regions():
            lengths = {"counts": region.run_lengths(height, width), "size": [height, width]}
            packed = coco.frPyObjects(lengths, height, width)
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1,
                    "image_id": number,
                    "category_id": class_id,
                    "segmentation": {"size": [height, width], "counts": packed["counts"].decode()},
                    "area": region.area,
                    "bbox": [*region.box],
                    "iscrowd": 0,
                }
            )
        name = self.target.file_name
        self._images.append({"id": number, "file_name": name, "height": height, "width": width})

    def close(self) -> None:
        """Write the file."""
        first = 1 if self.labels.is_binary else 0
        names = [*enumerate(self.labels.names)][first:]
        content = {
            "images": self._images,
            "annotations": self._annotations,
            "categories": [{"id": index, "name": name} for index, name in names],
        }
        with atomic_write(self.path) as stream:
            stream.write(json.dumps(content, ensure_ascii=False).encode())
