"""A stand-in for OpenCV on GPU machines that lack it: what loading and augmenting samples needs.

It is slower than OpenCV, and resized pixels may differ by 1. ``benchmarks/gpu.py`` says in its
report when it was used. Everything else of OpenCV raises ``ModuleNotFoundError``.
"""

from __future__ import annotations

import importlib
import io
import sys
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

__version__ = "not installed, replaced by opencv_stand_in.py"

CV_32F = 5
INTER_NEAREST, INTER_LINEAR, INTER_NEAREST_EXACT = 0, 1, 6
IMREAD_UNCHANGED, IMREAD_GRAYSCALE, IMREAD_IGNORE_ORIENTATION, IMREAD_COLOR_RGB = -1, 0, 128, 256


def install() -> str:
    """Put this module in the place of a missing ``cv2``; return the version of ``cv2``."""
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError:
        cv2 = sys.modules["cv2"] = sys.modules[__name__]
    return str(cv2.__version__)


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise ModuleNotFoundError(f"cv2.{name} needs OpenCV", name="cv2")


def setNumThreads(threads: int) -> None:  # noqa: N802
    """Do nothing."""
    del threads


def split(image: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the channels of an image."""
    return list(image.transpose(2, 0, 1))


def addWeighted(  # noqa: N802
    one: NDArray[Any],
    alpha: float,
    other: NDArray[Any],
    beta: float,
    gamma: float,
    dst: NDArray[Any],
    dtype: int,
) -> NDArray[Any]:
    """Write ``alpha * one + beta * other + gamma`` to `dst`."""
    del dtype
    dst[...] = alpha * one + beta * other + gamma
    return dst


def flip(image: NDArray[Any], code: int) -> NDArray[Any]:
    """Flip rows (0), columns (1) or both (-1)."""
    axes = (0, 1) if code < 0 else (code,)
    return np.ascontiguousarray(np.flip(image, axes))


def resize(image: NDArray[Any], size: tuple[int, int], *, interpolation: int) -> NDArray[Any]:
    """Resize to a width and a height, without antialiasing."""
    if interpolation != INTER_LINEAR:
        rows, columns = (_nearest(*pair) for pair in zip(image.shape, size[::-1], strict=False))
        return np.ascontiguousarray(image[rows][:, columns])
    planes = image[..., None] if image.ndim == 2 else image
    tensor = torch.from_numpy(planes.transpose(2, 0, 1).astype(np.float32))[None]
    large = F.interpolate(tensor, size=size[::-1], mode="bilinear", align_corners=False)
    pixels = large[0].permute(1, 2, 0).numpy()
    if image.dtype.kind in "iu":
        pixels = np.rint(pixels)
    pixels = np.ascontiguousarray(pixels.astype(image.dtype))
    return pixels[..., 0] if image.ndim == 2 else pixels


def _nearest(source: int, wanted: int) -> NDArray[np.int64]:
    """Return the nearest source index of each index, by the centres of the pixels."""
    return (2 * np.arange(wanted) + 1) * source // (2 * wanted)


def LUT(image: NDArray[Any], table: NDArray[Any]) -> NDArray[Any]:  # noqa: N802
    """Look up each value in a table."""
    found: NDArray[Any] = table[image]
    return found


def imdecode(data: NDArray[np.uint8], flags: int) -> NDArray[Any] | None:
    """Decode a file with Pillow; return None if that fails."""
    try:
        with Image.open(io.BytesIO(data.tobytes())) as image:
            if flags == IMREAD_UNCHANGED:
                return np.array(image)
            return np.array(image.convert("RGB" if flags & IMREAD_COLOR_RGB else "L"))
    except (OSError, SyntaxError, ValueError):
        return None
