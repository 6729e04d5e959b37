"""Pairs of prediction and target: random ones, and masks of real images with mistakes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tests.helpers import SHARED

IGNORE = 255


@pytest.fixture
def random_pair() -> tuple[Tensor, Tensor]:
    """Four images of five classes, of which the last does not occur, with ignored pixels."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 4, (4, 20, 30), generator=generator)
    wrong = torch.rand(target.shape, generator=generator) < 0.3
    prediction = torch.where(wrong, torch.randint(0, 4, target.shape, generator=generator), target)
    target[:, :3] = IGNORE
    return prediction, target


@pytest.fixture(params=["blobs", "camvid", "crackforest", "topomortar"])
def masks(request: pytest.FixtureRequest) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Pairs of binary masks: the prediction is the target, moved and with parts left out."""
    if request.param == "blobs":
        rng = np.random.default_rng(0)
        noise = [rng.random((5, 7)) > 0.4 for _ in range(3)]
        targets = [np.kron(cells, np.ones((8, 9))).astype(bool) for cells in noise]
    else:
        folder = {"camvid": "camvid/masks/val", "crackforest": "crackforest/masks/val"}
        path = SHARED / folder.get(request.param, "topomortar/accurate/val")
        if not path.is_dir():
            pytest.skip(f"there are no masks at {path}")
        value = {"camvid": 8, "crackforest": 1}.get(request.param, 255)  # 8: car
        found = [np.array(Image.open(file)) == value for file in sorted(path.iterdir())[:6]]
        targets = [mask for mask in found if mask.any()][:3]
    pairs = []
    for number, target in enumerate(targets):
        prediction = np.roll(target, (2, 1 + number), axis=(0, 1))
        prediction[: len(target) // 3, : target.shape[1] // 2] = False
        prediction[-4:, -5:] = True
        pairs.append((prediction, target))
    return pairs
