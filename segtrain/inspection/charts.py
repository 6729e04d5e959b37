"""Charts as HTML and SVG markup, without scripts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segtrain.pages.charts import whole_ticks

DECADES = 6
"""Decades of the logarithmic scale of a bar: from a millionth of the pixels to all of them."""
_MOST_DISCS = 1000
_WIDTH, _HEIGHT = 520, 340
_LEFT, _RIGHT, _BOTTOM, _TOP = 56, 14, 44, 12


def log_width(share: float) -> float:
    """Return the width of the bar of a share, in percent; 0 for a share of 0.

    Example:
        >>> log_width(1.0), log_width(1e-3), log_width(0)
        (100.0, 50.0, 0.0)
    """
    if share <= 0:
        return 0.0
    return max(100 * (1 + math.log10(share) / DECADES), 0.7)


def bars(shares: Sequence[float]) -> str:
    """Return shares as bars below each other, on a logarithmic scale."""
    inside = "".join(f'<div style="width:{log_width(share):.1f}%"></div>' for share in shares)
    return f'<div class="bars track">{inside}</div>'


def bars_axis() -> str:
    """Return the scale above the bars."""
    marks = ("0.0001", "0.01", "1", "100 %")
    return f'<div class="bars axis">{"".join(f"<span>{mark}</span>" for mark in marks)}</div>'


def distinct_sizes(sizes: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Return height, width and number of images of each size, the most frequent first.

    Example:
        >>> distinct_sizes(np.array([[2, 3], [4, 4], [2, 3], [0, 0]]))
        [(2, 3, 2), (4, 4, 1)]
    """
    counts = Counter((int(height), int(width)) for height, width in sizes if height)
    return sorted(((*size, count) for size, count in counts.items()), key=lambda row: -row[2])


def size_chart(sizes: Mapping[str, NDArray[np.int64]]) -> str:
    """Return a chart of image sizes; the area of a disc grows with the number of images.

    Args:
        sizes: Height and width of each image by split, ``(N, 2)``; 0 where they are not known.
    """
    rows = {split: distinct_sizes(found) for split, found in sizes.items()}
    if sum(map(len, rows.values())) > _MOST_DISCS:
        rows = {split: distinct_sizes(_rounded(found)) for split, found in sizes.items()}
    every = [row for found in rows.values() for row in found]
    if not every:
        return ""
    axes = _Axes(*whole_ticks(max(max(height, width) for height, width, _ in every)))
    most = max(count for *_, count in every)
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Width and height of images">'
    ]
    parts += [_grid_lines(axes, tick) for tick in range(0, axes.end + 1, axes.step)]
    parts.append(_axis_titles())
    for split, found in rows.items():
        parts += [_disc(axes, split, row, most) for row in found]
    return "\n".join([*parts, "</svg>"])


class _Axes(NamedTuple):
    """The axes of the size chart: distance and end of the ticks, and positions in the drawing."""

    step: int
    end: int

    def x(self, width: float) -> float:
        return _LEFT + width * (_WIDTH - _LEFT - _RIGHT) / self.end

    def y(self, height: float) -> float:
        return _HEIGHT - _BOTTOM - height * (_HEIGHT - _BOTTOM - _TOP) / self.end


def _grid_lines(axes: _Axes, tick: int) -> str:
    x, y, floor = axes.x(tick), axes.y(tick), axes.y(0)
    return (
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{floor:.1f}"/>'
        f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick}</text>'
        f'<text x="{x:.1f}" y="{floor + 18:.1f}" text-anchor="middle">{tick}</text>'
    )


def _axis_titles() -> str:
    middle = f"{(_HEIGHT - _BOTTOM) / 2:.0f}"
    return (
        f'<text x="{(_WIDTH + _LEFT) / 2:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">width</text>'
        f'<text x="14" y="{middle}" text-anchor="middle"'
        f' transform="rotate(-90 14 {middle})">height</text>'
    )


def _disc(axes: _Axes, split: str, row: tuple[int, int, int], most: int) -> str:
    height, width, count = row
    radius = 3 + 9 * math.sqrt(count / most)
    return (
        f'<circle class="{split}" cx="{axes.x(width):.1f}" cy="{axes.y(height):.1f}"'
        f' r="{radius:.1f}"><title>{count} of {split}: {height} x {width}</title></circle>'
    )


def _rounded(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Round sizes, so that those too close to distinguish in the chart become equal."""
    step = max(int(sizes.max(initial=0)) // 60, 1)
    return -(-sizes // step) * step
