"""A plugin: a model that takes its time or fails, and a dataset that hangs."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from torch import Tensor

import segtrain
from segtrain.data import DATASETS
from segtrain.models import MODELS

Tiny: Any = MODELS.get("tiny")  # tests/tiny.py is a plugin as well


_steps = [0]


@segtrain.register_model("slow")
class Slow(Tiny):  # type: ignore[misc]
    """Sleeps in evaluation, and in each step as long as the environment says."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        if self.training and os.environ.get("FAIL_RANK") == os.environ.get("RANK", "0"):
            raise ValueError("it broke")
        self.kill_once()
        time.sleep(float(os.environ.get("STEP_SECONDS", "0")) if self.training else 0.3)
        outputs: dict[str, Tensor] = super().forward(images)
        return outputs

    def kill_once(self) -> None:
        """Kill rank 1 in its sixth training step, if the file KILL_ONCE does not exist yet."""
        flag = os.environ.get("KILL_ONCE")
        _steps[0] += self.training
        if flag and _steps[0] == 6 and os.environ.get("RANK") == "1" and not Path(flag).exists():
            Path(flag).touch()
            os.kill(os.getpid(), signal.SIGKILL)


Shapes: Any = DATASETS.get("shapes")
_read = [0]


@segtrain.register_dataset("hangs")
class Hangs(Shapes):  # type: ignore[misc]
    """Shapes that hang after as many samples as the environment says."""

    def __getitem__(self, index: int) -> Any:
        _read[0] += 1
        if _read[0] > int(os.environ.get("HANG_AFTER", "1000000")):
            time.sleep(3600)
        return super().__getitem__(index)
