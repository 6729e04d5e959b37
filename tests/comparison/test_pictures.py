"""The images on which two groups differ most."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import segtrain
from segtrain.cli.main import run_command
from segtrain.comparison import pictures
from segtrain.comparison.page import comparison_page
from segtrain.comparison.pictures import differing_images
from segtrain.data import LabelContract, Sample, SegmentationDataset
from tests.comparison.helpers import write_group, write_run
from tests.helpers import THREE_STEPS

SHAPE = (600, 40)
GREYS = {120, 165}


class Written(SegmentationDataset):
    """Images ``0.png``, ``1.png``, ... whose upper half is ignored."""

    def __init__(self, number: int) -> None:
        super().__init__(LabelContract(2, palette=[[0, 0, 0], [200, 0, 0]]))
        self.number = number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> Sample:
        target = np.zeros(SHAPE, np.uint8)
        target[: SHAPE[0] // 2] = 255
        return Sample(np.zeros((*SHAPE, 3), np.uint8), target, f"{index}.png")


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces models and data; holds the checkpoints in the order in which they were loaded."""
    found: list[str] = []

    def predictor(path: Path, device: str) -> Any:
        found.append(str(path))
        return lambda image: np.ones(image.shape[:2], np.uint8)

    monkeypatch.setattr(pictures, "Predictor", SimpleNamespace(from_checkpoint=predictor))
    monkeypatch.setattr(pictures, "build_dataset", lambda spec, split: Written(12))
    return found


def add_checkpoints(folder: Path, name: str = "last.pt") -> None:
    for path in folder.iterdir():
        (path / "checkpoints").mkdir()
        (path / "checkpoints" / name).touch()


def test_the_images_with_the_largest_differences_of_both_signs(
    tmp_path: Path, used: list[str]
) -> None:
    base = np.full(12, 0.5)
    better = base.copy()
    better[[3, 7, 1, 9, 2]] += (0.30, 0.25, 0.20, 0.15, 0.05)
    better[[0, 5, 6]] -= (0.2, 0.1, 0.05)
    for seed in (0, 1):
        noise = np.random.default_rng(seed).normal(0, 0.005, 12)
        write_run(tmp_path / f"a{seed}", list(base + noise), seed=seed)
        write_run(tmp_path / f"b{seed}", list(better), seed=seed, loss="focal")
    add_checkpoints(tmp_path)
    drawn, missing = differing_images(segtrain.compare(tmp_path))
    assert missing is None
    assert [item.name for item in drawn] == [f"{index}.png" for index in (3, 7, 1, 9, 0, 5)]
    assert [item.is_better for item in drawn] == [True] * 4 + [False] * 2
    assert [Path(path).parts[-3] for path in used] == ["a0", "b0"]  # the first common seed
    titles, pixels = zip(*drawn[0].pictures, strict=True)
    assert titles == ("image", "truth", "cross_entropy", "focal")
    assert {item.shape for item in pixels} == {(512, 34, 3)}
    for target in pixels[1:]:
        assert set(np.unique(target[:250])) == GREYS  # ignored, also in the predictions
    assert pixels[2][300].tolist() == [[200, 0, 0]] * 34
    text = comparison_page(segtrain.compare(tmp_path), drawn, missing)
    assert "focal is better here: +" in text
    assert "focal is worse here: -" in text
    assert text.count('src="data:image/') == 6 * 4


def test_a_metric_of_which_less_is_better(tmp_path: Path, used: list[str]) -> None:
    for seed in (0, 1):
        write_run(tmp_path / f"a{seed}", [0.5] * 4, seed=seed, betti=[5, 5, 5 + seed, 5])
        write_run(tmp_path / f"b{seed}", [0.5] * 4, seed=seed, betti=[5, 2, 9, 5], loss="focal")
    add_checkpoints(tmp_path)
    drawn, _ = differing_images(segtrain.compare(tmp_path, metric="betti0_error"))
    assert [(item.name, item.is_better) for item in drawn] == [("2.png", False), ("1.png", True)]
    assert [item.difference < 0 for item in drawn] == [False, True]


def test_most_images_fit_the_difference_of_the_groups() -> None:
    gains = np.array([0.1, 0.2, 0.3, -9.0, -8.0, -7.0, -6.0, -5.0, -4.0])
    assert pictures._chosen(gains) == [3, 4, 5, 6, 2, 1]
    assert pictures._chosen(-gains) == [3, 4, 5, 6, 2, 1]
    assert pictures._chosen(gains[3:]) == [0, 1, 2, 3, 4, 5]
    assert pictures._chosen(np.zeros(4)) == []


def test_with_folds_each_image_is_predicted_by_the_run_that_did_not_see_it(
    tmp_path: Path, used: list[str]
) -> None:
    for seed in (0, 1):
        for fold in (0, 1):
            more = {
                "seed": seed,
                "names": [f"{index}.png" for index in range(6 * fold, 6 * fold + 6)],
                "config": {"dataset": {"name": "folder", "folds": 2, "fold": fold}},
            }
            iou = np.full(6, 0.5) + 0.001 * seed
            write_run(tmp_path / f"a{seed}{fold}", list(iou), **more)
            iou[2] += 0.3 - 0.1 * fold
            write_run(tmp_path / f"b{seed}{fold}", list(iou), loss="focal", **more)
    add_checkpoints(tmp_path, "best.pt")
    drawn, missing = differing_images(segtrain.compare(tmp_path))
    assert missing is None
    assert [item.name for item in drawn][:2] == ["2.png", "8.png"]
    assert {Path(path).parts[-3] for path in used} == {"a00", "b00", "a01", "b01"}
    assert {Path(path).name for path in used} == {"best.pt"}


def test_a_missing_checkpoint_is_explained(tmp_path: Path) -> None:
    write_group(tmp_path, "cross_entropy", 0.5)
    write_group(tmp_path, "focal", 0.6)
    comparison = segtrain.compare(tmp_path)
    drawn, missing = differing_images(comparison)
    assert not drawn
    assert missing is not None
    assert missing.endswith("checkpoints/last.pt does not exist")
    assert "There are no images: " in comparison_page(comparison, drawn, missing)


def test_data_that_changed_are_explained(
    tmp_path: Path, used: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_group(tmp_path, "cross_entropy", 0.5)
    write_group(tmp_path, "focal", 0.6)
    add_checkpoints(tmp_path)
    monkeypatch.setattr(pictures, "build_dataset", lambda spec, split: Written(0))
    drawn, missing = differing_images(segtrain.compare(tmp_path))
    assert not drawn
    assert re.fullmatch(r"the dataset has no image '\d+\.png' any more", missing or "")


def test_a_pair_that_fails_does_not_stop_the_others(
    tmp_path: Path, used: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, mean in (("cross_entropy", 0.5), ("focal", 0.6), ("dice", 0.7)):
        write_group(tmp_path, name, mean)
    add_checkpoints(tmp_path)
    (tmp_path / "dice-0/checkpoints/last.pt").unlink()
    drawn, missing = differing_images(segtrain.compare(tmp_path))
    assert {item.group for item in drawn} == {"focal"}
    assert "dice-0" in str(missing)

    def broken(spec: Any, split: str) -> Any:
        raise KeyError("of another library")

    monkeypatch.setattr(pictures, "build_dataset", broken)
    drawn, missing = differing_images(segtrain.compare(tmp_path))
    assert not drawn
    assert missing is not None


def test_a_metric_without_values_per_image(tmp_path: Path) -> None:
    write_group(tmp_path, "cross_entropy", 0.5)
    assert differing_images(segtrain.compare(tmp_path)) == (
        [],
        "no two groups have values per image that can be compared",
    )


def test_a_real_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    words = [*THREE_STEPS, "-m", "loss=cross_entropy,dice", "seed=0,1", "sweep_dir=sweep"]
    assert run_command("train", words) == 0
    drawn, missing = differing_images(segtrain.compare("sweep"), device="cpu")
    assert missing is None
    assert 1 <= len(drawn) <= 4
    titles = [title for title, _ in drawn[0].pictures]
    assert titles == ["image", "truth", "cross_entropy", "dice"]
    assert all(pixels.shape == (48, 48, 3) for _, pixels in drawn[0].pictures)
    text = (tmp_path / "sweep/comparison.html").read_text()
    assert text.count('src="data:image/') == 4 * len(drawn)
