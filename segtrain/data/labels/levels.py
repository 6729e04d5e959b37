"""Grey levels in masks whose values are not exact, as after JPEG compression or resizing."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

_GREY = 256
_LEAST_VALUES = 5  # fewer can be classes
_LEAST_GAP = 32  # between two levels
_MOST_BETWEEN = 0.1  # share of the pixels that may lie between the levels


class Levels(NamedTuple):
    """A few grey levels, around which the values of masks lie.

    Attributes:
        values: The levels, in ascending order.
        between: Number of pixels that are nearer to the middle of two levels than to a level.
        total: Number of all pixels.
    """

    values: tuple[int, ...]
    between: int
    total: int

    def ranges(self) -> dict[str, int]:
        """A label map that gives each value the class of the nearest level.

        Example:
            >>> Levels((0, 255), 3, 100).ranges()
            {'0-127': 0, '128-255': 1}
        """
        ends = [*_middles(self.values), _GREY - 1]
        starts = [0, *(end + 1 for end in ends[:-1])]
        return {
            f"{start}-{end}": i for i, (start, end) in enumerate(zip(starts, ends, strict=True))
        }


def find_levels(counts: Mapping[int, int], number: int) -> Levels | None:
    """Return the grey levels around which almost all values lie; None: they do not.

    Args:
        counts: Value to number of pixels.
        number: Number of levels.

    Example:
        >>> find_levels({0: 900, 3: 40, 120: 5, 250: 30, 255: 500}, 2)
        Levels(values=(0, 255), between=5, total=1475)
        >>> find_levels({value: 10 for value in range(200)}, 2) is None
        True
    """
    if len(counts) < _LEAST_VALUES or min(counts) < 0 or max(counts) >= _GREY:
        return None
    chosen: list[int] = []
    for value in sorted(counts, key=lambda value: -counts[value]):
        if all(abs(value - other) >= _LEAST_GAP for other in chosen):
            chosen.append(value)
        if len(chosen) == number:
            break
    if len(chosen) < max(number, 2):
        return None
    levels = tuple(sorted(chosen))
    middles = _middles(levels)
    near, between, blurred = dict.fromkeys(levels, 0), 0, set()
    for value, pixels in counts.items():
        level = levels[bisect_left(middles, value)]
        if value != level:
            blurred.add(level)
        gap = min(abs(level - other) for other in levels if other != level)
        if abs(value - level) > gap / 4:
            between += pixels
        else:
            near[level] += pixels
    total = sum(counts.values())
    # Around the 255 of exact masks, which marks pixels without a class, there are no values.
    clear = between <= _MOST_BETWEEN * total and between <= min(near.values())
    return Levels(levels, between, total) if clear and len(blurred) == number else None


def _middles(levels: Sequence[int]) -> list[int]:
    return [(low + high) // 2 for low, high in pairwise(levels)]
