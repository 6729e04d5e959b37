"""The findings of an examination, and that training agrees with them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segtrain.cli.main import run_command
from segtrain.errors import ConfigError, DataError
from segtrain.inspection import Examination, examine
from segtrain.inspection.outliers import TINY_SHARE
from tests.inspection.conftest import SHAPE, Run, write_sample


def look(root: Path, **keys: Any) -> Examination:
    spec = {
        "name": "folder",
        "root": str(root),
        "num_classes": 4,
        "class_names": ["sky", "road", "car", "sign"],
        **{
            split: {"images": f"images/{split}", "masks": f"masks/{split}"}
            for split in ("train", "val")
        },
    }
    decode = keys.pop("decode", True)
    return examine({**spec, **keys}, decode=decode)


def found(examination: Examination) -> set[tuple[str, str, bool]]:
    return {(item.split, item.finding.kind, item.is_error) for item in examination.findings}


# ---------------------------------------------------------------------- one problem each


def cut(path: Path, count: int) -> None:
    path.write_bytes(path.read_bytes()[:-count])


def missing(root: Path) -> None:
    (root / "masks/train/train2.png").unlink()


def extra(root: Path) -> None:
    (root / "images/train/train2.jpg").unlink()


def truncated_jpeg(root: Path) -> None:
    cut(root / "images/train/train2.jpg", 200)


def truncated_png(root: Path) -> None:
    cut(root / "masks/val/val1.png", 30)


def first_truncated(root: Path) -> None:
    cut(root / "images/train/train0.jpg", 200)


def other_size(root: Path) -> None:
    Image.new("L", (10, 12)).save(root / "masks/train/train2.png")


def outside(root: Path) -> None:
    write_sample(root, "train", "train2", np.full(SHAPE, 7))


def overlap(root: Path) -> None:
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        shutil.copy(root / kind / f"train/train2.{suffix}", root / kind / f"val/again.{suffix}")


def duplicate(root: Path) -> None:
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        shutil.copy(root / kind / f"train/train2.{suffix}", root / kind / f"train/again.{suffix}")


def ignored(root: Path) -> None:
    write_sample(root, "train", "train2", np.full(SHAPE, 255))


def oversized(root: Path) -> None:
    write_sample(root, "train", "train2", shape=(SHAPE[0] * 3, SHAPE[1] * 3))


def without_class(root: Path, split: str, count: int) -> None:
    for index in range(count):
        write_sample(
            root, split, f"{split}{index}", np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE) % 3
        )


def absent_in_train(root: Path) -> None:
    without_class(root, "train", 6)


def absent_in_val(root: Path) -> None:
    without_class(root, "val", 3)


def tiny(root: Path) -> None:
    side = int((1 / TINY_SHARE) ** 0.5) + 1
    for index in range(6):
        ids = np.arange(side * side).reshape(side, side) % 3
        ids[0, 0] = 3 if index == 0 else 0
        write_sample(root, "train", f"train{index}", ids, (side, side))


ERRORS: list[tuple[Callable[[Path], None], str, str]] = [
    (missing, "train", "left_out"),
    (extra, "train", "left_out"),
    (truncated_jpeg, "train", "unreadable"),
    (truncated_png, "val", "unreadable"),
    (first_truncated, "train", "unreadable"),
    (other_size, "train", "size"),
    (outside, "train", "values"),
    (overlap, "train and val", "overlap"),
]
WARNINGS: list[tuple[Callable[[Path], None], str, str]] = [
    (duplicate, "train", "duplicate"),
    (ignored, "train", "ignored"),
    (oversized, "train", "large"),
    (absent_in_train, "train", "absent"),
    (absent_in_val, "val", "absent"),
    (tiny, "train", "tiny"),
]


def ids_of(cases: list[tuple[Callable[[Path], None], str, str]]) -> list[str]:
    return [case[0].__name__ for case in cases]


def test_nothing_wrong(root: Path, run: Run) -> None:
    examination = look(root)
    assert (examination.findings, examination.refusal, examination.verdict) == ((), None, "fine")
    assert run("inspect")[0] == 0
    assert run("train")[0] == 0


@pytest.mark.parametrize(("break_it", "split", "kind"), ERRORS, ids=ids_of(ERRORS))
def test_errors_are_the_same_as_in_training(
    root: Path, run: Run, break_it: Callable[[Path], None], split: str, kind: str
) -> None:
    break_it(root)
    examination = look(root)
    assert (split, kind, True) in found(examination)
    code, line = run("train")
    assert (code, line) == (3, f"error: {examination.refusal}")
    assert run("inspect") == (code, line)


@pytest.mark.parametrize(("break_it", "split", "kind"), WARNINGS, ids=ids_of(WARNINGS))
def test_warnings_do_not_stop_training(
    root: Path, run: Run, break_it: Callable[[Path], None], split: str, kind: str
) -> None:
    break_it(root)
    examination = look(root)
    # A larger image also has another size.
    assert found(examination) - {("train", "mixed", False)} == {(split, kind, False)}
    assert (examination.refusal, examination.verdict) == (None, "warnings")
    assert run("inspect")[0] == 0
    assert run("train")[0] == 0


# ---------------------------------------------------------------------- allowed by a key


@pytest.mark.parametrize("break_it", [missing, truncated_jpeg, first_truncated, other_size])
def test_max_bad_makes_warnings(root: Path, run: Run, break_it: Callable[[Path], None]) -> None:
    break_it(root)
    examination = look(root, max_bad=0.2)
    assert [item.is_error for item in examination.findings] == [False]
    assert examination.refusal is None
    assert run("train", "dataset.max_bad=0.2")[0] == 0
    assert run("inspect", "dataset.max_bad=0.2")[0] == 0


def test_evaluation_leaves_out_the_same_samples_as_training(
    root: Path, run: Run, tmp_path: Path
) -> None:
    cut(root / "images/val/val0.jpg", 200)
    assert run("train", "dataset.max_bad=0.4")[0] == 0
    words = [f"checkpoint={tmp_path / 'run'}", "device=cpu", "loader.num_workers=0"]
    assert run_command("evaluate", words) == 0


def test_more_than_max_bad(root: Path, run: Run) -> None:
    missing(root)
    cut(root / "images/train/train4.jpg", 200)
    examination = look(root, max_bad=0.2)
    assert found(examination) == {("train", "left_out", True), ("train", "unreadable", True)}
    assert run("train", "dataset.max_bad=0.2") == (3, f"error: {examination.refusal}")


def test_an_overlap_may_be_allowed(root: Path, run: Run) -> None:
    overlap(root)
    assert found(look(root, allow_overlap=True)) == {("train and val", "overlap", False)}
    assert run("inspect", "dataset.allow_overlap=true")[0] == 0
    assert run("train", "dataset.allow_overlap=true")[0] == 0


def test_everything_is_found_at_once(root: Path) -> None:
    missing(root)
    cut(root / "images/train/train0.jpg", 200)
    cut(root / "images/val/val0.jpg", 200)
    write_sample(root, "val", "val1", np.full(SHAPE, 9))
    kinds = {kind for _, kind, _ in found(look(root))}
    assert kinds == {"left_out", "unreadable", "values"}


def test_damage_inside_an_image_is_found_by_decoding(root: Path, run: Run) -> None:
    image = root / "images/train/train3.png"
    (root / "images/train/train3.jpg").unlink()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)).save(
        image
    )
    content = image.read_bytes()
    middle = len(content) // 2
    image.write_bytes(content[:middle] + bytes(100) + content[middle + 100 :])
    assert look(root, decode=False).refusal is None
    refusal = look(root).refusal
    assert refusal is not None
    assert refusal.startswith(f"{image}: the image file cannot be read")
    # The scan before training remembers what was found once.
    assert run("train") == (3, f"error: {refusal}")


# ---------------------------------------------------------------------- the test split


@pytest.fixture
def tested(root: Path) -> dict[str, Any]:
    """Write a test split; returns its key of the dataset."""
    for kind in ("images", "masks"):
        (root / kind / "test").mkdir()
    for index in range(2):
        write_sample(root, "test", f"test{index}")
    return {"test": {"images": "images/test", "masks": "masks/test"}}


def test_the_test_split_is_examined(root: Path, tested: dict[str, Any]) -> None:
    assert [*look(root).splits] == ["train", "val"]
    assert [*look(root, **tested).splits] == ["train", "val", "test"]
    write_sample(root, "test", "test1", np.full(SHAPE, 7))
    examination = look(root, **tested)
    assert found(examination) == {("test", "values", True)}
    assert "test1.png: the mask holds value 7" in str(examination.refusal)


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_image_of_another_split_in_the_test_split(
    root: Path, tested: dict[str, Any], split: str
) -> None:
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        shutil.copy(
            root / kind / split / f"{split}1.{suffix}", root / kind / f"test/again.{suffix}"
        )
    examination = look(root, **tested)
    assert found(examination) == {(f"{split} and test", "overlap", True)}
    assert f"are the same image, in both dataset.{split} and dataset.test" in str(
        examination.refusal
    )
    assert look(root, allow_overlap=True, **tested).refusal is None


# ---------------------------------------------------------------------- counts


def test_normalization_is_over_all_pixels(root: Path) -> None:
    write_sample(root, "train", "train2", shape=(40, 20))
    images = sorted((root / "images/train").iterdir())
    pixels = np.concatenate([np.asarray(Image.open(path)).reshape(-1, 3) for path in images]) / 255
    for _ in range(2):  # the second time from the cache
        measured = look(root).normalization
        assert measured is not None
        np.testing.assert_allclose(measured, (pixels.mean(0), pixels.std(0)), rtol=1e-9)
    assert look(root, decode=False).normalization is not None  # remembered
    assert look(root, decode=False, channels=1).normalization is None
    write_sample(root, "train", "new")  # not measured for every image
    assert look(root, decode=False).normalization is None


def test_a_dataset_without_files_is_counted() -> None:
    examination = examine({"name": "shapes", "num_train": 4, "num_val": 2, "size": [32, 32]})
    assert examination.splits["train"].report.num_files == 4
    assert examination.normalization is not None
    assert examination.refusal is None
    assert set(examination.weights) == {
        "inverse_frequency", "median_frequency", "inverse_log", "effective_number"
    }  # fmt: skip


# ---------------------------------------------------------------------- no usable files or keys


def test_missing_folders_are_named(root: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        look(root / "nowhere")
    shutil.rmtree(root / "masks/val")
    with pytest.raises(DataError, match="masks/val"):
        look(root)


def test_files_without_a_partner_are_reported(root: Path) -> None:
    for path in (root / "masks/train").iterdir():
        path.rename(path.with_name(f"{path.stem}{path.stem}.png"))
    with pytest.raises(DataError, match="no mask"):
        look(root)


def test_a_wrong_key_or_value_is_reported(root: Path) -> None:
    with pytest.raises(ConfigError, match="max_bad"):
        look(root, max_bad=2)
    with pytest.raises(ConfigError, match="did you mean"):
        look(root, ignore_labl=2)
