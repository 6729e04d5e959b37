"""The learning-rate finder: the curve, the rate it names, and the run that makes it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from segtrain.pages.learning_rates import choose, smooth

Train = Callable[..., int]


def test_the_steepest_fall_of_a_known_curve() -> None:
    """The loss is a logistic curve in log lr, steepest at 1e-3, and grows beyond 1e-1."""
    rates = [10 ** (-5 + index * 0.1) for index in range(61)]
    losses = [
        1 / (1 + math.exp(4 * (math.log10(rate) + 3))) + max(0.0, math.log10(rate) + 1) ** 2
        for rate in rates
    ]
    found = choose(rates, losses)
    assert found.steepest == pytest.approx(1e-3, rel=0.25)
    assert 0.05 < found.lowest < 0.3


def test_smoothing_has_no_bias_at_the_start() -> None:
    assert smooth([3.0]) == [3.0]
    assert smooth([1.0, 2.0]) == pytest.approx([1.0, (0.9 * 0.1 + 0.1 * 2.0) / 0.19])


def test_nan_is_never_the_lowest() -> None:
    assert choose([1e-3, 1e-2, 1e-1], [1.0, 0.5, math.nan]).lowest == 1e-2


def test_the_preset_writes_a_curve(train: Train, tmp_path: Path, messages: list[str]) -> None:
    words = ["debug=find_lr", "trainer.max_steps=40", "optimizer.lr=0.003"]
    assert train("run", *words) == 0
    found = json.loads((tmp_path / "run/learning_rates.json").read_text())
    steps = len(found["lr"])
    assert 12 < steps <= 40
    growth = 1e7 ** (1 / 39)
    assert found["lr"] == pytest.approx([3e-7 * growth**step for step in range(steps)])
    page = (tmp_path / "run/learning_rates.html").read_text()
    assert page.count("<polyline") == 2
    (said,) = [text for text in messages if "try optimizer.lr=" in text]
    assert f"{found['steepest']:.2e}" in said


def test_too_few_steps_for_a_curve(train: Train, tmp_path: Path, messages: list[str]) -> None:
    assert train("run", "debug=find_lr", "trainer.max_steps=4") == 0
    assert any("4 steps are too few for a curve" in text for text in messages)
    assert not (tmp_path / "run/learning_rates.html").exists()
