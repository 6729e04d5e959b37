"""Default colours of class ids."""

from __future__ import annotations

import colorsys

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


def _colour(index: int) -> tuple[int, int, int]:
    saturation, value = _LEVELS[index % len(_LEVELS)]
    red, green, blue = colorsys.hsv_to_rgb(index * _GOLDEN_RATIO % 1.0, saturation, value)
    return int(red * 255), int(green * 255), int(blue * 255)
