"""Part 3 of ``benchmarks/gpu.py``: training throughput, and the time of each section of a step.

The trainer and a bare loop of plain PyTorch take turns with the same model on the same batches in
memory. The bare loop has ``F.interpolate``, ``F.cross_entropy`` and fused AdamW, and neither a
check for NaN nor a gradient norm nor a log.
"""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter
from typing import Any

import torch
from gpu_checks import opened
from gpu_parts import Item, Row, Setting, alternate, free_memory, peak_mib, synchronize
from torch.nn import functional as F

import segtrain
from segtrain.criterion.criterion import AUXILIARY_WEIGHT, MAIN_OUTPUT
from segtrain.engine import Trainer
from segtrain.errors import is_out_of_memory

TITLE = "Training throughput in bfloat16, and the time of each section of a step"
COLUMNS = {
    "model": "model",
    "batch": "batch",
    "what": "what",
    "ms": "ms per step",
    "images_per_second": "images/s",
    "ratio": "x bare loop",
    "share": "share of the step",
    "peak_mib": "peak MiB",
}
NUM_CLASSES, IGNORE_LABEL = 6, 255  # of the drawn shapes
# The largest batch that is tried, and an estimate of the memory per image in GiB.
MODELS = {"hrnet_w18": (16, 2.5), "hrnet_w48_ocr": (16, 6.0)}
TINY_MODELS = {"hrnet_w18_small_v1": (2, 0.0), "hrnet_w18_small_v1_ocr": (2, 0.0)}
SIZE, TINY_SIZE = (512, 1024), (64, 64)
ROUNDS, STEPS = 4, 10  # STEPS is the number of steps in a round
Step = Callable[[], object]


def items(setting: Setting) -> dict[str, Item]:
    """Return one measurement per model."""
    models = TINY_MODELS if setting.tiny else MODELS
    return {name: partial(_measure, name, *limits) for name, limits in models.items()}


def _measure(model: str, largest: int, gib_per_image: float, setting: Setting) -> Iterator[Row]:
    batch = _batch_size(largest, gib_per_image, setting.device)
    while batch:
        try:
            yield from _rows(model, batch, setting)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        else:
            return
        free_memory(setting.device)  # not in the handler, where the error still holds the tensors
        yield {"model": model, "batch": batch, "what": "all", "state": "out of memory"}
        batch //= 2


def _batch_size(largest: int, gib_per_image: float, device: torch.device) -> int:
    """Halve `largest` until the estimated memory of the batch is free."""
    if device.type != "cuda":
        return largest
    free = torch.cuda.mem_get_info(device)[0] / 2**30
    while largest > 2 and largest * gib_per_image > free:
        largest //= 2
    return largest


def _rows(model: str, batch: int, setting: Setting) -> Iterator[Row]:
    """Yield the rows of one model at one batch size; raise if the memory is too small."""
    start = {"model": model, "batch": batch}
    with (
        tempfile.TemporaryDirectory() as folder,
        opened(_config(model, batch, folder, setting)) as trainer,
    ):
        for row in _throughput(model, trainer, setting):
            yield {**start, **row}
        free_memory(setting.device)
        for row in _sections(trainer, setting):
            yield {**start, **row}


def _config(model: str, batch: int, folder: str, setting: Setting) -> dict[str, Any]:
    workers = 0 if setting.tiny else min(8, max((os.cpu_count() or 1) - 1, 1))
    return {
        "dataset": {
            "name": "shapes",
            "size": list(TINY_SIZE if setting.tiny else SIZE),
            "num_train": 2 * batch,
            "num_val": 2,
        },
        "model": {"name": model},
        "loss": {"name": "cross_entropy"},
        "optimizer": {"name": "adamw", "lr": 1e-4},
        "scheduler": {"name": "constant"},
        "augmentation": {"scale": [1.0, 1.0]},
        "loader": {"num_workers": workers, "cache": "decoded"},
        "run_dir": folder,
        "trainer": {
            "max_steps": 10_000,
            "batch_size": batch,
            "precision": "bf16",
            "channels_last": True,
            "log_images": 0,
            "device": setting.device.type,
        },
    }


def _bare_loop(model: str, trainer: Trainer) -> Callable[[Any], None]:
    """Return a hand-written training step with another instance of the model."""
    device = trainer.processes.device
    net = segtrain.build_model(model, num_classes=NUM_CLASSES)
    net = net.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    corners = net.align_corners
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)

    def step(batch: Any) -> None:
        moved = trainer.to_device(batch)
        images, target = moved["images"], moved["target"]
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            outputs = net(images)
            loss = torch.zeros((), device=device)
            for name, logits in outputs.items():
                weight = 1.0 if name == MAIN_OUTPUT else AUXILIARY_WEIGHT
                size = target.shape[-2:]
                large = F.interpolate(logits, size=size, mode="bilinear", align_corners=corners)
                loss = loss + weight * F.cross_entropy(large, target, ignore_index=IGNORE_LABEL)
        loss.backward()
        optimizer.step()

    return step


def _throughput(model: str, trainer: Trainer, setting: Setting) -> Iterator[Row]:
    """Yield the speed of both loops, which take turns on two batches in memory."""
    batches = itertools.cycle(list(itertools.islice(trainer.batches(0), 2)))
    bare = _bare_loop(model, trainer)
    loops: dict[str, Step] = {
        "bare loop": lambda: bare(next(batches)),
        "trainer": lambda: trainer.train_step([next(batches)]),
    }
    peaks = {name: peak_mib(step, setting.device) for name, step in loops.items()}
    steps = 1 if setting.tiny else STEPS
    repeated = {name: partial(_repeat, step, steps) for name, step in loops.items()}
    if not setting.tiny:
        for call in repeated.values():  # kernels are loaded, the clock rises
            call()
    seconds = alternate(repeated, 1 if setting.tiny else ROUNDS, setting)
    for name, found in seconds.items():
        pairs = zip(found, seconds["bare loop"], strict=True)
        middle = statistics.median(found) / steps
        yield {
            "what": name,
            "ms": 1000 * middle,
            "images_per_second": trainer.options.batch_size / middle,
            "ratio": statistics.median(one / bare for one, bare in pairs),
            "peak_mib": peaks[name],
        }


def _repeat(step: Step, count: int) -> None:
    for _ in range(count):
        step()


def _sections(trainer: Trainer, setting: Setting) -> Iterator[Row]:
    """Yield the time of each section of a step, with batches from the loader.

    The CPU waits for the device after each section, so these steps are slower than the others.
    """
    stream = trainer.batches(0)
    marks = _Marks(trainer)
    for _ in range(2 if setting.tiny else 4):  # until the workers have started
        trainer.train_step([next(stream)])
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(1 if setting.tiny else 2 * STEPS):
        start = perf_counter()
        batch_read = next(stream)
        read = perf_counter()
        marks.begin()
        trainer.train_step([batch_read])
        sections = {"data wait": read - start, **marks.end()}
        for name, seconds in sections.items():
            found[name].append(seconds)
        if setting.left <= 0:
            break
    marks.remove()
    middles = {name: statistics.median(seconds) for name, seconds in found.items()}
    total = sum(middles.values())
    for name, seconds in middles.items():
        yield {"what": f"section: {name}", "ms": 1000 * seconds, "share": f"{seconds / total:.0%}"}
    yield {
        "what": f"all sections, {trainer.config.loader.num_workers} workers",
        "ms": 1000 * total,
        "images_per_second": trainer.options.batch_size / total,
    }


class _Marks:
    """Hooks that record when each section of :meth:`Trainer.train_step` ends."""

    def __init__(self, trainer: Trainer) -> None:
        self.device = trainer.processes.device
        self.marks: list[tuple[str, float]] = []
        mark = self._mark
        self._hooks = [
            trainer.model.register_forward_pre_hook(lambda *_: mark("to device")),
            trainer.model.register_forward_hook(lambda *_: mark("forward")),
            trainer.criterion.register_forward_hook(lambda *_: mark("criterion")),
            trainer.optimizer.register_step_pre_hook(lambda *_: mark("backward and its norm")),
            trainer.optimizer.register_step_post_hook(lambda *_: mark("optimizer")),
        ]

    def _mark(self, name: str) -> None:
        synchronize(self.device)
        self.marks.append((name, perf_counter()))

    def begin(self) -> None:
        """Start a step."""
        self.marks = []
        self._mark("start")

    def end(self) -> dict[str, float]:
        """End the step; return the seconds of each section."""
        self._mark("rest")
        pairs = itertools.pairwise(self.marks)
        return {name: after - before for (_, before), (name, after) in pairs}

    def remove(self) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()
