"""Images and masks in array files: NumPy's ``.npy`` and ``.npz``, and MATLAB's ``.mat``."""

from __future__ import annotations

import importlib
import io
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from segtrain.data.io.raster import NeedsFieldError, NeedsPackageError, Raster, check_pixels

_NPY, _ZIP, _MAT, _HDF = b"\x93NUMPY", b"PK\x03\x04", b"MATLAB 5.0", b"MATLAB 7.3"
_NUMBERS = "uifb"
# Where the published files of SBD, of PASCAL-Context and of COCO-Stuff have their labels.
_KNOWN_FIELDS = ("GTcls.Segmentation", "LabelMap", "S")


def is_array(data: bytes) -> bool:
    """Whether `data` is the start of a ``.npy``, ``.npz`` or ``.mat`` file."""
    return data.startswith((_NPY, _ZIP, _MAT, _HDF))


def load(data: bytes, max_pixels: int, field: str | None = None) -> Raster:
    """Decode an array of a ``.npy``, ``.npz`` or ``.mat`` file.

    Args:
        data: The content of the file.
        max_pixels: Limit of the number of pixels.
        field: The array of a file with several: its name, or names of structs and fields joined by
            dots, such as ``groundTruth.Segmentation``. In a cell array this is the first entry; a
            number names another one, as in ``groundTruth.1.Segmentation``. None: the only array.

    Raises:
        ValueError: When it is not an array ``(H, W)`` or ``(H, W, C)``.
        NeedsFieldError: When `field` does not name one of several arrays.
        NeedsPackageError: When it is a MATLAB 7.3 file and h5py is not installed.
        TooLargeError: When it has more than `max_pixels` pixels.
    """
    if data.startswith(_NPY):
        pixels = np.load(io.BytesIO(data), allow_pickle=False)
    else:
        pixels = _one_of(dict(_arrays(data)), field)
    _checked_size(pixels.shape, max_pixels)
    return Raster(pixels)


def load_size(stream: IO[bytes], max_pixels: int, field: str | None = None) -> tuple[int, int]:
    """Read height and width of an array; only of a ``.npy`` file, the header alone is read.

    Raises:
        Exception: As :func:`load`.
    """
    start = stream.read(len(_NPY))
    stream.seek(0)
    if start != _NPY:
        height, width = load(stream.read(), max_pixels, field).pixels.shape[:2]
        return height, width
    form = np.lib.format
    is_first = form.read_magic(stream) == (1, 0)
    read = form.read_array_header_1_0 if is_first else form.read_array_header_2_0
    shape, *_ = read(stream)
    return _checked_size(shape, max_pixels)


def _checked_size(shape: Sequence[int], max_pixels: int) -> tuple[int, int]:
    if len(shape) not in (2, 3):
        raise ValueError(f"its array has {len(shape)} dimensions, not height, width, channels")
    check_pixels(shape[0], shape[1], max_pixels)
    return shape[0], shape[1]


def _arrays(data: bytes) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the arrays of a file that may be an image, each with its name."""
    if data.startswith(_ZIP):
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as content:
                yield from _walk({name: content[name] for name in content.files})
        except zipfile.BadZipFile as error:
            raise ValueError(str(error)) from error
    elif data.startswith(_MAT):
        loadmat: Callable[..., dict[str, Any]] = importlib.import_module("scipy.io").loadmat
        yield from _walk(loadmat(io.BytesIO(data)))
    else:
        yield from _walk(_hdf_content(data))


def _walk(value: Any, name: str = "") -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the arrays in nested mappings, structs and cell arrays, named by their path."""
    for part, item in _parts(value):
        path = f"{name}.{part}" if name and part else name or part
        if isinstance(item, np.ndarray) and item.dtype.kind in _NUMBERS:
            if item.ndim in (2, 3) and min(item.shape[:2]) > 1:
                yield path, item
        else:
            yield from _walk(item, path)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the parts of a mapping, struct or cell array; the first of several has no number."""
    if isinstance(value, Mapping):
        yield from ((key, item) for key, item in value.items() if not key.startswith(("__", "#")))
    elif isinstance(value, np.ndarray) and value.dtype.names:
        for number, item in enumerate(value.ravel()):
            for key in value.dtype.names:
                yield f"{number}.{key}" if number else key, item[key]
    elif isinstance(value, np.ndarray) and value.dtype.kind == "O":
        yield from ((str(number) if number else "", item) for number, item in enumerate(value.flat))


def _one_of(arrays: Mapping[str, NDArray[Any]], field: str | None) -> NDArray[Any]:
    if field is not None:
        if field not in arrays:
            raise NeedsFieldError(arrays, field)
        return arrays[field]
    for name in _KNOWN_FIELDS:
        if name in arrays:
            return arrays[name]
    if not arrays:
        raise ValueError("it holds no array of height and width")
    if len(arrays) > 1:
        raise NeedsFieldError(arrays)
    return next(iter(arrays.values()))


def _hdf_content(data: bytes) -> dict[str, Any]:
    """Return the content of a MATLAB 7.3 file, which is an HDF5 file."""
    try:
        h5py = importlib.import_module("h5py")
    except ImportError:
        raise NeedsPackageError(
            'a MATLAB 7.3 file needs the package h5py: pip install "segtrain[matlab]"'
        ) from None

    def plain(item: Any, file: Any) -> Any:
        if isinstance(item, h5py.Group):
            return {key: plain(value, file) for key, value in item.items()}
        array = item[()]
        if array.dtype.kind != "O":
            return np.asarray(array).T  # MATLAB stores columns first
        cells = [plain(file[reference], file) for reference in array.ravel()]
        found = np.empty(len(cells), dtype=object)
        found[:] = cells
        return found

    with h5py.File(io.BytesIO(data), "r") as file:
        return {key: plain(item, file) for key, item in file.items()}
