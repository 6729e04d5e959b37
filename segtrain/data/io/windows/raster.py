"""An image file whose windows are read with the rules of a reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from segtrain.data.io.geo import GEO_ADVICE, load_rasterio
from segtrain.data.io.image_values import ImageValues
from segtrain.data.io.raster import (
    READ_ERRORS,
    NeedsPackageError,
    NotAnImageError,
)
from segtrain.data.io.reader import Reader
from segtrain.data.io.tiff import channel_pages
from segtrain.data.io.windows.base import Layout, WindowSource
from segtrain.data.io.windows.gdal import GdalSource
from segtrain.data.io.windows.tiff import TiffSource
from segtrain.errors import DataError, one_line

_T = TypeVar("_T")
_TIFF = (".tif", ".tiff")


class RasterFile:
    """An image file of any size, of which windows are read; a context manager.

    Args:
        path: The file.
        source: Decodes its windows.
        reader: The rules for channels and values; its `max_pixels` does not matter here.

    Attributes:
        height: Number of rows.
        width: Number of columns.
        channels: Number of channels of the windows, those of `reader`.
        dtype: The type of the values in the file.
        georeference: Where the image lies on the ground; None: the file does not say.
    """

    def __init__(self, path: Path, source: WindowSource, reader: Reader) -> None:
        self.path, self.reader = path, reader
        self._source = source
        layout = source.layout
        self.height, self.width, self.dtype = layout.height, layout.width, layout.dtype
        self.channels, self.georeference = reader.channels, layout.georeference
        self._range: tuple[float, float] | None = None
        self._rows, self._cached = slice(0, 0), np.zeros((0, layout.width, layout.channels))

    @property
    def layout(self) -> Layout:
        """What the file says about its image."""
        return self._source.layout

    @property
    def values(self) -> ImageValues | None:
        """The values in the windows that were read so far; None: none was read."""
        return None if self._range is None else ImageValues(str(self.dtype), *self._range)

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Read a window, with the values that :meth:`Reader.image` gives.

        Args:
            rows: The first row and the row after the last one.
            columns: Likewise for columns.

        Shape:
            - output: ``(r, c, channels)``, uint8, or float32 with NaN where pixels have no data.
              The type may differ between windows of one file.

        Raises:
            DataError: When the window cannot be decoded or converted.
        """
        raw = self._read(lambda: self._raw(rows, columns))
        self._note(raw)
        layout = self.layout
        return self.reader.convert(
            raw, str(self.path), nodata=layout.nodata, has_alpha=layout.has_alpha
        )

    def valid(self, rows: slice, columns: slice) -> NDArray[np.bool_] | None:
        """Read which pixels of a window have data, ``(r, c)``; None: all have.

        Besides a value without data, this looks at masks and transparency in the file.

        Raises:
            DataError: When the window cannot be decoded.
        """
        return self._read(lambda: self._source.valid(rows, columns))

    def nonzero(self, rows: slice, columns: slice) -> NDArray[np.bool_]:
        """Read where a window of a file of valid pixels is not 0, ``(r, c)``; NaN is 0.

        Raises:
            DataError: When the window cannot be decoded.
        """
        raw = self._read(lambda: self._raw(rows, columns))
        raw = raw[..., :-1] if self.layout.has_alpha else raw
        raw = np.nan_to_num(raw) if raw.dtype.kind == "f" else raw
        found: NDArray[np.bool_] = np.not_equal(raw, 0).any(2)
        return found

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def __enter__(self) -> RasterFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _raw(self, rows: slice, columns: slice) -> NDArray[Any]:
        if not self.layout.whole_rows:
            return self._source.read(rows, columns)
        if not (self._rows.start <= rows.start and rows.stop <= self._rows.stop):
            self._cached, self._rows = self._wider(rows), rows
        first = rows.start - self._rows.start
        return self._cached[first : first + rows.stop - rows.start, columns]

    def _wider(self, rows: slice) -> NDArray[Any]:
        """Whole rows, of which those at the end of the last ones read are not read again."""
        everything = slice(0, self.width)
        known = self._rows
        if not known.start <= rows.start < known.stop < rows.stop:
            return self._source.read(rows, everything)
        kept = self._cached[rows.start - known.start :]
        return np.concatenate([kept, self._source.read(slice(known.stop, rows.stop), everything)])

    def _note(self, raw: NDArray[Any]) -> None:
        """Remember the range of the values, without pixels that have no data."""
        missing = self.reader.missing(raw, self.layout.nodata)
        known = raw if missing is None else raw[~missing]
        if known.size:
            low, high = float(known.min()), float(known.max())
            before = self._range or (low, high)
            self._range = (min(low, before[0]), max(high, before[1]))

    def _read(self, action: Callable[[], _T]) -> _T:
        try:
            return action()
        except DataError:
            raise
        except READ_ERRORS as error:
            raise DataError(
                f"{self.path}: the image file cannot be read ({one_line(error)}); it is truncated"
                " or damaged, so replace it or remove it"
            ) from None


def open_raster(path: str | Path, reader: Reader) -> RasterFile:
    """Open an image file of any size to read windows of it.

    It is read by rasterio if that is installed. TIFF files are also read without it, unless their
    kind of pixels needs it.

    Args:
        path: The file.
        reader: The rules for channels and values.

    Raises:
        DataError: When the file does not exist or cannot be read in windows, with the package to
            install if one is missing.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"{file}: the image file does not exist")
    try:
        return RasterFile(file, _source(file), reader)
    except (NeedsPackageError, NotAnImageError) as error:
        raise DataError(f"{file}: {error}") from None
    except DataError:
        raise
    except READ_ERRORS as error:
        raise DataError(
            f"{file}: the image file cannot be read ({one_line(error)}); it is truncated, empty or"
            " not an image, so replace it or remove it"
        ) from None


def _source(path: Path) -> WindowSource:
    is_tiff = path.suffix.lower() in _TIFF
    if load_rasterio() is not None and not (is_tiff and _has_pages(path)):
        return GdalSource(path)
    if is_tiff:
        return TiffSource(path)
    raise NeedsPackageError(f"windows of such a file need the package rasterio: {GEO_ADVICE}")


def _has_pages(path: Path) -> bool:
    """Whether the channels of a TIFF file are its pages, of which GDAL reads only the first."""
    import tifffile  # noqa: PLC0415  slow to import

    with tifffile.TiffFile(path) as file:
        return len(channel_pages(file)) > 1
