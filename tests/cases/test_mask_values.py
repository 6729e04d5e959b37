"""Masks whose values are not class ids: following the advice loses no class and no object."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tests.cases.helpers import advised, problem, targets, write_images

SHAPE = (40, 48)


def blocks(*values: int, dtype: type = np.uint8) -> np.ndarray:
    """A mask with a vertical stripe per value."""
    columns = np.arange(SHAPE[1]) * len(values) // SHAPE[1]
    return np.broadcast_to(np.array(values, dtype)[columns], SHAPE).copy()


def grey_rgb(mask: np.ndarray) -> np.ndarray:
    return np.repeat(mask[..., None], 3, axis=2)


def soft(values: tuple[int, ...] = (0, 255)) -> Image.Image:
    return Image.fromarray(blocks(*values)).filter(ImageFilter.GaussianBlur(1))


# ------------------------------------------------- 0, 128 and 255: the last one is a class, too


@pytest.mark.parametrize(
    "values", [(0, 128, 255), (0, 127, 255), (0, 85, 170, 255), (50, 100, 255)]
)
@pytest.mark.parametrize("colours", [False, True])
def test_the_ignore_label_is_a_class_if_the_values_are_as_many(
    tmp_path: Path, values: tuple[int, ...], *, colours: bool
) -> None:
    mask = blocks(*values)
    write_images(tmp_path, [grey_rgb(mask) if colours else mask] * 2)
    number = f"dataset.num_classes={len(values)}"
    words = advised(problem(tmp_path, number))
    for target in targets(tmp_path, number, *words):
        assert np.array_equal(target, np.searchsorted(values, mask))


@pytest.mark.fault("F32")
def test_grey_levels_are_classes_though_num_classes_is_wrong(tmp_path: Path) -> None:
    mask = blocks(0, 128, 255)
    write_images(tmp_path, [mask])
    message = problem(tmp_path, "dataset.num_classes=2")
    words = advised(message, -2)
    assert words == ["dataset.num_classes=3", "dataset.label_map={0:0,128:1,255:2}"]
    assert np.array_equal(targets(tmp_path, *words)[0], np.searchsorted([0, 128, 255], mask))


@pytest.mark.fault("F31")
@pytest.mark.parametrize(
    ("values", "words", "named"),
    [
        ((1, 2, 3, 255), ["dataset.num_classes=3"], "this ignores 255 (25.0 % of the pixels)"),
        ((0, 1, 2, 3), ["dataset.num_classes=3"], "this ignores 0 (25.0 % of the pixels)"),
        ((0, 1, 2, 7), ["dataset.num_classes=3", "dataset.label_map={0:0,1:1,2:2}"],
         "this ignores 7 (25.0 % of the pixels)"),
        ((0, 9, 20, 255), ["dataset.num_classes=3"], "this ignores 255 (25.0 % of the pixels)"),
    ],
)  # fmt: skip
def test_a_value_that_the_advice_ignores_is_named(
    tmp_path: Path, values: tuple[int, ...], words: list[str], named: str
) -> None:
    write_images(tmp_path, [blocks(*values)])
    message = problem(tmp_path, *words)
    assert message is not None
    assert named in message


def test_the_share_is_that_of_all_masks(tmp_path: Path) -> None:
    write_images(tmp_path, [blocks(1, 2), blocks(1, 2, 255, 255)])
    message = problem(tmp_path, "dataset.num_classes=2")
    assert message is not None
    assert "this ignores 255 (25.0 % of the pixels)" in message


@pytest.mark.fault("F33")
def test_missing_colours_are_named_with_their_share(tmp_path: Path) -> None:
    mask = np.zeros((*SHAPE, 3), np.uint8)
    mask[:, :12] = (255, 0, 0)
    write_images(tmp_path, [mask])
    message = problem(tmp_path, "dataset.num_classes=2", "dataset.palette=[[0,0,0],[0,255,0]]")
    assert message is not None
    assert "to ignore the missing colours (25.0 % of the pixels)" in message


# ------------------------------------------------- soft edges


@pytest.mark.parametrize("colours", [False, True])
@pytest.mark.parametrize("words", [[], ["dataset.label_map={0:0,255:1}"]])
def test_soft_edges_of_a_binary_mask(tmp_path: Path, words: list[str], *, colours: bool) -> None:
    picture = soft()
    write_images(tmp_path, [picture.convert("RGB") if colours else picture] * 3)
    number = "dataset.num_classes=2"
    if colours and words:
        words = ["dataset.label_map={0x000000:0,0xFFFFFF:1}"]
    message = problem(tmp_path, number, *words)
    found = advised(message)
    assert found == ["dataset.label_map={0-127:0,128-255:1}"]
    for target in targets(tmp_path, number, *found):
        assert np.array_equal(target, np.asarray(picture) >= 128)


def test_soft_edges_of_three_levels(tmp_path: Path) -> None:
    picture = soft((0, 128, 255))
    write_images(tmp_path, [picture])
    message = problem(tmp_path, "dataset.num_classes=3")
    assert message is not None
    assert "soft edges between 0 and 255 get a class in between" in message
    assert advised(message) == ["dataset.label_map={0-64:0,65-191:1,192-255:2}"]


def test_many_ids_beside_255_are_no_soft_edges(tmp_path: Path) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[0, :12] = range(12)
    mask[1:4] = 255
    write_images(tmp_path, [mask])
    assert advised(problem(tmp_path, "dataset.num_classes=2")) == ["dataset.num_classes=12"]


# ------------------------------------------------- values below zero


@pytest.mark.fault("F31")
@pytest.mark.parametrize(
    ("values", "num_classes", "expected", "word"),
    [
        ((0, 1, 2, -1), 3, (0, 1, 2, -1), "dataset.ignore_label=-1"),
        ((0, 1, -9999), 2, (0, 1, -9999), "dataset.ignore_label=-9999"),
        ((0, 1, -1, 255), 2, (0, 1, 255, 255), "dataset.label_map={0:0,1:1,-1:255,255:255}"),
        ((1, 2, 3, -9999), 3, (0, 1, 2, 255), "dataset.label_map={1:0,2:1,3:2,-9999:255}"),
        ((0, 255, -1), 2, (0, 1, 255), None),
        ((0, -1, -2), 1, (0, 255, 255), None),
    ],
)
@pytest.mark.parametrize("ending", ["tif", "npy"])
def test_values_below_zero_mark_pixels_without_a_class(
    tmp_path: Path,
    values: tuple[int, ...],
    num_classes: int,
    expected: tuple[int, ...],
    word: str | None,
    ending: str,
) -> None:
    mask = blocks(*values, dtype=np.int32)
    write_images(tmp_path, [np.zeros(SHAPE, np.uint8)])
    (tmp_path / "masks/000.png").unlink()
    if ending == "tif":
        Image.fromarray(mask).save(tmp_path / "masks/000.tif")
    else:
        np.save(tmp_path / "masks/000.npy", mask)
    number = f"dataset.num_classes={num_classes}"
    words = advised(problem(tmp_path, number))
    assert word is None or words == [word]
    ids = np.array(expected)[np.arange(SHAPE[1]) * len(values) // SHAPE[1]]
    assert np.array_equal(targets(tmp_path, number, *words)[0], np.broadcast_to(ids, SHAPE))
