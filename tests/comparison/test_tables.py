"""Tables of a comparison for people and programs."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import segtrain
from segtrain.comparison.comparison import Comparison
from segtrain.comparison.tables import csv_table, latex, markdown, metrics_table, rows
from tests.comparison.helpers import write_group, write_run


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    write_group(tmp_path, "cross_entropy", 0.5, betti=[2.0] * 12)
    write_group(tmp_path, "a|b_%\x1b[31m", 0.6, betti=[1.5] * 12)
    return segtrain.compare(tmp_path)


def test_shares_are_percentages_and_differences_points(comparison: Comparison) -> None:
    baseline, odd = rows(comparison)
    assert baseline[3] == "baseline"
    mean = next(item.mean for item in comparison.groups if item.group.name == "cross_entropy")
    assert baseline[2].startswith(f"{100 * mean:.2f} ± ")
    assert odd[3].startswith("+")


def test_every_metric_in_its_own_unit(comparison: Comparison) -> None:
    heads, cells = metrics_table(comparison)
    assert heads == ["group", "iou", "betti0_error", "s per step", "peak GiB"]
    assert [row[2] for row in cells] == ["1 ± 0", "0.75 ± 0"]
    assert cells[0][3:] == ["0.1", "1.00"]


def test_names_cannot_break_a_table(comparison: Comparison) -> None:
    text = markdown(comparison)
    assert "a\\|b_%" in text
    assert "\x1b" not in text + latex(comparison) + csv_table(comparison)
    assert r"a|b\_\%\textbackslash{}x1b" in latex(comparison)
    (_, odd) = csv.DictReader(csv_table(comparison).splitlines())
    assert odd["group"].startswith("a|b_%")


def test_markdown_has_every_part(tmp_path: Path, comparison: Comparison) -> None:
    write_run(tmp_path / "stopped", [0.5] * 4, state="stopped", seed=9)
    text = markdown(segtrain.compare(tmp_path))
    for heading in ("# Comparison by iou", "## Every metric", "## iou by class", "## Runs without"):
        assert heading in text
    assert "| the run is stopped |" in text


def test_csv_has_one_line_per_group_with_all_digits(comparison: Comparison) -> None:
    lines = list(csv.DictReader(csv_table(comparison).splitlines()))
    assert [float(line["mean"]) for line in lines] == [item.mean for item in comparison.groups]
    assert lines[0]["difference_mean"] == ""
    assert lines[1]["baseline"] == "cross_entropy"
    assert float(lines[1]["betti0_error_mean"]) == 0.75
