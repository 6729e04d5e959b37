"""Ticks and names of charts."""

from __future__ import annotations

import pytest

from segtrain.pages.charts import shortened, ticks, wrapped


def test_ticks_are_round_and_inside() -> None:
    assert ticks(-19.9, 6.5) == [-15.0, -10.0, -5.0, 0.0, 5.0]
    assert ticks(0.6, 0.65) == pytest.approx([0.6, 0.61, 0.62, 0.63, 0.64, 0.65])


@pytest.mark.parametrize("name", ["", " ", "a", "x" * 300, "word " * 60, "a b " + "y" * 100])
def test_names_of_any_length_fit(name: str) -> None:
    lines = wrapped(name, 20, 3)
    assert 1 <= len(lines) <= 3
    assert all(len(line) <= 20 for line in lines)
    assert len(shortened(name, 20)) <= 20


def test_long_names_keep_their_end_which_tells_them_apart() -> None:
    names = ["my_package.losses.loss_with_many_options_" * 4 + str(number) for number in range(9)]
    assert len({shortened(name) for name in names}) == 9
    assert len({tuple(wrapped(name)) for name in names}) == 9
