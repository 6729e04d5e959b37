"""Windows of TIFF files, by tifffile: only the strips and tiles that a window needs are decoded."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segtrain.data.io.geo import GEO_ADVICE
from segtrain.data.io.raster import (
    EXIF_ORIENTATION,
    UPRIGHT,
    NeedsPackageError,
    NotAnImageError,
)
from segtrain.data.io.tiff import channel_pages, declared_nodata, has_transparency
from segtrain.data.io.windows.base import Layout, WindowSource

_PLAIN = (1, 2)  # photometric tags: black is zero, and RGB
_MOST_BYTES = 1 << 28  # of one strip or tile, decoded


class TiffSource(WindowSource):
    """Windows of a TIFF file of grey, RGB or any number of channels.

    Args:
        path: The file.

    Raises:
        NeedsPackageError: When its kind of pixels or its compression needs another package.
        NotAnImageError: When a strip of the file is too large to be decoded, or the file is turned.
    """

    def __init__(self, path: Path) -> None:
        self._file: Any = importlib.import_module("tifffile").TiffFile(path)
        try:
            self._pages = channel_pages(self._file)
            self._check()
            self.layout = self._look()
        except BaseException:
            self._file.close()
            raise

    def _check(self) -> None:
        page = self._pages[0]
        if page.photometric not in _PLAIN or page.bitspersample < 8:
            raise NeedsPackageError(
                f"windows of a TIFF file of this kind (photometric {int(page.photometric)},"
                f" {page.bitspersample} bits) need the package rasterio: {GEO_ADVICE}"
            )
        if page.tags.valueof(EXIF_ORIENTATION, UPRIGHT) != UPRIGHT:
            raise NotAnImageError(
                "it is stored turned or mirrored (tag Orientation), and windows are read upright"
                " only; write it upright"
            )
        size = int(np.prod(page.chunks)) * page.dtype.itemsize
        if not page.is_memmappable and size > _MOST_BYTES:
            raise NotAnImageError(
                f"one of its strips or tiles has {size:,} bytes, more than {_MOST_BYTES:,}; write"
                " it with tiles, as in gdal_translate -co TILED=YES"
            )
        if page.compression != 1:
            try:
                self._decoded(page, 0)
            except ValueError as error:
                if "imagecodecs" not in str(error):
                    raise
                raise NeedsPackageError(
                    f"a TIFF file with {page.compression.name} compression needs a package: pip"
                    f' install "segtrain[tiff]", or {GEO_ADVICE}'
                ) from None

    def _look(self) -> Layout:
        page = self._pages[0]
        channels = page.samplesperpixel if len(self._pages) == 1 else len(self._pages)
        is_tiled = bool(page.is_tiled)
        return Layout(
            page.imagelength,
            page.imagewidth,
            channels,
            np.dtype(page.dtype).newbyteorder("="),
            has_alpha=has_transparency(page),
            nodata=declared_nodata(page),
            whole_rows=not is_tiled,
        )

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Return a window ``(r, c, channels)``."""
        parts = [self._page_window(page, rows, columns) for page in self._pages]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _page_window(self, page: Any, rows: slice, columns: slice) -> NDArray[Any]:
        if page.is_memmappable:
            return self._plain_rows(page, rows)[:, columns]
        shape = (rows.stop - rows.start, columns.stop - columns.start, page.samplesperpixel)
        found = np.zeros(shape, np.dtype(page.dtype).newbyteorder("="))
        for index in _touched(page, rows, columns):
            segment, (plane, _, top, left, _), size = self._decoded(page, index)
            if segment is None:
                continue  # a hole in the file, which means zeros
            part = segment[0, : size[1], : size[2]]
            inside = (
                slice(max(rows.start, top), min(rows.stop, top + part.shape[0])),
                slice(max(columns.start, left), min(columns.stop, left + part.shape[1])),
            )
            there = tuple(
                slice(one.start - start, one.stop - start)
                for one, start in zip(inside, (rows.start, columns.start), strict=True)
            )
            taken = tuple(
                slice(one.start - start, one.stop - start)
                for one, start in zip(inside, (top, left), strict=True)
            )
            found[(*there, slice(plane, plane + part.shape[2]))] = part[taken]
        return found

    def _plain_rows(self, page: Any, rows: slice) -> NDArray[Any]:
        """Rows of pixels that lie in the file as they are, ``(r, W, S)``."""
        separate = page.planarconfig == 2 and page.samplesperpixel > 1
        planes = page.samplesperpixel if separate else 1
        per_row = page.imagewidth * page.samplesperpixel // planes
        dtype = np.dtype(self._file.byteorder + page.dtype.char)
        parts = [
            self._file.filehandle.read_array(
                dtype,
                (rows.stop - rows.start) * per_row,
                page.dataoffsets[0]
                + (plane * page.imagelength + rows.start) * per_row * dtype.itemsize,
            ).reshape(rows.stop - rows.start, page.imagewidth, -1)
            for plane in range(planes)
        ]
        found = parts[0] if planes == 1 else np.concatenate(parts, axis=2)
        return found.astype(dtype.newbyteorder("="), copy=False)

    def _decoded(self, page: Any, index: int) -> Any:
        """A decoded segment ``(1, r, c, s)``, its position, and its size inside the image."""
        handle = self._file.filehandle
        size = page.databytecounts[index]
        if not size:
            return page.decode(None, index)
        handle.seek(page.dataoffsets[index])
        return page.decode(handle.read(size), index, jpegtables=page.jpegtables)


def _touched(page: Any, rows: slice, columns: slice) -> Iterator[int]:
    """The numbers of the strips or tiles that a window touches, in all planes."""
    if page.is_tiled:
        high, wide = page.tilelength, page.tilewidth
    else:
        high, wide = min(page.rowsperstrip, page.imagelength), page.imagewidth
    down, across = -(-page.imagelength // high), -(-page.imagewidth // wide)
    planes = len(page.dataoffsets) // (down * across)
    for plane, row, column in itertools.product(
        range(planes),
        range(rows.start // high, -(-rows.stop // high)),
        range(columns.start // wide, -(-columns.stop // wide)),
    ):
        yield (plane * down + row) * across + column
