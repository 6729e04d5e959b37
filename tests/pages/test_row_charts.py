"""Charts of rows are valid XML, stay inside their frame, and escape names."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from segtrain.pages.row_charts import DotRow, IntervalRow, dot_chart, interval_chart

SPACE = "{http://www.w3.org/2000/svg}"


def numbers(root: ElementTree.Element, *keys: str) -> list[float]:
    return [float(item.attrib[key]) for item in root.iter() for key in keys if key in item.attrib]


def size(root: ElementTree.Element) -> tuple[float, float]:
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    return width, height


@pytest.mark.parametrize("scale", [1e-4, 1.0, 300.0])
def test_intervals_stay_inside_and_in_order(scale: float) -> None:
    rows = [
        IntervalRow("a", 0.5 * scale, 0.1 * scale, 0.9 * scale, "better"),
        IntervalRow("b", -0.5 * scale, -0.9 * scale, -0.1 * scale, "worse"),
        IntervalRow("without interval", 0.2 * scale, kind="no_verdict"),
        IntervalRow("without anything", None),
    ]
    root = ElementTree.fromstring(interval_chart(rows, "points"))
    width, height = size(root)
    assert all(0 <= value <= width for value in numbers(root, "x", "x1", "x2", "cx"))
    assert all(0 <= value <= height for value in numbers(root, "y", "y1", "y2", "cy"))
    middle = [float(item.attrib["cx"]) for item in root.iter(f"{SPACE}circle")]
    assert middle[1] < middle[2] < middle[0]
    zero = next(item for item in root.iter() if item.attrib.get("class") == "zero")
    assert middle[1] < float(zero.attrib["x1"]) < middle[0]
    kinds = [item.attrib["class"] for item in root.iter(f"{SPACE}g") if "class" in item.attrib]
    assert kinds == ["interval better", "interval worse", "interval no_verdict"]


def test_a_difference_that_the_correction_removes_has_its_own_shape() -> None:
    root = ElementTree.fromstring(
        interval_chart([IntervalRow("a", 1.0, 0.1, 1.9, "not_corrected")], "points")
    )
    assert len(list(root.iter(f"{SPACE}polygon"))) == 1
    assert not list(root.iter(f"{SPACE}circle"))


def test_long_and_dangerous_names() -> None:
    name = "<script>" + "x" * 100
    markup = interval_chart([IntervalRow(name, 1.0, text="+1 <b>")], "a & b " * 40)
    root = ElementTree.fromstring(markup)
    assert "<script>" not in markup
    assert name in [item.text for item in root.iter(f"{SPACE}title")]
    lines = [item.text for item in root.iter(f"{SPACE}tspan")]
    assert "+1 <b>" in lines
    assert "".join(map(str, lines[:3])) == name
    width, _ = size(root)
    assert all(0 <= value <= width for value in numbers(root, "x"))


@pytest.mark.parametrize("values", [[0.5], [0.0, 0.0], [-2.0, 7.0, 7.1], []])
def test_dots_stay_inside(values: list[float]) -> None:
    titles = [f"seed {index}" for index, _ in enumerate(values)]
    rows = [DotRow("a<b", values, titles, "text"), DotRow("other", [0.1], ["seed 9"])]
    root = ElementTree.fromstring(dot_chart(rows, "iou"))
    dots = list(root.iter(f"{SPACE}circle"))
    assert [item[0].text for item in dots] == [*titles, "seed 9"]
    width, _ = size(root)
    assert all(0 <= value <= width for value in numbers(root, "x1", "x2", "cx"))
