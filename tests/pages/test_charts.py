"""Charts are valid XML, stay inside their frame, and escape names."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from segtrain.pages.charts import IntervalRow, Line, interval_chart, line_chart, ticks

SPACE = "{http://www.w3.org/2000/svg}"


def parsed(markup: str) -> ElementTree.Element:
    return ElementTree.fromstring(markup.partition("\n<p ")[0])


def numbers(root: ElementTree.Element, *keys: str) -> list[float]:
    return [float(item.attrib[key]) for item in root.iter() for key in keys if key in item.attrib]


@pytest.mark.parametrize("scale", [1e-4, 1.0, 300.0])
def test_intervals_stay_inside_and_in_order(scale: float) -> None:
    rows = [
        IntervalRow("a", 0.5 * scale, 0.1 * scale, 0.9 * scale, "better"),
        IntervalRow("b", -0.5 * scale, -0.9 * scale, -0.1 * scale, "worse"),
        IntervalRow("without interval", 0.2 * scale),
        IntervalRow("without anything", None),
    ]
    root = parsed(interval_chart(rows, "points"))
    width = float(root.attrib["viewBox"].split()[2])
    assert all(0 <= value <= width for value in numbers(root, "x1", "x2", "cx"))
    middle = [float(item.attrib["cx"]) for item in root.iter(f"{SPACE}circle")]
    assert middle[1] < middle[2] < middle[0]
    zero = next(item for item in root.iter() if item.attrib.get("class") == "zero")
    assert middle[1] < float(zero.attrib["x1"]) < middle[0]
    kinds = [item.attrib["class"] for item in root.iter(f"{SPACE}g")]
    assert kinds == ["interval better", "interval worse", "interval none"]


def test_long_and_dangerous_names() -> None:
    name = "<script>" + "x" * 100
    root = parsed(interval_chart([IntervalRow(name, 1.0)], "a & b"))
    label = next(item for item in root.iter() if item.attrib.get("class") == "ink")
    assert len(label.text or "") == 44
    assert next(label.iter(f"{SPACE}title")).text == name
    assert "<script>" not in line_chart([Line(name, [1, 2], [1, 2])], "x", "y")


def test_lines_and_bands_stay_inside() -> None:
    steps = [10, 20, 30]
    lines = [Line(f"l{index}", steps, [index, 5, 9], [0, 4, 8], [9, 9, 9]) for index in range(25)]
    markup = line_chart(lines, "step", "mIoU")
    root = parsed(markup)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for item in root.iter():
        for pair in item.attrib.get("points", "").split():
            x, y = map(float, pair.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height
    assert len(list(root.iter(f"{SPACE}polyline"))) == 25
    styles = re.findall(r'stroke-width="3" (stroke="[^>]*")', markup)
    assert len(set(styles)) == 21  # seven colours with three dashes


@pytest.mark.parametrize("lines", [[], [Line("one point", [5], [0.5])]])
def test_few_points(lines: list[Line]) -> None:
    assert line_chart(lines, "step", "mIoU").count("<polyline") == len(lines)


def test_ticks_are_round_and_inside() -> None:
    assert ticks(-19.9, 6.5) == [-15.0, -10.0, -5.0, 0.0, 5.0]
    assert ticks(0.6, 0.65) == pytest.approx([0.6, 0.61, 0.62, 0.63, 0.64, 0.65])
