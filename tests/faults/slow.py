"""A plugin: the tiny model with evaluation and steps that take their time."""

from __future__ import annotations

import os
import time
from typing import Any

from torch import Tensor

import segtrain
from segtrain.models import MODELS

Tiny: Any = MODELS.get("tiny")  # tests/tiny.py is a plugin as well


@segtrain.register_model("slow")
class Slow(Tiny):  # type: ignore[misc]
    """Sleeps in evaluation, and in each step as long as the environment says."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        time.sleep(float(os.environ.get("STEP_SECONDS", "0")) if self.training else 0.3)
        outputs: dict[str, Tensor] = super().forward(images)
        return outputs
