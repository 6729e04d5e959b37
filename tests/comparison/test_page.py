"""The page of a comparison: complete, self-contained and safe."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segtrain
from segtrain.comparison.page import comparison_page
from tests.comparison.helpers import write_group, write_run

CURVE = {100: 0.4, 200: 0.5, 300: 0.5}


class Checked(HTMLParser):
    """Collects addresses, sections and text, and checks that tags are closed in order."""

    EMPTY = frozenset({"meta", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href")]
        assert tag not in ("script", "link", "iframe", "object")
        assert not any(key.startswith("on") for key, _ in attrs)
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def written(folder: Path, **options: Any) -> str:
    return comparison_page(segtrain.compare(folder, **options))


def sections(page: str) -> list[str]:
    return re.findall(r'<section id="(\w+)">', page)


def cells(page: str, name: str) -> list[list[str]]:
    """The text of the cells of the table in a section."""
    part = page.partition(f'<section id="{name}">')[2].partition("</section>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", part)
    return [
        [Checked(cell).text for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row)]
        for row in rows
    ]


def test_it_has_every_part_and_needs_no_other_file(tmp_path: Path) -> None:
    write_group(tmp_path, "cross_entropy", 0.5, curve=CURVE)
    write_group(
        tmp_path, "<b>focal", 0.6, curve={step: value + 0.1 for step, value in CURVE.items()}
    )
    write_run(tmp_path / "stopped", [0.5] * 4, state="stopped", seed=9)
    text = written(tmp_path)
    found = Checked(text)
    assert not [item for item in found.addresses if not item.startswith(("#", "data:"))]
    assert "url(" not in text
    assert "@import" not in text
    assert sections(text) == [
        *("differences", "groups", "metrics", "curves", "classes", "seeds", "failed", "method")
    ]
    assert [item[1:] for item in found.addresses] == sections(text)
    assert "<b>focal" not in text
    assert "&lt;b&gt;focal is better than cross_entropy by" in text
    assert "2 groups, 6 runs, 3 seeds, 300 steps; scored on val" in text
    assert cells(text, "failed")[1][1:] == ["0", "the run is stopped"]
    assert text.count("<polyline") == 2
    assert text.count('<circle class="seed"') == 6


def test_the_groups_with_their_costs(tmp_path: Path) -> None:
    write_group(tmp_path, "cross_entropy", 0.5)
    write_group(tmp_path, "focal", 0.6)
    heads, base, other = cells(written(tmp_path), "groups")
    assert heads == [
        *("group", "seeds", "mean", "sd", "difference", "95 % interval", "p (Holm)", "P(better)"),
        *("better in", "s per step", "peak GiB"),
    ]
    assert (base[0], base[4], base[9:]) == ("cross_entropy", "baseline", ["0.1", "1.00"])
    assert other[4].startswith("+")
    assert " to " in other[5]
    assert (other[6], other[7], other[8]) == ("0.0011", "> 0.999", "3 of 3")


def test_verdicts_by_kind_and_the_best_first(tmp_path: Path) -> None:
    means = {
        "cross_entropy": 0.5,
        "worse": 0.4,
        "worst": 0.3,
        "same": 0.5,
        "good": 0.6,
        "best": 0.7,
    }
    for name, mean in means.items():
        write_group(tmp_path, name, mean)
    write_group(tmp_path, "alone", 0.9, seeds=[0])
    text = written(tmp_path)
    found = re.findall(r'<li class="(\w+)"><b>(.)</b>(\w+)', text)
    assert [kind for kind, *_ in found] == [
        *("better", "better", "none", "worse", "worse", "no_verdict")
    ]
    assert [name for *_, name in found][:2] == ["best", "good"]
    assert [name for *_, name in found][3:5] == ["worse", "worst"]
    marks = {kind: mark for kind, mark, _ in found}
    assert len(set(marks.values())) == 4  # not by colour alone
    assert cells(text, "groups")[2][8] == "1 of 1"


def test_a_metric_of_which_less_is_better(tmp_path: Path) -> None:
    write_group(tmp_path, "cross_entropy", 0.5, betti=np.linspace(2, 3, 12))
    write_group(tmp_path, "focal", 0.6, betti=np.linspace(1, 2, 12))
    text = written(tmp_path, metric="betti0_error")
    assert "focal is better than cross_entropy by 0.5" in text
    assert "← better to the left" in text
    assert "points" not in text.partition("<h1>")[2]
    assert "smaller is better" in text
    rows = re.findall(r'<span class="best">(.*?)</span>', text)
    assert rows[1].startswith("0.75")  # the mean of background and crack


def test_the_heat_map_compares_with_the_baseline(tmp_path: Path) -> None:
    for name, mean in (("cross_entropy", 0.5), ("focal", 0.6), ("dice", 0.4)):
        write_group(tmp_path, name, mean)
    text = written(tmp_path)
    part = text.partition('<section id="classes">')[2].partition("</section>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", part)[1:]
    tints = [re.findall(r"rgba\((\d+),", row) for row in rows]
    assert tints == [[], ["0", "0"], ["213", "213"]]  # baseline, better: blue, worse: orange
    assert "best" in rows[1]


def test_many_classes_have_upright_headings_and_are_text(tmp_path: Path) -> None:
    for path in (tmp_path / "a", tmp_path / "b"):
        loss = "cross_entropy" if path.name == "a" else "dice"
        write_run(path, [0.5] * 4, loss=loss)
        content = json.loads((path / "results.json").read_text())
        names = [f"<i>class {number}" for number in range(35)]
        content["scores"]["iou"]["per_class"] = dict.fromkeys(names, 0.5)
        (path / "results.json").write_text(json.dumps(content))
    text = written(tmp_path)
    Checked(text)
    assert '<table class="fixed upright">' in text
    assert "<i>class" not in text
    assert len(cells(text, "classes")[0]) == 36


def test_the_method_fits_what_was_computed(tmp_path: Path) -> None:
    write_group(tmp_path, "cross_entropy", 0.5)
    write_group(tmp_path, "focal", 0.6)
    assert "two-way layout" in written(tmp_path)
    assert "correction for 1 comparison." in written(tmp_path)
    for path in tmp_path.glob("*/per_image.npz"):
        path.unlink()
    text = written(tmp_path)
    assert "two-way layout" not in text
    assert "other seeds on the same images" in text
    assert "cover the choice of the seeds only" in text  # the note


def test_one_group(tmp_path: Path) -> None:
    write_group(tmp_path, "cross_entropy", 0.5)
    text = written(tmp_path)
    assert "nothing to compare it with" in text
    assert sections(text) == ["groups", "metrics", "classes", "seeds"]


def test_many_groups_with_long_names(tmp_path: Path) -> None:
    write_group(tmp_path, "cross_entropy", 0.5, curve=CURVE)
    for number in range(25):
        write_group(tmp_path, f"loss{number:02}" + "x" * 90, 0.5, curve=CURVE)
    text = written(tmp_path)
    Checked(text)
    assert text.count('<g class="interval') == 25
    assert text.count("<polyline") == 26
    assert len(cells(text, "groups")) == 27
    # Whatever may be wider than the page scrolls by itself.
    wide = len(re.findall(r"<table|<svg", text))
    assert text.count('<div class="scroll"><table') + text.count('<div class="scroll"><svg') == wide


@pytest.mark.parametrize("reason", [None, "a < b"])
def test_why_there_are_no_images(tmp_path: Path, reason: str | None) -> None:
    write_group(tmp_path, "cross_entropy", 0.5)
    text = comparison_page(segtrain.compare(tmp_path), [], reason)
    assert ("There are no images: a &lt; b." in text) == (reason is not None)
    assert ("images" in sections(text)) == (reason is not None)
