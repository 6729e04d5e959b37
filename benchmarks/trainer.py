"""The time of the trainer beside a bare loop: the same model, batches, loss and optimizer.

Both take turns in one process: 50 steps of ``Trainer.fit``, from a log line to the next, and 50
steps of a loop of plain PyTorch. The bare loop has ``F.interpolate``, ``F.cross_entropy`` and fused
AdamW with the same schedule, and reads its loss every 50 steps. It has neither a check for NaN nor
a gradient norm, a log, a progress bar, a heartbeat or a watchdog.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

import torch
from torch.nn import functional as F

import segtrain
from segtrain.assembly.check import check_config
from segtrain.assembly.training import build_trainer
from segtrain.criterion.criterion import AUXILIARY_WEIGHT, MAIN_OUTPUT
from segtrain.engine import Trainer
from segtrain.engine.distributed import Processes
from segtrain.engine.hooks import HOOKS, Hook, Watched

EVERY = 50  # steps between two log lines
NUM_CLASSES, IGNORE_LABEL = 6, 255  # of the drawn shapes
GOAL = 1.03


@dataclass(frozen=True)
class Case:
    """A model, the size of its square images, the batch size, and the number of workers."""

    model: str
    size: int
    batch_size: int
    workers: int = 0
    ema_decay: float | None = None

    def __str__(self) -> str:
        ema = "" if self.ema_decay is None else ", moving average"
        return (
            f"{self.model}, {self.batch_size} x {self.size} x {self.size}, {self.workers} workers"
            f"{ema}"
        )


CASES = [
    Case("hrnet_w18_small_v1", 64, 4),
    Case("hrnet_w18_small_v1", 64, 8),
    Case("hrnet_w18_small_v1", 64, 8, workers=1),
    Case("hrnet_w18_small_v1_ocr", 64, 8),
    Case("lraspp_mobilenet_v3_large", 128, 8),
    Case("hrnet_w18_small_v1", 64, 8, ema_decay=0.99),
]


@HOOKS.register("turns")
class Turns(Hook):
    """Times the steps of a run between two log lines, and those of another loop in turn."""

    seconds: ClassVar[dict[str, list[float]]] = {}
    bare: ClassVar[Callable[[], None]]

    def on_start(self, run: Watched) -> None:
        del run
        Turns.seconds = {"trainer": [], "bare loop": []}
        self._since = perf_counter()

    def on_step(self, run: Watched, values: Mapping[str, float] | None) -> None:
        del run
        if values is None:
            return
        begun = perf_counter()
        self.seconds["trainer"].append(begun - self._since)
        Turns.bare()
        self._since = perf_counter()
        self.seconds["bare loop"].append(self._since - begun)


def measure(case: Case, rounds: int, device: str) -> dict[str, float]:
    """Return the milliseconds per step of both, and the median of the ratios of the rounds."""
    with tempfile.TemporaryDirectory() as folder:
        config = check_config(_config(case, rounds, Path(folder) / "run", device))
        trainer = build_trainer(config, Processes(0, 1, torch.device(device)))
        assert trainer.run is not None
        Turns.bare = staticmethod(_bare_loop(case, trainer))
        with trainer.run:
            trainer.fit()
    # The first round of both is a warm-up, the last one of the trainer ends in an evaluation.
    pairs = list(zip(*(Turns.seconds[name][1:] for name in ("trainer", "bare loop")), strict=True))
    return {
        "trainer": 1000 / EVERY * statistics.median(one for one, _ in pairs),
        "bare loop": 1000 / EVERY * statistics.median(other for _, other in pairs),
        "ratio": statistics.median(one / other for one, other in pairs),
    }


def _config(case: Case, rounds: int, run_dir: Path, device: str) -> dict[str, Any]:
    return {
        "dataset": {
            "name": "shapes",
            "size": [case.size, case.size],
            "num_train": 64,
            "num_val": 2,
        },
        "model": {"name": case.model},
        "loss": {"name": "cross_entropy"},
        "optimizer": {"name": "adamw", "lr": 1e-4},
        "scheduler": {"name": "poly"},
        "loader": {"num_workers": case.workers, "cache": "decoded"},
        "hooks": ["turns"],
        "run_dir": str(run_dir),
        "trainer": {
            "max_steps": EVERY * (rounds + 1),
            "batch_size": case.batch_size,
            "ema_decay": case.ema_decay,
            "channels_last": True,
            "log_every": EVERY,
            "log_images": 0,
            "evaluate_every": 10**6,
            "device": device,
        },
    }


def _bare_loop(case: Case, trainer: Trainer) -> Callable[[], None]:
    """Return a function that takes as many steps as lie between two log lines."""
    device = trainer.processes.device
    model = segtrain.build_model(case.model, num_classes=NUM_CLASSES)
    model = model.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, trainer.total_steps, power=0.9)
    stream = trainer.batches(0)
    average = None
    if case.ema_decay is not None:
        update = torch.optim.swa_utils.get_ema_multi_avg_fn(case.ema_decay)
        average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=update, use_buffers=True)

    def steps() -> None:
        for _ in range(EVERY):
            batch = trainer.to_device(next(stream))
            target = batch["target"]
            optimizer.zero_grad(set_to_none=True)
            loss = torch.zeros((), device=device)
            for name, logits in model(batch["images"]).items():
                weight = 1.0 if name == MAIN_OUTPUT else AUXILIARY_WEIGHT
                large = F.interpolate(
                    logits,
                    size=target.shape[-2:],
                    mode="bilinear",
                    align_corners=model.align_corners,
                )
                loss = loss + weight * F.cross_entropy(large, target, ignore_index=IGNORE_LABEL)
            loss.backward()
            optimizer.step()
            schedule.step()
            if average is not None:
                average.update_parameters(model)
        loss.item()

    return steps


def main() -> None:
    """Print a table of all cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8, help="pairs of 50 steps")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cases", type=int, nargs="*", help="numbers of cases, from 0")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print("| case | trainer, ms | bare loop, ms | ratio |\n|---|---:|---:|---:|")
    chosen = CASES if given.cases is None else [CASES[index] for index in given.cases]
    for case in chosen:
        print(f"{case} ...", file=sys.stderr)
        found = measure(case, given.rounds, given.device)
        print(
            f"| {case} | {found['trainer']:.2f} | {found['bare loop']:.2f} | {found['ratio']:.3f} |"
        )


if __name__ == "__main__":
    main()
