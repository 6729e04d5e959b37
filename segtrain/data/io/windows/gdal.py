"""Windows of any file that rasterio, and so GDAL, can read."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segtrain.data.io.geo import georeference_of, has_nodata, open_rasterio
from segtrain.data.io.raster import NotAnImageError
from segtrain.data.io.windows.base import Layout, WindowSource

_INK = ("cyan", "magenta", "yellow", "black")


class GdalSource(WindowSource):
    """Windows of a file, read by rasterio; the colours of a palette become RGB.

    Args:
        path: The file.

    Raises:
        DataError: When the file cannot be opened.
        NotAnImageError: When its colours are those of ink.
    """

    def __init__(self, path: Path) -> None:
        self._dataset = open_rasterio(path)
        try:
            self.layout, self._palette = self._look()
        except BaseException:
            self._dataset.close()
            raise

    def _look(self) -> tuple[Layout, NDArray[np.uint8] | None]:
        dataset = self._dataset
        colours = [band.name for band in dataset.colorinterp]
        if any(name in _INK for name in colours):
            raise NotAnImageError("its colours are those of ink (CMYK); convert it to RGB")
        palette = _palette(dataset) if colours == ["palette"] else None
        self._has_nodata = has_nodata(dataset)
        layout = Layout(
            dataset.height,
            dataset.width,
            dataset.count if palette is None else 3,
            np.dtype(dataset.dtypes[0]),
            has_alpha=colours[-1] == "alpha",
            nodata=dataset.nodata,
            whole_rows=dataset.block_shapes[0][1] == dataset.width,
            georeference=georeference_of(dataset),
        )
        return layout, palette

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Return a window ``(r, c, channels)``."""
        pixels: NDArray[Any] = self._dataset.read(window=_window(rows, columns))
        return pixels.transpose(1, 2, 0) if self._palette is None else self._palette[pixels[0]]

    def valid(self, rows: slice, columns: slice) -> NDArray[np.bool_] | None:
        """Return which pixels of a window have data by a value, a mask or transparency."""
        if not self._has_nodata:
            return None
        found: NDArray[np.uint8] = self._dataset.dataset_mask(window=_window(rows, columns))
        return np.not_equal(found, 0)

    def close(self) -> None:
        """Close the file."""
        self._dataset.close()


def _window(rows: slice, columns: slice) -> Any:
    return importlib.import_module("rasterio.windows").Window.from_slices(rows, columns)


def _palette(dataset: Any) -> NDArray[np.uint8]:
    colours = dataset.colormap(1)
    table = np.zeros((max(colours) + 1, 3), np.uint8)
    for value, colour in colours.items():
        table[value] = colour[:3]
    return table
