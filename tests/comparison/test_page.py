"""The page of a comparison: complete, self-contained and safe."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import segtrain
from segtrain.cli.main import run_command
from segtrain.comparison.page import comparison_page
from segtrain.comparison.pictures import differing_images
from tests.comparison.helpers import write_group, write_run
from tests.helpers import THREE_STEPS


class Checked(HTMLParser):
    """Collects the tags, and checks that they are closed in order."""

    EMPTY = frozenset({"meta", "img", "br", "line", "circle", "polygon"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href")]
        assert tag not in ("script", "link", "iframe")
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_it_has_every_part_and_needs_no_other_file(tmp_path: Path) -> None:
    write_group(tmp_path, "cross_entropy", 0.5, curve={100: 0.4, 200: 0.5, 300: 0.5})
    write_group(tmp_path, "<b>focal", 0.6, curve={100: 0.5, 200: 0.6, 300: 0.6})
    write_run(tmp_path / "stopped", [0.5] * 4, state="stopped", seed=9)
    text = comparison_page(segtrain.compare(tmp_path))
    found = Checked(text)
    assert not [item for item in found.addresses if not item.startswith(("#", "data:"))]
    names = ["differences", "groups", "metrics", "curves", "classes", "seeds", "failed"]
    assert re.findall(r'<section id="(\w+)">', text) == names
    assert "<b>focal" not in text
    assert "&lt;b&gt;focal is better than cross_entropy by" in text
    assert "the run is stopped" in text
    assert text.count("<polyline") == 2


def test_the_best_verdict_comes_first(tmp_path: Path) -> None:
    for name, mean in (("cross_entropy", 0.5), ("worse", 0.4), ("same", 0.5), ("better", 0.6)):
        write_group(tmp_path, name, mean)
    text = comparison_page(segtrain.compare(tmp_path))
    kinds = re.findall(r'<li class="(\w+)">', text)
    assert kinds == ["better", "same", "worse"]


def test_one_group_and_many_groups(tmp_path: Path) -> None:
    write_group(tmp_path, "cross_entropy", 0.5)
    assert "nothing to compare it with" in comparison_page(segtrain.compare(tmp_path))
    for number in range(25):
        write_group(tmp_path, f"loss{number:02}" + "x" * 90, 0.5)
    text = comparison_page(segtrain.compare(tmp_path))
    Checked(text)
    assert text.count('<g class="interval') == 25
    assert "No more images" not in text


def test_images_without_a_checkpoint_are_explained(tmp_path: Path) -> None:
    write_group(tmp_path, "cross_entropy", 0.5)
    write_group(tmp_path, "focal", 0.6)
    drawn, missing = differing_images(segtrain.compare(tmp_path))
    assert not drawn
    assert missing is not None
    assert missing.endswith("checkpoints/last.pt does not exist")


def test_images_of_a_real_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    words = [*THREE_STEPS, "-m", "loss=cross_entropy,dice", "seed=0,1", "sweep_dir=sweep"]
    assert run_command("train", words) == 0
    drawn, missing = differing_images(segtrain.compare("sweep"))
    assert missing is None
    assert len(drawn) == 4  # all validation images
    titles = [title for title, _ in drawn[0].pictures]
    assert titles == ["image", "truth", "dice", "cross_entropy"]
    assert all(pixels.shape == (48, 48, 3) for _, pixels in drawn[0].pictures)
    text = (tmp_path / "sweep/comparison.html").read_text()
    assert text.count('src="data:image/') == 16
    Checked(text)
