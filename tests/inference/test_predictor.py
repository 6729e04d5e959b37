"""The kinds of images that a predictor takes, one or many, and what it returns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segtrain.errors import DataError
from tests.inference.pointwise import picture, predictor

IMAGE = picture(40, 50)


def test_every_kind_of_image_gives_the_same(tmp_path: Path) -> None:
    chosen = predictor()
    wanted = chosen(IMAGE)
    assert (wanted.shape, wanted.dtype) == ((40, 50), np.int64)
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    tensor = torch.from_numpy(IMAGE).permute(2, 0, 1)
    kinds = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        Image.fromarray(IMAGE),
        Image.fromarray(np.dstack([IMAGE, IMAGE[..., :1]])),  # transparency is dropped
        IMAGE.astype(np.float32) / 255,
        tensor,
        tensor.float() / 255,
        tensor.double() / 255,
    ]
    for found in (*map(chosen, kinds), *chosen(kinds), *chosen(tuple(kinds))):
        np.testing.assert_array_equal(found, wanted)
    probabilities = chosen.probabilities(IMAGE)
    assert (probabilities.shape, probabilities.dtype) == ((4, 40, 50), np.float32)
    for found in chosen.probabilities(kinds):
        np.testing.assert_allclose(found, probabilities, atol=1e-5)
    assert chosen([]) == []


def test_grey_and_palette_pictures() -> None:
    grey = Image.fromarray(IMAGE[..., 0])
    np.testing.assert_array_equal(predictor()(grey), predictor()(grey.convert("RGB")))
    coloured = Image.fromarray(IMAGE).quantize(16)
    np.testing.assert_array_equal(predictor()(coloured), predictor()(coloured.convert("RGB")))
    assert predictor(channels=1)(grey).shape == (40, 50)
    with pytest.raises(DataError, match="the image: this model takes images of 5 channels"):
        predictor(channels=5)(grey)


def test_lists_with_valid_pixels() -> None:
    valid = np.zeros((40, 50), bool)
    one, other = predictor()([IMAGE, IMAGE], [None, valid])
    assert one.max() < 4
    assert (other == 255).all()
    with pytest.raises(ValueError, match="valid must have one entry per image, got 1"):
        predictor()([IMAGE, IMAGE], [None])


def test_pixels_without_data_get_the_ignore_label() -> None:
    image = IMAGE.astype(np.float32) / 255
    image[3:9, 4] = np.nan
    found = predictor()(image)
    assert (found[3:9, 4] == 255).all()
    assert (found == 255).sum() == 6


def test_wrong_arrays_and_tensors() -> None:
    for wrong, said in (
        (IMAGE[..., 0], r"image must be \(H, W, 3\), uint8, or .*got \(40, 50\) uint8"),
        (IMAGE.astype(np.int64), r"got \(40, 50, 3\) int64"),
        (torch.zeros(40, 50, 3), r"image must be \(3, H, W\), .*got \(40, 50, 3\) float32"),
        (torch.zeros(1, 3, 4, 5), r"got \(1, 3, 4, 5\) float32"),
        (IMAGE.astype(np.float32), r"got whole numbers up to 25\d; divide"),
    ):
        with pytest.raises(ValueError, match=said):
            predictor()(wrong)


def test_an_overlay_needs_ids_of_the_same_size() -> None:
    with pytest.raises(ValueError, match=r"ids \(40, 49\) and image \(40, 50, 3\) must have"):
        predictor().overlay(IMAGE, np.zeros((40, 49), np.int64))
