"""Write masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def write_mask(path: str | Path, ids: NDArray[Any]) -> None:
    """Write class ids as a grey PNG file, with 8 bits if they fit, else with 16.

    Shape:
        - ids: ``(H, W)``, integers.

    Raises:
        ValueError: When an id is negative or above 65535.
    """
    _check_range(ids, 65535)
    dtype = np.uint8 if ids.size == 0 or ids.max() <= 255 else np.uint16
    Image.fromarray(np.ascontiguousarray(ids, dtype=dtype)).save(path, format="PNG")


def write_palette_mask(
    path: str | Path, ids: NDArray[Any], palette: Sequence[Sequence[int]]
) -> None:
    """Write class ids as a palette PNG file: viewers show colours, `read_mask` returns the ids.

    Shape:
        - ids: ``(H, W)``, integers.

    Raises:
        ValueError: When an id is negative or above 255.
    """
    _check_range(ids, 255)
    image = Image.fromarray(np.ascontiguousarray(ids, dtype=np.uint8))
    colours = [int(channel) for colour in palette[:256] for channel in colour]
    image.putpalette(colours + [0] * (768 - len(colours)))  # also turns the mode from L to P
    image.save(path, format="PNG")


def _check_range(ids: NDArray[Any], largest: int) -> None:
    if ids.size and (ids.min() < 0 or ids.max() > largest):
        raise ValueError(
            f"ids must be in 0 to {largest} to be written, got {ids.min()} to {ids.max()}; replace"
            " a negative ignore label first"
        )
