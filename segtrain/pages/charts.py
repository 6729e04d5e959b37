"""Charts as SVG markup, without scripts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from segtrain.pages.html import escaped

# Colours that people with any colour vision tell apart (Okabe and Ito), on light and dark pages.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c8c")
_DASHES = ("", "6 4", "2 3")  # lines beyond the colours differ in their dashes
_WIDTH = 760
_ROW = 30
_MOST_LETTERS, _LETTER = 44, 7  # of a name; the width of a letter
_MARGIN = 24
_CHART_HEIGHT, _LEFT, _BOTTOM, _TOP = 300, 60, 46, 14


def round_step(span: float, count: int = 5) -> float:
    """The distance of about `count` ticks at round numbers over a span above 0.

    Example:
        >>> round_step(480), round_step(0.03)
        (100.0, 0.01)
    """
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * (1 - 1e-9))


def ticks(low: float, high: float) -> list[float]:
    """Three to eight round numbers from `low` to `high`.

    Example:
        >>> ticks(-0.3, 1.2)
        [0.0, 0.5, 1.0]
    """
    step = round_step(high - low, 7)
    first = math.ceil(low / step - 1e-9)
    return [step * number for number in range(first, math.floor(high / step + 1e-9) + 1)]


def whole_ticks(most: int) -> tuple[int, int]:
    """The step and the end of about five ticks at whole numbers.

    Example:
        >>> whole_ticks(480), whole_ticks(1024), whole_ticks(7)
        ((100, 500), (500, 1500), (2, 8))
    """
    step = round(max(round_step(max(most, 1)), 1))
    return step, step * math.ceil(most / step)


class IntervalRow(NamedTuple):
    """A row of :func:`interval_chart`.

    Attributes:
        name: What stands left of it.
        mean: The point; None draws only the name.
        low: The lower end; None: there is no interval.
        high: The upper end.
        kind: A class of the style sheet: ``better``, ``worse`` or ``none``.
        title: What the browser shows when the pointer rests on it.
    """

    name: str
    mean: float | None
    low: float | None = None
    high: float | None = None
    kind: str = "none"
    title: str = ""


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
    low, high = min([0.0, *values]), max([0.0, *values])
    pad = (high - low or 1.0) * 0.06
    low, high = low - pad, high + pad
    floor = _TOP + _ROW * len(rows)
    longest = max((len(row.name) for row in rows), default=0)
    left = _MARGIN + _LETTER * min(longest, _MOST_LETTERS)

    def x(value: float) -> float:
        return left + (value - low) * (_WIDTH - left - _MARGIN) / (high - low)

    marks = ticks(low, high)
    parts = [_svg(floor + _BOTTOM, "Differences and their intervals")]
    parts += [f"<style>{style}</style>"] if style else []
    parts += [_vertical(x(mark), floor, _label(mark, marks)) for mark in marks]
    parts.append(f'<line class="zero" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="{_TOP}" y2="{floor}"/>')
    parts += [
        _interval(row, left, _TOP + _ROW * (number + 0.5), x) for number, row in enumerate(rows)
    ]
    middle = (x(low) + x(high)) / 2
    parts.append(
        f'<text x="{middle:.0f}" y="{floor + 38}" text-anchor="middle">{escaped(axis)}</text>'
    )
    return "\n".join([*parts, "</svg>"])


def _interval(row: IntervalRow, left: float, y: float, x: Callable[[float], float]) -> str:
    short = row.name if len(row.name) <= _MOST_LETTERS else f"{row.name[: _MOST_LETTERS - 1]}…"
    text = (
        f'<text class="ink" x="{left - 14}" y="{y + 4:.1f}" text-anchor="end">'
        f"{escaped(short)}<title>{escaped(row.name)}</title></text>"
    )
    if row.mean is None:
        return text
    bar = ""
    if row.low is not None and row.high is not None:
        ends = "".join(
            f'<line x1="{x(end):.1f}" x2="{x(end):.1f}" y1="{y - 5:.1f}" y2="{y + 5:.1f}"/>'
            for end in (row.low, row.high)
        )
        bar = (
            f'<line x1="{x(row.low):.1f}" x2="{x(row.high):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>{ends}'
        )
    point = f'<circle cx="{x(row.mean):.1f}" cy="{y:.1f}" r="5"/>'
    title = f"<title>{escaped(row.title)}</title>" if row.title else ""
    return f'{text}<g class="interval {row.kind}">{bar}{point}{title}</g>'


class Line(NamedTuple):
    """A line of :func:`line_chart`.

    Attributes:
        name: Its name in the legend.
        x: The positions, increasing.
        y: The values.
        low: The lower edge of its band; empty: no band.
        high: The upper edge.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


def line_chart(lines: Sequence[Line], x_title: str, y_title: str) -> str:
    """Draw lines with bands around them, and a legend below.

    Example:
        >>> line_chart([Line("focal", [1, 2], [0.1, 0.2])], "step", "mIoU").count("<polyline")
        1
    """
    xs = [value for line in lines for value in line.x]
    ys = [value for line in lines for value in (*line.y, *line.low, *line.high)]
    if not xs:
        return ""
    x_low, x_high = min(xs), max(xs)
    y_low, y_high = min(ys), max(ys)
    x_span, y_span = x_high - x_low or 1.0, y_high - y_low or 1.0
    floor = _CHART_HEIGHT - _BOTTOM

    def x(value: float) -> float:
        return _LEFT + (value - x_low) * (_WIDTH - _LEFT - _MARGIN) / x_span

    def y(value: float) -> float:
        return floor - (value - y_low) * (floor - _TOP) / y_span

    marks = ticks(x_low, x_low + x_span), ticks(y_low, y_low + y_span)
    parts = [_svg(_CHART_HEIGHT, f"{y_title} over {x_title}")]
    parts += [_vertical(x(mark), floor, _label(mark, marks[0])) for mark in marks[0]]
    parts += [_horizontal(y(mark), _label(mark, marks[1])) for mark in marks[1]]
    parts += [_band(line, index, x, y) for index, line in enumerate(lines) if len(line.low)]
    parts += [_polyline(line, index, x, y) for index, line in enumerate(lines)]
    middle = f"{(floor + _TOP) / 2:.0f}"
    parts += [
        f'<text x="{(_WIDTH + _LEFT) / 2:.0f}" y="{_CHART_HEIGHT - 8}" text-anchor="middle">'
        f"{escaped(x_title)}</text>",
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">'
        f"{escaped(y_title)}</text>",
        "</svg>",
    ]
    names = "".join(_legend_entry(line.name, index) for index, line in enumerate(lines))
    return "\n".join(parts) + f'\n<p class="legend">{names}</p>'


def line_style(index: int) -> str:
    """The stroke of line number `index`, as attributes."""
    dashes = _DASHES[index // len(COLOURS) % len(_DASHES)]
    dash = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'stroke="{COLOURS[index % len(COLOURS)]}"{dash}'


def _legend_entry(name: str, index: int) -> str:
    return (
        '<span class="name"><svg class="key" width="26" height="10" aria-hidden="true">'
        f'<line x1="0" x2="26" y1="5" y2="5" stroke-width="3" {line_style(index)}/></svg>'
        f"{escaped(name)}</span>"
    )


def _polyline(
    line: Line, index: int, x: Callable[[float], float], y: Callable[[float], float]
) -> str:
    points = _points(zip(line.x, line.y, strict=True), x, y)
    title = f"<title>{escaped(line.name)}</title>"
    return (
        f'<polyline points="{points}" fill="none" stroke-width="2" {line_style(index)}>{title}'
        "</polyline>"
    )


def _band(line: Line, index: int, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    around = [
        *zip(line.x, line.low, strict=True),
        *reversed(list(zip(line.x, line.high, strict=True))),
    ]
    colour = COLOURS[index % len(COLOURS)]
    return f'<polygon points="{_points(around, x, y)}" fill="{colour}" fill-opacity="0.13"/>'


def _points(
    pairs: Iterable[tuple[float, float]], x: Callable[[float], float], y: Callable[[float], float]
) -> str:
    return " ".join(f"{x(across):.1f},{y(up):.1f}" for across, up in pairs)


def _svg(height: float, text: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {_WIDTH} {height:.0f}"'
        f' role="img" aria-label="{escaped(text)}">'
    )


def _vertical(x: float, floor: float, label: str) -> str:
    return (
        f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{floor:.1f}"/>'
        f'<text x="{x:.1f}" y="{floor + 18:.1f}" text-anchor="middle">{label}</text>'
    )


def _horizontal(y: float, label: str) -> str:
    return (
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _MARGIN}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
    )


def _label(mark: float, marks: Sequence[float]) -> str:
    """A tick with as many decimals as its neighbours need."""
    step = marks[1] - marks[0] if len(marks) > 1 else abs(mark) or 1.0
    decimals = max(-math.floor(math.log10(step) + 1e-9), 0)
    return f"{mark + 0.0:.{decimals}f}"
