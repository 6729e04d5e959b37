"""Colours of class ids: the default ones, and drawing with any."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_GOLDEN_RATIO = 0.61803398875
_LEVELS = ((0.75, 0.95), (0.55, 0.70), (0.90, 0.60))  # (saturation, value), taken in turn


def default_palette(num_classes: int) -> tuple[tuple[int, int, int], ...]:
    """Return one RGB colour per class, the same in every run, and never black, which means ignored.

    Hues advance by the golden ratio, so that the first k colours are spread out for every k.
    Saturation and brightness alternate, so that classes of nearly the same hue still differ.

    Example:
        >>> default_palette(2)
        ((242, 60, 60), (80, 108, 178))
    """
    return tuple(_colour(index) for index in range(num_classes))


def colorize(ids: NDArray[Any], palette: Sequence[Sequence[int]]) -> NDArray[np.uint8]:
    """Return class ids as colours; values that are not class ids are black.

    Shape:
        - ids: ``(H, W)``, integers.
        - output: ``(H, W, 3)``, uint8.

    Example:
        >>> colorize(np.array([[1, 255]]), [(1, 1, 1), (2, 2, 2)]).tolist()
        [[[2, 2, 2], [0, 0, 0]]]
    """
    colours = np.array([*palette, (0, 0, 0)], dtype=np.uint8)
    valid = (ids >= 0) & (ids < len(palette))
    return colours[np.where(valid, ids, len(palette))]


def _colour(index: int) -> tuple[int, int, int]:
    saturation, value = _LEVELS[index % len(_LEVELS)]
    red, green, blue = colorsys.hsv_to_rgb(index * _GOLDEN_RATIO % 1.0, saturation, value)
    return int(red * 255), int(green * 255), int(blue * 255)
