"""Regions as polygons: a GeoJSON file per image."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segtrain.data import LabelContract
from segtrain.data.io.geo import Georeference, load_rasterio
from segtrain.inference.writers.base import NewFile, Target, path_of
from segtrain.inference.writers.region_writer import RegionFiles
from segtrain.inference.writers.regions import Region, shoelace

_LONGITUDE_AND_LATITUDE = "OGC:CRS84"  # WGS84, the only system of GeoJSON
_DECIMALS = 9  # a tenth of a millimetre on the ground


class GeoJsonFiles(RegionFiles):
    """Writes a GeoJSON file per image with a polygon per region.

    Coordinates are longitude and latitude (WGS84, as RFC 7946 wants) if the image has a coordinate
    reference system; else x and y of pixel corners, from the upper left corner of the image.

    Args:
        output: The folder to write to.
        labels: The label contract of the model.
    """

    def __init__(self, output: Path, labels: LabelContract) -> None:
        self.labels, self.folder = labels, output / "geojson"
        self._file: NewFile | None = None

    def start(self, target: Target) -> None:
        """Begin the file."""
        self._place = _placing(target.georeference)
        self._file = NewFile(path_of(self.folder, target, ".geojson"))
        self._file.stream.write(b'{"type": "FeatureCollection", "features": [')
        self._separator = b"\n"

    def add(self, class_id: int, region: Region) -> None:
        """Write a feature, in a line of its own."""
        if self._file is not None:
            feature = json.dumps(self._feature(class_id, region), ensure_ascii=False)
            self._file.stream.write(self._separator + feature.encode())
            self._separator = b",\n"

    def finish(self) -> None:
        """Complete the file."""
        if self._file is not None:
            self._file.stream.write(b"\n]}\n")
            self._file.finish()
            self._file = None

    def abort(self) -> None:
        """Remove the file."""
        if self._file is not None:
            self._file.abort()
            self._file = None

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
