"""Predictions for images of which some pixels do not count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from segtrain.data import LabelContract
from segtrain.errors import DataError
from segtrain.inference import Predictor
from segtrain.models import Segmentor

IMAGE = np.full((2, 3, 3), 100, dtype=np.uint8)
VALID = np.array([[0, 7, 7], [7, 0, 7]], dtype=np.uint8)


class Ones(Segmentor):
    """Predicts class 1 everywhere; in multi-label data every class but the first."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        logits = torch.ones(len(images), self.num_classes, *images.shape[2:])
        logits[:, 0] = -1
        return {"out": logits}


def predictor(**keys: Any) -> Predictor:
    labels = LabelContract(num_classes=2, palette=[[0, 0, 0], [200, 0, 0]], **keys)
    return Predictor(Ones(num_classes=2), labels, mean=(0.5,) * 3, std=(0.5,) * 3, device="cpu")


@pytest.mark.parametrize("label", [255, 7, -1, 300])
def test_pixels_that_do_not_count_get_the_ignore_label(label: int) -> None:
    ids = predictor(ignore_label=label)(IMAGE, VALID)
    assert ids.tolist() == [[label, 1, 1], [1, label, 1]]
    assert predictor(ignore_label=label)(IMAGE).tolist() == [[1, 1, 1], [1, 1, 1]]


@pytest.mark.parametrize("label", [255, -1])
def test_in_every_channel_of_multi_label_data(label: int) -> None:
    ids = predictor(ignore_label=label, multi_label=True)(IMAGE, VALID > 0)
    assert ids[0].tolist() == [[label, label], [0, 1], [0, 1]]


def test_they_are_black_and_have_no_overlay() -> None:
    for chosen in (predictor(), predictor(multi_label=True)):
        ids = chosen(IMAGE, VALID)
        assert chosen.colorize(ids)[0].tolist() == [[0, 0, 0], [200, 0, 0], [200, 0, 0]]
        assert chosen.overlay(IMAGE, ids)[0].tolist() == [[100] * 3, [150, 50, 50], [150, 50, 50]]


def test_files(tmp_path: Path) -> None:
    image, valid = tmp_path / "a.png", tmp_path / "fov.png"
    Image.fromarray(IMAGE).save(image)
    Image.fromarray(VALID).save(valid)
    for given in (image, IMAGE):
        assert predictor()(given, valid).tolist() == [[255, 1, 1], [1, 255, 1]]
    Image.fromarray(VALID[:1]).save(valid)
    with pytest.raises(
        DataError, match=r"fov\.png: the valid file is 1 x 3 .*a\.png is 2 x 3; res"
    ):
        predictor()(image, valid)


def test_an_array_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"valid must be \(H, W\) = \(2, 3\), got \(3, 2\)"):
        predictor()(IMAGE, VALID.T)
