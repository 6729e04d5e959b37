"""Images and masks in array files: NumPy's ``.npy`` and MATLAB's ``.mat``."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segtrain.data.io.raster import Raster, check_pixels

_NPY, _MAT = b"\x93NUMPY", b"MATLAB 5.0"


def is_array(data: bytes) -> bool:
    """Whether `data` is the start of a ``.npy`` or ``.mat`` file."""
    return data.startswith((_NPY, _MAT))


def load(data: bytes, max_pixels: int) -> Raster:
    """Decode the array of a ``.npy`` or ``.mat`` file.

    Raises:
        ValueError: When it is not an array ``(H, W)`` or ``(H, W, C)``.
        TooLargeError: When it has more than `max_pixels` pixels.
    """
    if data.startswith(_NPY):
        pixels = np.load(io.BytesIO(data), allow_pickle=False)
    else:
        pixels = _from_matlab(data)
    if pixels.ndim not in (2, 3):
        raise ValueError(f"its array has {pixels.ndim} dimensions, not height, width, channels")
    check_pixels(pixels.shape[0], pixels.shape[1], max_pixels)
    return Raster(pixels)


def _from_matlab(data: bytes) -> NDArray[Any]:
    """Return the label array of SBD, of PASCAL-Context or COCO-Stuff, or the only array."""
    loadmat: Callable[..., dict[str, Any]] = importlib.import_module("scipy.io").loadmat
    content = loadmat(io.BytesIO(data))
    if "GTcls" in content:
        return np.asarray(content["GTcls"]["Segmentation"][0, 0])
    arrays = {
        key: value
        for key, value in content.items()
        if not key.startswith("__") and getattr(value, "ndim", 0) in (2, 3) and value.size > 1
        and value.dtype.kind in "uifb"
    }  # fmt: skip
    for key in ("LabelMap", "S"):
        if key in arrays:
            return np.asarray(arrays[key])
    if len(arrays) != 1:
        raise ValueError(
            f"it holds {', '.join(content) or 'nothing'} and no single array of labels"
        )
    return np.asarray(next(iter(arrays.values())))
