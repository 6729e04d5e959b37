"""Pictures that are written by bands of rows: PNG, TIFF and GeoTIFF files."""

from __future__ import annotations

import importlib
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segtrain.data.io.geo import load_rasterio
from segtrain.files import temporary_name
from segtrain.inference.writers.base import Target

_STRIP_ROWS = 64  # of a TIFF file


class Format(NamedTuple):
    """The pixels of a picture.

    Attributes:
        dtype: ``uint8`` or ``uint16``.
        channels: Number of channels; 1 and 3 may be a PNG file.
        palette: The colour of each value, for pictures of one channel; None: they are grey or RGB.
        nodata: The value that a GeoTIFF declares as no data; None: it declares none.
    """

    dtype: str
    channels: int = 1
    palette: Sequence[Sequence[int]] | None = None
    nodata: int | None = None


class Picture(ABC):
    """A file that is written by bands of rows and appears when it is complete.

    Args:
        path: The file.
        target: Its size and its place on the ground.
        form: Its pixels.
    """

    def __init__(self, path: Path, target: Target, form: Format) -> None:
        self.path, self.target, self.form = path, target, form
        self.temporary = temporary_name(path)

    @abstractmethod
    def write(self, rows: slice, pixels: NDArray[Any]) -> None:
        """Write rows, ``(R, W)`` or ``(R, W, channels)``."""

    @abstractmethod
    def _complete(self) -> None:
        """Complete the temporary file."""

    def _release(self) -> None:  # noqa: B027  many have nothing open
        """Close what is open, whatever happened."""

    def finish(self) -> None:
        """Complete the file; it replaces an older one."""
        self._complete()
        self.temporary.replace(self.path)

    def abort(self) -> None:
        """Remove what was written."""
        self._release()
        self.temporary.unlink(missing_ok=True)


class PngPicture(Picture):
    """A PNG file of an image that fits into memory."""

    def __init__(self, path: Path, target: Target, form: Format) -> None:
        super().__init__(path, target, form)
        more = () if form.channels == 1 else (form.channels,)
        self._pixels = np.zeros((target.height, target.width, *more), form.dtype)

    def write(self, rows: slice, pixels: NDArray[Any]) -> None:
        """Keep rows."""
        self._pixels[rows] = pixels

    def _complete(self) -> None:
        image = Image.fromarray(self._pixels)
        if self.form.palette is not None:  # also turns the mode from L to P
            image.putpalette(_flat_palette(self.form.palette))
        image.save(self.temporary, format="PNG")


class TiffPicture(Picture):
    """A compressed TIFF file in strips, written by tifffile from rows that wait in a plain file."""

    def __init__(self, path: Path, target: Target, form: Format) -> None:
        super().__init__(path, target, form)
        self._rows: IO[bytes] = temporary_name(path).open("w+b")

    def write(self, rows: slice, pixels: NDArray[Any]) -> None:
        """Append rows to the plain file."""
        del rows
        self._rows.write(np.ascontiguousarray(pixels, self.form.dtype).tobytes())

    def _complete(self) -> None:
        form, target = self.form, self.target
        more = () if form.channels == 1 else (form.channels,)
        kind = "rgb" if form.channels == 3 else "minisblack"
        keywords: dict[str, Any] = {"photometric": kind}
        if form.palette is not None:
            table = np.array(_flat_palette(form.palette), np.uint16).reshape(256, 3).T * 257
            keywords = {"photometric": "palette", "colormap": table}
        elif form.channels > 1:
            keywords["planarconfig"] = "contig"
        importlib.import_module("tifffile").imwrite(
            self.temporary,
            self._strips(),
            shape=(target.height, target.width, *more),
            dtype=form.dtype,
            rowsperstrip=_STRIP_ROWS,
            compression="zlib",
            bigtiff=target.height * target.width * form.channels > 1 << 31,
            **keywords,
        )
        self._release()

    def _strips(self) -> Iterator[bytes]:
        """Yield compressed strips."""
        self._rows.seek(0)
        row = self.target.width * self.form.channels * np.dtype(self.form.dtype).itemsize
        while content := self._rows.read(_STRIP_ROWS * row):
            yield zlib.compress(content, 1)  # the fastest level; masks get small all the same

    def _release(self) -> None:
        self._rows.close()
        Path(self._rows.name).unlink(missing_ok=True)


class GeoPicture(Picture):
    """A GeoTIFF file, or a TIFF file, written by rasterio."""

    def __init__(self, path: Path, target: Target, form: Format) -> None:
        super().__init__(path, target, form)
        rasterio: Any = importlib.import_module("rasterio")
        place = target.georeference
        keywords: dict[str, Any] = {}
        if place is not None:
            keywords = {"transform": rasterio.Affine(*place.transform), "crs": place.crs}
            if place.has_nodata and form.nodata is not None:
                keywords["nodata"] = form.nodata
        if form.channels == 3:
            keywords["photometric"] = "rgb"
        self._file: Any = rasterio.open(
            self.temporary,
            "w",
            driver="GTiff",
            height=target.height,
            width=target.width,
            count=form.channels,
            dtype=form.dtype,
            compress="deflate",
            blockysize=_STRIP_ROWS,
            interleave="pixel",
            bigtiff="if_safer",
            **keywords,
        )
        if form.palette is not None:
            self._file.write_colormap(1, {i: tuple(c) for i, c in enumerate(form.palette[:256])})

    def write(self, rows: slice, pixels: NDArray[Any]) -> None:
        """Write rows."""
        window = importlib.import_module("rasterio.windows").Window(
            0, rows.start, self.target.width, rows.stop - rows.start
        )
        bands = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)
        self._file.write(bands.astype(self.form.dtype, copy=False), window=window)

    def _complete(self) -> None:
        self._file.close()

    def _release(self) -> None:
        self._file.close()


def open_picture(folder: Path, target: Target, form: Format) -> Picture:
    """Open the picture of an image; its kind follows from the target and from what is installed."""
    is_png = not target.as_tiff and form.channels in (1, 3)
    path = folder / f"{target.stem}{'.png' if is_png else '.tif'}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_png:
        return PngPicture(path, target, form)
    needs_rasterio = target.georeference is not None and load_rasterio() is not None
    return GeoPicture(path, target, form) if needs_rasterio else TiffPicture(path, target, form)


def _flat_palette(palette: Sequence[Sequence[int]]) -> list[int]:
    colours = [int(channel) for colour in palette[:256] for channel in colour]
    return colours + [0] * (768 - len(colours))
