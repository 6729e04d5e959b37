"""What charts share: ticks, names, and the frame; as SVG markup, without scripts."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from segtrain.pages.html import escaped

WIDTH = 900
"""The width of a chart."""
MARGIN = 24
LETTER = 7
"""The width of a letter, at most, but for wide scripts."""
LINE = 15
"""The height of a line of text."""
TOP = 14
BOTTOM = 46
"""The height below a chart: its ticks and the title of its axis."""


def shortened(name: str, letters: int = 44) -> str:
    """A name without its middle, if it has more than `letters` letters.

    Example:
        >>> shortened("cross_entropy optimizer.lr=0.01", 20)
        'cross_entr…r.lr=0.01'
    """
    if len(name) <= letters:
        return name
    end = (letters - 1) // 2
    return f"{name[: letters - 1 - end]}…{name[len(name) - end :]}"


def wrapped(name: str, letters: int = 44, lines: int = 3) -> list[str]:
    """A name in lines of at most `letters` letters; it loses its middle if there are too many.

    Example:
        >>> wrapped("cross_entropy optimizer.lr=0.01", 20)
        ['cross_entropy', 'optimizer.lr=0.01']
    """
    for most in range(letters * lines, 0, -letters // 4):
        found = textwrap.wrap(shortened(name, most), letters, break_on_hyphens=False)
        if len(found) <= lines:
            return found or [name]
    return [shortened(name, letters)]


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


def frame(height: float, text: str, style: str = "") -> str:
    """The start of a chart; `text` describes it, `style` is for a chart outside a page."""
    sheet = f"\n<style>{style}</style>" if style else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" width="{WIDTH}"'
        f' viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escaped(text)}">{sheet}'
    )


def label(
    x: float, y: float, lines: Sequence[str], *, anchor: str = "start", mark: str = ""
) -> str:
    """Lines of text below each other, of which the first has its base line at `y`."""
    kind = f' class="{mark}"' if mark else ""
    spans = "".join(
        f'<tspan x="{x:.1f}" y="{y + LINE * index:.1f}">{escaped(line)}</tspan>'
        for index, line in enumerate(lines)
    )
    return f'<text{kind} text-anchor="{anchor}">{spans}</text>'


def tick_label(mark: float, marks: Sequence[float]) -> str:
    """A tick with as many decimals as its neighbours need.

    Example:
        >>> tick_label(0.5, [0.0, 0.5, 1.0]), tick_label(10.0, [5.0, 10.0])
        ('0.5', '10')
    """
    step = marks[1] - marks[0] if len(marks) > 1 else abs(mark) or 1.0
    decimals = max(-math.floor(math.log10(step) + 1e-9), 0)
    return f"{mark + 0.0:.{decimals}f}"


def vertical(x: float, floor: float, text: str) -> str:
    """A vertical grid line and its tick, down to `floor`."""
    return (
        f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{floor:.1f}"/>'
        f'<text x="{x:.1f}" y="{floor + 18:.1f}" text-anchor="middle">{text}</text>'
    )
