"""Building blocks of a page."""

from __future__ import annotations

from segtrain.pages.html import table


def test_headings_are_text_and_numbers_stand_right() -> None:
    plain = table(["<a>", "b"], [["x", "1"]], numbers=[1])
    assert "<th>&lt;a&gt;</th>" in plain
    assert '<td class="number">1</td>' in plain
    styled = table(["<a>", "b"], [["x", "1"]], numbers=[1], style="fixed upright")
    assert '<table class="fixed upright">' in styled
    assert "<th><span>&lt;a&gt;</span></th>" in styled
