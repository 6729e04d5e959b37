"""Prediction from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtrain.cli.main import run_command
from tests.helpers import THREE_STEPS


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_predict_writes_masks_at_the_size_of_the_images(tmp_path: Path) -> None:
    assert run_command("train", [*THREE_STEPS, "run_dir=run"]) == 0
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a.jpg", (50, 70)), ("b.png", (33, 31))):
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(
            tmp_path / "in" / name
        )
    assert run_command("predict", ["checkpoint=run", "input=in", "output=out", "device=cpu"]) == 0
    for stem, size in (("a", (50, 70)), ("b", (33, 31))):
        ids = np.array(Image.open(tmp_path / "out" / "ids" / f"{stem}.png"))
        colours = Image.open(tmp_path / "out" / "color" / f"{stem}.png")
        overlay = np.array(Image.open(tmp_path / "out" / "overlay" / f"{stem}.png"))
        assert ids.shape == size
        assert ids.max() < 6
        assert colours.mode == "P"
        assert np.array_equal(np.array(colours), ids)
        assert overlay.shape == (*size, 3)


def test_predict_says_what_is_missing(tmp_path: Path, last_line: Callable[[], str]) -> None:
    assert run_command("train", [*THREE_STEPS, "run_dir=run"]) == 0
    assert run_command("predict", ["checkpoint=run", "input=absent", "output=out"]) == 3
    assert "absent" in last_line()
    (tmp_path / "empty").mkdir()
    assert run_command("predict", ["checkpoint=run", "input=empty", "output=out"]) == 3
    assert not (tmp_path / "out").exists()
