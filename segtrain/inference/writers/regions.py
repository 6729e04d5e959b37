"""A connected region of one class: its outlines, and its pixels as run lengths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Region:
    """A connected region of one class.

    Attributes:
        class_id: Its class.
        area: Number of pixels.
        rings: Corners ``(k, 2)`` as x and y, from 0 to width and height: the outer ring first, then
            a ring per hole. The last corner is not the first one again. The outer ring has a
            positive area by the shoelace formula, a hole a negative one.
        starts: By column, the row at which each vertical run of pixels starts, as ``(x, y)``.
        stops: Likewise the row after its last pixel.
    """

    class_id: int
    area: int
    rings: tuple[Ints, ...]
    starts: Ints
    stops: Ints

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The smallest rectangle around the region: x, y, width and height."""
        (left, top), (right, bottom) = self.rings[0].min(0), self.rings[0].max(0)
        return int(left), int(top), int(right - left), int(bottom - top)

    def run_lengths(self, height: int, width: int) -> list[int]:
        """Return the run lengths of COCO: down the columns, pixels outside first."""
        begin = np.sort(self.starts @ [height, 1])
        end = np.sort(self.stops @ [height, 1])
        joined = np.isin(begin, end)  # a run that goes on at the top of the next column
        begin, end = begin[~joined], end[~np.isin(end, self.starts @ [height, 1])]
        places = np.stack([begin, end], 1).ravel()
        lengths = np.diff(np.concatenate([[0], places, [height * width]]))
        return [int(length) for length in (lengths if lengths[-1] else lengths[:-1])]


def shoelace(ring: NDArray[Any]) -> float:
    """Return the signed area of a ring ``(k, 2)``; positive if it turns from the x to the y axis.

    Example:
        >>> shoelace(np.array([[0, 0], [2, 0], [2, 3], [0, 3]]))
        6.0
    """
    x, y = ring[:, 0], ring[:, 1]
    twice = x[:-1] @ y[1:] - x[1:] @ y[:-1] + x[-1] * y[0] - x[0] * y[-1]
    return float(twice / 2)
