"""NIfTI volumes, read by nibabel: an archive whose members are axial slices, ``000.npy``, ....

Volumes are turned to the axes right, anterior, superior (nibabel's "closest canonical"), and cut
along the third. A slice is shown as radiologists look at it, and as DICOM files hold it: the front
of the body is at the top, its left side on the right.
"""

from __future__ import annotations

import importlib
import io
import os
import struct
import zlib
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segtrain.data.io.raster import NeedsPackageError
from segtrain.data.io.recent import RecentArrays
from segtrain.errors import DataError, one_line

VOLUME_ENDINGS = (".nii", ".nii.gz")
_MAX_BYTES = 1 << 29  # of the decoded volumes that a process keeps, and of one compressed volume
_SPATIAL = 3
_NUMBERS = "iuf"
_SLOPE_ERROR = 2e-7  # relative


class Volume:
    """A volume; opening it reads only its header.

    A file that is not compressed is mapped into memory, so reading a slice reads only its bytes. A
    compressed file is decoded as a whole, and the last ones stay in memory.

    Args:
        path: The file.

    Attributes:
        names: The name of each slice, from the feet to the head.

    Raises:
        DataError: When its values or dimensions are not those of a volume, or it is compressed and
            too large to decode.
        NeedsPackageError: When nibabel is not installed.
        OSError: When the file is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        nibabel = _nibabel()
        try:
            image = nibabel.load(path)
            self.dtype = image.get_data_dtype()
            self._shape: tuple[int, ...] = image.shape
            self._proxy = image.dataobj
            self._axes = nibabel.io_orientation(image.affine)
        except _errors(nibabel) as error:
            raise _damaged(error) from error
        self._check()
        number = self._shape[self._axis(2)]
        self.names = [f"{index:0{max(3, len(str(number - 1)))}}.npy" for index in range(number)]

    def _check(self) -> None:
        shown = " x ".join(map(str, self._shape))
        if len(self._shape) < _SPATIAL:
            raise DataError(
                f"{self.path}: a volume has three dimensions, or four with channels, but this file"
                f" has {len(self._shape)} ({shown}); write its pixels as PNG or .npy"
            )
        if 0 in self._shape:
            raise DataError(
                f"{self.path}: the volume is empty ({shown}); write it again, or remove it from the"
                " dataset"
            )
        if sum(size > 1 for size in self._shape[_SPATIAL:]) > 1:
            raise DataError(
                f"{self.path}: a volume has three dimensions, or four with channels, but this file"
                f" has {len(self._shape)} ({shown}); write one volume per point in time"
            )
        if self.dtype.kind not in _NUMBERS:
            kind = "colours" if self.dtype.names else f"{self.dtype} values"
            raise DataError(
                f"{self.path}: the volume holds {kind}, but integers or real numbers are needed;"
                " write the channels as a fourth dimension"
            )
        if np.isnan(self._axes).any():
            raise DataError(
                f"{self.path}: the affine matrix in its header has a column of zeros, so the"
                " directions of its axes are unknown; write it with a valid matrix"
            )
        size = int(np.prod(self._shape)) * self.dtype.itemsize
        if self._is_compressed and size > _MAX_BYTES:
            raise DataError(
                f"{self.path}: the volume takes {size / 2**20:.0f} MiB when it is decompressed, and"
                f" at most {_MAX_BYTES >> 20} are decompressed to read a slice; use gunzip on the"
                " file, as single slices of .nii files can be read"
            )

    def namelist(self) -> list[str]:
        """Return the names of the slices."""
        return self.names

    def read(self, name: str) -> bytes:
        """Return a slice as the content of a ``.npy`` file.

        Raises:
            KeyError: When there is no such slice.
            OSError: When the file is damaged.
        """
        return self.header(name) + self._slice(int(name.removesuffix(".npy"))).tobytes()

    def header(self, name: str) -> bytes:
        """Return the start of what :meth:`read` returns, up to the pixels.

        Raises:
            KeyError: When there is no such slice.
        """
        if name not in self._known:
            raise KeyError(name)
        stream = io.BytesIO()
        about = {"descr": self._out_dtype.str, "fortran_order": False, "shape": self._slice_shape}
        np.lib.format.write_array_header_1_0(stream, about)
        return stream.getvalue()

    def slice_bytes(self, name: str) -> int:
        """Return the number of bytes that :meth:`read` returns.

        Raises:
            KeyError: When there is no such slice.
        """
        return len(self.header(name)) + int(np.prod(self._slice_shape)) * self._out_dtype.itemsize

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.names)

    @property
    def _is_compressed(self) -> bool:
        return self.path.suffix.lower() == ".gz"

    @property
    def _is_scaled(self) -> bool:
        return (self._proxy.slope, self._proxy.inter) != (1, 0)

    @property
    def _out_dtype(self) -> np.dtype[Any]:
        """The type of the values of a slice; numbers with more than 32 bits become float32."""
        if self._is_scaled or self.dtype.kind == "f":
            return np.dtype(np.float32)
        found: np.dtype[Any] = self.dtype.newbyteorder("=")
        return found

    @property
    def _slice_shape(self) -> tuple[int, ...]:
        channels = [size for size in self._shape[_SPATIAL:] if size > 1]
        return (self._shape[self._axis(1)], self._shape[self._axis(0)], *channels)

    def _axis(self, canonical: int) -> int:
        """Return the axis of the file that becomes this axis: right, anterior or superior."""
        return int(np.flatnonzero(self._axes[:, 0] == canonical)[0])

    def _slice(self, index: int) -> NDArray[Any]:
        right, anterior, superior = (self._axis(number) for number in range(_SPATIAL))
        flips = self._axes[:, 1] < 0
        place = self._shape[superior] - 1 - index if flips[superior] else index
        pixels = self._values()[(slice(None),) * superior + (place,)]
        pixels = pixels.swapaxes(0, 1) if right < anterior else pixels  # rows, then columns
        pixels = pixels if flips[anterior] else pixels[::-1]
        pixels = pixels if flips[right] else pixels[:, ::-1]
        pixels = pixels.reshape(self._slice_shape)
        if self._is_scaled:
            pixels = _whole(pixels * float(self._proxy.slope) + float(self._proxy.inter))
        return pixels.astype(self._out_dtype)

    def _values(self) -> NDArray[Any]:
        """Return the values as the file holds them, in its order of axes."""
        if not self._is_compressed:
            return self._load()
        status = self.path.stat()
        key = (self.path, status.st_size, status.st_mtime_ns)
        return _recent(os.getpid()).get(key, self._load)

    def _load(self) -> NDArray[Any]:
        try:
            values: NDArray[Any] = self._proxy.get_unscaled()
        except _errors(_nibabel()) as error:
            raise _damaged(error) from error
        return values


def _whole(values: NDArray[Any]) -> NDArray[Any]:
    """Round values that are whole up to the precision of a slope, which has 32 bits.

    A mask of 0 and 1 that was written from floats holds 0 and 255, and its slope makes 1.00000006
    of 255.
    """
    whole = np.round(values)
    return np.where(np.abs(values - whole) <= _SLOPE_ERROR * np.abs(whole), whole, values)


@lru_cache(maxsize=1)
def _recent(process: int) -> RecentArrays:
    """The decoded volumes of a process; a forked one starts without the locks of its parent."""
    del process
    return RecentArrays(_MAX_BYTES)


def _nibabel() -> Any:
    try:
        return importlib.import_module("nibabel")
    except ImportError:
        raise NeedsPackageError(
            'a NIfTI volume needs the package nibabel: pip install "segtrain[nifti]"'
        ) from None


def _errors(nibabel: Any) -> tuple[type[Exception], ...]:
    """The errors of nibabel for files that are damaged."""
    own = (nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError)
    return (*own, OSError, EOFError, ValueError, OverflowError, zlib.error, struct.error)


def _damaged(error: Exception) -> OSError:
    if isinstance(error, FileNotFoundError):
        return error
    return OSError(f"the volume is damaged: {one_line(error)}")
