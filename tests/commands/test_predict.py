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


def test_pixels_that_do_not_count(tmp_path: Path, last_line: Callable[[], str]) -> None:
    assert run_command("train", [*THREE_STEPS, "run_dir=run"]) == 0
    rng = np.random.default_rng(0)
    for folder in ("in", "fov"):
        (tmp_path / folder).mkdir()
    counts = np.zeros((40, 50), np.uint8)
    counts[5:30, 10:] = 255
    images = {}
    for name in ("1_test", "2_test"):
        images[name] = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(images[name]).save(tmp_path / "in" / f"{name}.png")
        Image.fromarray(counts).save(tmp_path / "fov" / f"{name}_mask.gif")
    words = ["checkpoint=run", "input=in", "device=cpu"]
    assert run_command("predict", [*words, "output=all"]) == 0
    assert run_command("predict", [*words, "output=out", "valid=fov"]) == 0
    for name, image in images.items():
        found = {
            folder: np.array(Image.open(tmp_path / "out" / folder / f"{name}.png"))
            for folder in ("ids", "overlay")
        }
        every = np.array(Image.open(tmp_path / "all" / "ids" / f"{name}.png"))
        assert every.max() < 6
        np.testing.assert_array_equal(found["ids"], np.where(counts, every, 255))
        colours = Image.open(tmp_path / "out" / "color" / f"{name}.png").convert("RGB")
        assert not np.array(colours)[counts == 0].any()
        np.testing.assert_array_equal(found["overlay"][counts == 0], image[counts == 0])
        assert (found["overlay"][counts > 0] != image[counts > 0]).any()
    assert run_command("predict", ["checkpoint=run", "input=in/1_test.png", "output=one",
                                   "device=cpu", "valid=fov/2_test_mask.gif"]) == 0  # fmt: skip
    assert run_command("predict", [*words, "output=out", "valid=nowhere"]) == 3
    assert "valid=nowhere: this directory or glob has no image files" in last_line()
    Image.fromarray(counts[:7]).save(tmp_path / "fov" / "2_test_mask.gif")
    assert run_command("predict", [*words, "output=out", "valid=fov/*.gif"]) == 3
    line = last_line()
    assert "fov/2_test_mask.gif: the valid file is 7 x 50 (height x width), but its image" in line
    assert "in/2_test.png is 40 x 50" in line
    (tmp_path / "fov" / "2_test_mask.gif").unlink()
    assert run_command("predict", [*words, "output=out", "valid=fov"]) == 3
    assert "valid: 1 image files have no valid file (in/2_test.png)" in last_line()


def test_predict_says_what_is_missing(tmp_path: Path, last_line: Callable[[], str]) -> None:
    assert run_command("train", [*THREE_STEPS, "run_dir=run"]) == 0
    assert run_command("predict", ["checkpoint=run", "input=absent", "output=out"]) == 3
    assert "absent" in last_line()
    (tmp_path / "empty").mkdir()
    assert run_command("predict", ["checkpoint=run", "input=empty", "output=out"]) == 3
    assert not (tmp_path / "out").exists()
