"""Charts of rows: intervals around a difference, and the scores of seeds as dots."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from segtrain.pages.charts import (
    BOTTOM,
    LETTER,
    LINE,
    MARGIN,
    TOP,
    WIDTH,
    frame,
    label,
    tick_label,
    ticks,
    vertical,
    wrapped,
)
from segtrain.pages.html import escaped

_ROW = 30
_AXIS_LETTERS = 80


class IntervalRow(NamedTuple):
    """A row of :func:`interval_chart`.

    Attributes:
        name: What stands left of it.
        mean: The point; None draws only the name.
        low: The lower end; None: there is no interval.
        high: The upper end.
        kind: A class of the style sheet: ``better`` and ``worse`` are filled discs,
            ``not_corrected`` is a diamond, ``none`` and ``no_verdict`` are rings.
        title: What the browser shows when the pointer rests on it.
        text: What stands right of it.
    """

    name: str
    mean: float | None
    low: float | None = None
    high: float | None = None
    kind: str = "none"
    title: str = ""
    text: str = ""


class DotRow(NamedTuple):
    """A row of :func:`dot_chart`.

    Attributes:
        name: What stands left of it.
        values: The position of each dot.
        titles: What the browser shows when the pointer rests on a dot.
        text: What stands right of it.
    """

    name: str
    values: Sequence[float]
    titles: Sequence[str]
    text: str = ""


def interval_chart(rows: Sequence[IntervalRow], axis: str, *, style: str = "") -> str:
    """Draw means and intervals below each other, with a line at 0.

    Args:
        rows: The rows.
        axis: The title of the axis.
        style: A style sheet, for a chart outside a page.

    Example:
        >>> row = IntervalRow("focal", 0.5, 0.1, 0.9, "better")
        >>> interval_chart([row], "points").count("<circle")
        1
    """
    values = [value for row in rows for value in (row.mean, row.low, row.high) if value is not None]
    drawn = _Rows([row.name for row in rows], [row.text for row in rows], [0.0, *values])
    zero = f'x1="{drawn.x(0):.1f}" x2="{drawn.x(0):.1f}" y1="{TOP}" y2="{drawn.floor}"'
    marks = [_interval(row, drawn, y) for row, y in zip(rows, drawn.middles, strict=True)]
    text = "Differences and their intervals"
    return drawn.chart([f'<line class="zero" {zero}/>', *marks], axis, text, style)


def dot_chart(rows: Sequence[DotRow], axis: str) -> str:
    """Draw values as dots, with a bar at the mean of each row.

    Args:
        rows: The rows; at least one of them has a value.
        axis: The title of the axis.

    Example:
        >>> dot_chart([DotRow("focal", [0.5, 0.7], ["seed 0", "seed 1"])], "iou").count("<circle")
        2
    """
    values = [value for row in rows for value in row.values]
    drawn = _Rows([row.name for row in rows], [row.text for row in rows], values)
    marks = []
    for row, y in zip(rows, drawn.middles, strict=True):
        if not row.values:
            continue
        mean = drawn.x(sum(row.values) / len(row.values))
        marks.append(
            f'<line class="mean" x1="{mean:.1f}" x2="{mean:.1f}" y1="{y - 9:.1f}"'
            f' y2="{y + 9:.1f}"/>'
        )
        marks += [
            f'<circle class="seed" cx="{drawn.x(value):.1f}" cy="{y:.1f}" r="5">'
            f"<title>{escaped(title)}</title></circle>"
            for value, title in zip(row.values, row.titles, strict=True)
        ]
    return drawn.chart(marks, axis, "Values as dots")


class _Rows:
    """The frame of a chart of rows: names left, texts right, and an axis below.

    Args:
        names: What stands left of each row; long names are broken into lines.
        texts: What stands right of each row.
        values: Every value that is drawn.

    Attributes:
        middles: The vertical middle of each row.
        floor: The end of the last row.
    """

    def __init__(self, names: Sequence[str], texts: Sequence[str], values: Sequence[float]) -> None:
        self._full, self._texts = names, texts
        self._names = [wrapped(name) for name in names]
        low, high = min(values), max(values)
        pad = (high - low or abs(high) or 1.0) * 0.06
        self._low, self._high = low - pad, high + pad
        longest = max((len(line) for lines in self._names for line in lines), default=0)
        self._left = MARGIN + LETTER * longest
        self._right = WIDTH - MARGIN - LETTER * max(map(len, texts), default=0)
        heights = [max(_ROW, LINE * len(lines) + 10) for lines in self._names]
        ends = list(accumulate(heights, initial=TOP))
        self.floor = ends[-1]
        self.middles = [end + height / 2 for end, height in zip(ends, heights, strict=False)]

    def x(self, value: float) -> float:
        """The position of a value."""
        return self._left + (value - self._low) * (self._right - self._left) / (
            self._high - self._low
        )

    def chart(self, marks: Sequence[str], axis: str, text: str, style: str = "") -> str:
        """The whole chart, with `marks` in it; `text` describes it."""
        found = ticks(self._low, self._high)
        lines = wrapped(axis, _AXIS_LETTERS)
        parts = [frame(self.floor + BOTTOM + LINE * (len(lines) - 1), text, style)]
        parts += [vertical(self.x(mark), self.floor, tick_label(mark, found)) for mark in found]
        parts += marks
        for full, name, right, y in zip(
            self._full, self._names, self._texts, self.middles, strict=True
        ):
            first = y + 4 - LINE * (len(name) - 1) / 2
            shown = label(self._left - 14, first, name, anchor="end", mark="ink")
            parts.append(f"<g><title>{escaped(full)}</title>{shown}</g>")
            parts += [label(self._right + 14, y + 4, [right])] if right else []
        widest = LETTER * max(map(len, lines)) / 2
        middle = min((self._left + self._right) / 2, WIDTH - widest)
        parts.append(label(middle, self.floor + 38, lines, anchor="middle"))
        return "\n".join([*parts, "</svg>"])


def _interval(row: IntervalRow, drawn: _Rows, y: float) -> str:
    if row.mean is None:
        return ""
    x, bar = drawn.x, ""
    if row.low is not None and row.high is not None:
        ends = "".join(
            f'<line x1="{x(end):.1f}" x2="{x(end):.1f}" y1="{y - 5:.1f}" y2="{y + 5:.1f}"/>'
            for end in (row.low, row.high)
        )
        bar = (
            f'<line x1="{x(row.low):.1f}" x2="{x(row.high):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>{ends}'
        )
    if row.kind == "not_corrected":
        across, size = x(row.mean), 6.5
        corners = ((across - size, y), (across, y - size), (across + size, y), (across, y + size))
        point = f'<polygon points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in corners)}"/>'
    else:
        point = f'<circle cx="{x(row.mean):.1f}" cy="{y:.1f}" r="5"/>'
    title = f"<title>{escaped(row.title)}</title>" if row.title else ""
    return f'<g class="interval {row.kind}">{bar}{point}{title}</g>'
