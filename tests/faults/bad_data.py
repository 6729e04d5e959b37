"""A plugin: a loss that is NaN at one step, and a dataset that draws from the global generators."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

import segtrain
from segtrain.data import DATASETS

Shapes: Any = DATASETS.get("shapes")
_calls = [0]


@segtrain.register_loss("breaks")
class Breaks(segtrain.PixelLoss):
    """Cross entropy, but NaN in the training steps BAD_STEPS of the process BAD_RANK."""

    can_strip = False

    def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        is_step = torch.is_grad_enabled() and logits.requires_grad and len(logits) > 1
        _calls[0] += is_step  # a trial before the training has one image
        value = torch.nn.functional.cross_entropy(
            logits, target.clamp(max=logits.shape[1] - 1), reduction="none"
        )
        bad = [int(step) for step in os.environ.get("BAD_STEPS", "").split(",") if step]
        is_here = os.environ.get("RANK", "0") == os.environ.get("BAD_RANK", "0")
        if is_step and _calls[0] in bad and is_here:
            return value * float("nan")
        return value


@segtrain.register_dataset("draws")
class Draws(Shapes):  # type: ignore[misc]
    """Shapes whose first pixels hold what the global generators gave."""

    def __getitem__(self, index: int) -> Any:
        sample = super().__getitem__(index)
        image = sample.image.copy()
        image[0, 0] = [random.randrange(256), np.random.randint(256), int(torch.randint(256, ()))]  # noqa: NPY002
        return sample._replace(image=image)
