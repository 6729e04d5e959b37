"""A chart of lines with bands around them, each with its name at its end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from segtrain.pages.charts import (
    BOTTOM,
    LETTER,
    LINE,
    TOP,
    WIDTH,
    frame,
    label,
    shortened,
    tick_label,
    ticks,
    vertical,
)
from segtrain.pages.html import escaped

NUM_COLOURS = 7
"""The colours ``s0`` to ``s6`` of the style sheet, chosen for every kind of colour vision."""
_DASHES = ("", "7 4", "2 3", "9 3 2 3")  # lines beyond the colours differ in their dashes
_HEIGHT, _LEFT = 330, 60
_SAMPLE, _GAP = 22, 34  # of a line beside its name; between the end of a line and the sample


class Line(NamedTuple):
    """A line of :func:`line_chart`.

    Attributes:
        name: Its name.
        x: The positions, increasing.
        y: The values.
        low: The lower edge of its band; empty: no band.
        high: The upper edge.
        is_baseline: Whether it is drawn in the colour of the text.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    is_baseline: bool = False


def line_chart(lines: Sequence[Line], x_title: str, y_title: str) -> str:
    """Draw lines with bands around them, and the name of each at its end.

    The names stand in the order in which the lines end, so that each is near its line. A line
    becomes prominent when the pointer rests on it or on its name.

    Example:
        >>> line_chart([Line("focal", [1, 2], [0.1, 0.2])], "step", "mIoU").count("<polyline")
        1
    """
    if not any(line.x for line in lines):
        return ""
    area = _Area(lines)
    parts = [frame(area.floor + BOTTOM, f"{y_title} over {x_title}")]
    marks = ticks(area.x_low, area.x_high), ticks(area.y_low, area.y_high)
    parts += [vertical(area.x(mark), area.floor, tick_label(mark, marks[0])) for mark in marks[0]]
    parts += [area.horizontal(area.y(mark), tick_label(mark, marks[1])) for mark in marks[1]]
    places = area.label_places(lines)
    for line, style, place in zip(lines, line_styles(lines), places, strict=True):
        parts.append(_series(line, style, area, place))
    middle = f"{(area.floor + TOP) / 2:.0f}"
    parts += [
        label((area.right + _LEFT) / 2, area.floor + 38, [x_title], anchor="middle"),
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">'
        f"{escaped(y_title)}</text>",
        "</svg>",
    ]
    return "\n".join(parts)


def line_styles(lines: Sequence[Line]) -> list[str]:
    """Colour and dashes of each line, as attributes; baselines have the colour of the text.

    Example:
        >>> line_styles([Line("a", [1], [1], is_baseline=True), Line("b", [1], [1])])
        ['class="series base"', 'class="series s0"']
    """
    found = []
    counts = {True: 0, False: 0}
    for line in lines:
        number = counts[line.is_baseline]
        counts[line.is_baseline] += 1
        round_, colour = (number, -1) if line.is_baseline else divmod(number, NUM_COLOURS)
        dash = _DASHES[round_ % len(_DASHES)]
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        found.append(f'class="series {"base" if line.is_baseline else f"s{colour}"}"{dashes}')
    return found


class _Area:
    """Where the lines are drawn: left of their names.

    Args:
        lines: The lines; at least one of them has a point.
    """

    def __init__(self, lines: Sequence[Line]) -> None:
        xs = [float(value) for line in lines for value in line.x]
        ys = [float(value) for line in lines for value in (*line.y, *line.low, *line.high)]
        self.x_low, self.y_low = min(xs), min(ys)
        self.x_high = max(xs) if max(xs) > self.x_low else self.x_low + 1.0
        self.y_high = max(ys) if max(ys) > self.y_low else self.y_low + 1.0
        names = max(len(shortened(line.name)) for line in lines)
        self.right = WIDTH - LETTER * names - _SAMPLE - _GAP - 8
        self.floor = max(_HEIGHT - BOTTOM, TOP + LINE * (len(lines) + 1))

    def x(self, value: float) -> float:
        """The horizontal position of a value."""
        return _LEFT + (value - self.x_low) * (self.right - _LEFT) / (self.x_high - self.x_low)

    def y(self, value: float) -> float:
        """The vertical position of a value."""
        return self.floor - (value - self.y_low) * (self.floor - TOP) / (self.y_high - self.y_low)

    def horizontal(self, y: float, text: str) -> str:
        """A horizontal grid line and its tick."""
        return (
            f'<line class="grid" x1="{_LEFT}" x2="{self.right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
        )

    def label_places(self, lines: Sequence[Line]) -> list[float]:
        """The vertical place of each name: at the end of its line, or as near as there is room."""
        ends = [self.y(float(line.y[-1])) if len(line.y) else self.floor for line in lines]
        order = sorted(range(len(lines)), key=lambda index: ends[index])
        places = dict.fromkeys(order, 0.0)
        lowest = float(TOP)
        for index in order:
            lowest = places[index] = max(ends[index], lowest)
            lowest += LINE
        highest = float(self.floor)
        for index in reversed(order):
            highest = places[index] = min(places[index], highest)
            highest -= LINE
        return [places[index] for index in range(len(lines))]


def _series(line: Line, style: str, area: _Area, place: float) -> str:
    """A line, its band and its name."""
    if not len(line.x):
        return ""
    band = ""
    if len(line.low):
        below = zip(line.x, line.low, strict=True)
        above = reversed(list(zip(line.x, line.high, strict=True)))
        band = f'<polygon class="band" points="{_points([*below, *above], area)}"/>'
    points = _points(zip(line.x, line.y, strict=True), area)
    across, up = area.x(line.x[-1]), area.y(line.y[-1])
    start = area.right + _GAP
    sample = f'x1="{start:.1f}" x2="{start + _SAMPLE:.1f}" y1="{place:.1f}" y2="{place:.1f}"'
    return (
        f"<g {style}><title>{escaped(line.name)}</title>{band}"
        f'<polyline points="{points}"/><circle cx="{across:.1f}" cy="{up:.1f}" r="3"/>'
        f'<line class="lead" x1="{across + 5:.1f}" x2="{start - 4:.1f}" y1="{up:.1f}"'
        f' y2="{place:.1f}"/><line class="sample" {sample}/>'
        f"{label(start + _SAMPLE + 8, place + 4, [shortened(line.name)], mark='ink')}</g>"
    )


def _points(pairs: Iterable[tuple[float, float]], area: _Area) -> str:
    return " ".join(f"{area.x(across):.1f},{area.y(up):.1f}" for across, up in pairs)
