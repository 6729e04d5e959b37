"""Charts of lines are valid XML, stay inside their frame, and name every line."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import pytest

from segtrain.pages.line_chart import Line, line_chart, line_styles

SPACE = "{http://www.w3.org/2000/svg}"
STEPS = [10, 20, 30]


def names(root: ElementTree.Element) -> dict[str, float]:
    """The names of the lines, and where they stand."""
    return {
        str(item[0].text): float(item[0].attrib["y"])
        for item in root.iter(f"{SPACE}text")
        if item.attrib.get("class") == "ink"
    }


def test_lines_and_bands_stay_inside() -> None:
    lines = [Line(f"l{index}", STEPS, [index, 5, 9], [0, 4, 8], [9, 9, 9]) for index in range(40)]
    root = ElementTree.fromstring(line_chart(lines, "step", "mIoU"))
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for item in root.iter():
        for pair in item.attrib.get("points", "").split():
            x, y = map(float, pair.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height
    assert len(list(root.iter(f"{SPACE}polyline"))) == 40
    places = sorted(names(root).values())
    assert places[-1] <= height
    assert all(after - before >= 12 for before, after in pairwise(places))


def test_names_stand_in_the_order_of_the_ends() -> None:
    lines = [Line("low", STEPS, [9, 5, 1]), Line("high", STEPS, [1, 5, 9])]
    found = names(ElementTree.fromstring(line_chart(lines, "step", "mIoU")))
    assert found["high"] < found["low"]


def test_28_lines_and_two_baselines_look_different() -> None:
    lines = [Line(str(index), STEPS, STEPS, is_baseline=index < 2) for index in range(30)]
    styles = line_styles(lines)
    assert len(set(styles)) == 30
    assert styles[0] == 'class="series base"'


def test_names_are_text() -> None:
    markup = line_chart([Line("<script>", STEPS, STEPS)], "<x>", "a & b")
    root = ElementTree.fromstring(markup)
    assert "<script>" not in markup
    assert "<script>" in names(root)


@pytest.mark.parametrize("lines", [[], [Line("one point", [5], [0.5])], [Line("none", [], [])]])
def test_few_points(lines: list[Line]) -> None:
    markup = line_chart(lines, "step", "mIoU")
    assert markup.count("<polyline") == sum(bool(line.x) for line in lines)
