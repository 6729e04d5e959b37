"""Where an image lies on the ground, and the optional package rasterio that reads it."""

from __future__ import annotations

import importlib
import os
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from segtrain.data.io.raster import NeedsPackageError
from segtrain.errors import DataError, one_line

GEO_ADVICE = 'pip install "segtrain[geo]"'
_SUFFIXES = (".tif", ".tiff")
_GEO_TAGS = (33550, 34264, 34735)  # pixel scale, transformation, keys of the CRS
_CACHE_MEGABYTES = "64"  # GDAL takes 5 % of the memory otherwise


class Georeference(NamedTuple):
    """The place of an image on the ground.

    Attributes:
        transform: ``(a, b, c, d, e, f)``: the pixel corner at column x and row y lies at
            ``(a * x + b * y + c, d * x + e * y + f)``.
        crs: The coordinate reference system as WKT; None: unknown.
        has_nodata: Whether the file marks pixels without data: by a value, a mask or transparency.
    """

    transform: tuple[float, float, float, float, float, float]
    crs: str | None
    has_nodata: bool = False


def load_rasterio() -> Any | None:
    """Return the package rasterio, or None if it is not installed."""
    os.environ.setdefault("GDAL_CACHEMAX", _CACHE_MEGABYTES)
    try:
        return importlib.import_module("rasterio")
    except ImportError:
        return None


def is_georeferenced(path: Path) -> bool:
    """Whether a file is a GeoTIFF; only its header is read, without rasterio."""
    if path.suffix.lower() not in _SUFFIXES or not path.is_file():
        return False
    tifffile = importlib.import_module("tifffile")
    try:
        with tifffile.TiffFile(path) as file:
            return any(tag in file.pages[0].tags for tag in _GEO_TAGS)
    except (OSError, ValueError, IndexError, KeyError):  # the reader reports what is wrong
        return False


def georeference_of(dataset: Any) -> Georeference | None:
    """Return where an open dataset of rasterio lies; None: it does not say."""
    if dataset.crs is None and dataset.transform.is_identity:
        return None
    crs = None if dataset.crs is None else dataset.crs.to_wkt()
    transform = tuple(float(value) for value in dataset.transform)[:6]
    return Georeference(transform, crs, has_nodata(dataset))  # type: ignore[arg-type]


def has_nodata(dataset: Any) -> bool:
    """Whether an open dataset of rasterio marks pixels without data."""
    all_valid = importlib.import_module("rasterio.enums").MaskFlags.all_valid
    return any(all_valid not in flags for flags in dataset.mask_flag_enums)


def open_rasterio(path: Path) -> Any:
    """Open a file with rasterio, without its warning about files that are not georeferenced.

    Raises:
        NeedsPackageError: When rasterio is not installed.
        DataError: When the file cannot be opened.
    """
    rasterio = load_rasterio()
    if rasterio is None:
        raise NeedsPackageError(f"{path} needs the package rasterio: {GEO_ADVICE}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            return rasterio.open(path)
    except rasterio.errors.RasterioError as error:
        raise DataError(
            f"{path}: the image file cannot be read ({one_line(error)}); replace it, or remove it"
        ) from None
