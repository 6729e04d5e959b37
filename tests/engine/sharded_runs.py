"""Runs of two processes, with and without sharding; started by torchrun from the tests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import segtrain
from segtrain.assembly.check import check_config
from segtrain.commands.train import train
from segtrain.engine import fully_sharded


@segtrain.register_model("blocks")
class Blocks(segtrain.Segmentor):
    """A backbone of blocks, which are sharded one by one."""

    head_prefixes = ("head",)

    def __init__(
        self, *, num_classes: int, align_corners: bool = False, in_channels: int = 3
    ) -> None:
        super().__init__(
            num_classes=num_classes, align_corners=align_corners, in_channels=in_channels
        )
        self.stem = nn.Conv2d(in_channels, 5, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList([nn.Conv2d(5, 5, 3, padding=1) for _ in range(2)])
        self.norm = nn.BatchNorm2d(5)
        self.head = nn.Conv2d(5, num_classes, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.stem(images)
        for block in self.blocks:
            features = features + block(features).relu()
        return {"out": self.head(self.norm(features))}


def run(
    folder: Path,
    name: str,
    parallel: str,
    optimizer: dict[str, Any] | None = None,
    **trainer: Any,
) -> None:
    """Train a run, or go on with it."""
    config = {
        "dataset": {"name": "shapes", "size": [32, 32], "num_train": 16, "num_val": 3},
        "model": {"name": "blocks"},
        # The weights of the terms are learned; they belong to the criterion and are not sharded.
        "loss": {"name": "uncertainty", "terms": {"cross_entropy": {}, "dice": {}}},
        "optimizer": {"lr": 0.01, **(optimizer or {"name": "adamw"})},
        "scheduler": {"name": "poly"},
        "loader": {"num_workers": 0},
        "run_dir": str(folder / name),
        "resume": "auto",
        "trainer": {
            "max_steps": 6,
            "batch_size": 2,
            "accumulate": 2,
            "log_every": 1,
            "log_images": 0,
            "device": "cpu",
            "ema_decay": 0.9,
            "clip_grad_norm": 0.5,
            "clip_grad_value": 0.1,
            "evaluate_every": 3,
            "parallel": parallel,
            **trainer,
        },
    }
    train(check_config(config))


def main() -> None:
    """Train a whole run of each kind, and two that change from one kind to the other."""
    folder = Path(sys.argv[1])
    fully_sharded.MIN_PARAMETERS = 100
    for parallel, other in (("ddp", "fsdp"), ("fsdp", "ddp")):
        run(folder, parallel, parallel)
        run(folder, f"{parallel}_{other}", parallel, stop_after=3)
        run(folder, f"{parallel}_{other}", other)
        run(folder, f"{parallel}_sgd", parallel, optimizer={"name": "sgd"})
    # Checkpoints between the images of an evaluation, of which one process has more.
    run(folder, "fsdp_saved", "fsdp", checkpoint_minutes=1e-6)


if __name__ == "__main__":
    main()
