"""Write masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LARGEST_ID = 65535
"""The largest id that a grey PNG file holds."""
LARGEST_PALETTE_ID = 255
"""The largest id that a palette PNG file holds."""


def write_mask(path: str | Path, ids: NDArray[Any], largest: int | None = None) -> None:
    """Write class ids as a grey PNG file, with 8 bits if they fit, else with 16.

    Args:
        path: The file.
        ids: The class ids.
        largest: The largest id in any of several files, so that all have the same number of bits;
            None: that of `ids`.

    Shape:
        - ids: ``(H, W)``, integers.

    Raises:
        ValueError: When an id is negative or above 65535.
    """
    _check_range(ids, LARGEST_ID)
    largest = int(ids.max(initial=0)) if largest is None else largest
    dtype = np.uint8 if largest <= np.iinfo(np.uint8).max else np.uint16
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
    _check_range(ids, LARGEST_PALETTE_ID)
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
