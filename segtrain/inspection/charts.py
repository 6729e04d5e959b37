"""Drawings of numbers, as markup that needs nothing else."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

DECADES = 6
"""Of a bar: from a millionth of the pixels to all of them."""
_MOST_DISCS = 1000
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 520, 340, 56, 44, 12


def log_width(share: float) -> float:
    """How long the bar of a share is, in percent of the longest; 0 for none.

    Example:
        >>> log_width(1.0), log_width(1e-3), log_width(0)
        (100.0, 50.0, 0.0)
    """
    if share <= 0:
        return 0.0
    return max(100 * (1 + math.log10(share) / DECADES), 0.7)


def bars(shares: Sequence[float]) -> str:
    """Shares as bars below each other, on a logarithmic scale."""
    inside = "".join(f'<div style="width:{log_width(share):.1f}%"></div>' for share in shares)
    return f'<div class="bars track">{inside}</div>'


def bars_axis() -> str:
    """What stands above the bars."""
    marks = ("0.0001", "0.01", "1", "100 %")
    return f'<div class="bars axis">{"".join(f"<span>{mark}</span>" for mark in marks)}</div>'


def distinct_sizes(sizes: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Height, width and number of images of each size, the most frequent first.

    Example:
        >>> distinct_sizes(np.array([[2, 3], [4, 4], [2, 3], [0, 0]]))
        [(2, 3, 2), (4, 4, 1)]
    """
    counts = Counter((int(height), int(width)) for height, width in sizes if height)
    return sorted(((*size, count) for size, count in counts.items()), key=lambda row: -row[2])


def size_chart(sizes: Mapping[str, NDArray[np.int64]]) -> str:
    """Width and height of the images of each split; the area of a disc tells their number."""
    rows = {split: distinct_sizes(found) for split, found in sizes.items()}
    if sum(map(len, rows.values())) > _MOST_DISCS:
        rows = {split: distinct_sizes(_rounded(found)) for split, found in sizes.items()}
    every = [row for found in rows.values() for row in found]
    if not every:
        return ""
    step, end = _ticks(max(max(height, width) for height, width, _ in every))
    most = max(count for *_, count in every)
    along = (_WIDTH - _LEFT - 14) / end
    up = (_HEIGHT - _BOTTOM - _TOP) / end

    def place(height: float, width: float) -> tuple[float, float]:
        return _LEFT + width * along, _HEIGHT - _BOTTOM - height * up

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Width and height of images">'
    ]
    for tick in range(0, end + 1, step):
        x, y = place(tick, tick)
        floor = place(0, 0)[1]
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - 14}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{floor:.1f}"/>'
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick}</text>'
            f'<text x="{x:.1f}" y="{floor + 18:.1f}" text-anchor="middle">{tick}</text>'
        )
    parts.append(
        f'<text x="{(_WIDTH + _LEFT) / 2:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">width</text>'
        f'<text x="14" y="{(_HEIGHT - _BOTTOM) / 2:.0f}" text-anchor="middle"'
        f' transform="rotate(-90 14 {(_HEIGHT - _BOTTOM) / 2:.0f})">height</text>'
    )
    for split, found in rows.items():
        for height, width, count in found:
            x, y = place(height, width)
            radius = 3 + 9 * math.sqrt(count / most)
            parts.append(
                f'<circle class="{split}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}">'
                f"<title>{count} of {split}: {height} x {width}</title></circle>"
            )
    return "\n".join([*parts, "</svg>"])


def _rounded(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sizes that fall together where nobody could tell them apart."""
    step = max(int(sizes.max(initial=0)) // 60, 1)
    return -(-sizes // step) * step


def _ticks(most: int) -> tuple[int, int]:
    """Distance and end of ticks with round numbers, about five of them.

    Example:
        >>> _ticks(480), _ticks(1024), _ticks(7)
        ((100, 500), (500, 1500), (2, 8))
    """
    raw = max(most / 5, 1)
    power = 10 ** math.floor(math.log10(raw))
    step = next(int(power * factor) for factor in (1, 2, 5, 10) if power * factor >= raw)
    return step, step * math.ceil(most / step)
