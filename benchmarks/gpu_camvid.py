"""Part 4 of ``benchmarks/gpu.py``: CamVid from scratch in four minutes.

``CAMVID_ROOT`` is a directory with ``images/{train,val}`` and ``masks/{train,val}``. The one-cycle
schedule needs the number of steps in advance, so it is computed from the measured speed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import yaml
from gpu_checks import Skipped, opened
from gpu_parts import Item, Row, Setting, synchronize, timed

from segtrain.engine import Trainer
from segtrain.engine.signals import Interrupted
from segtrain.files import config_dir

TITLE = "CamVid from scratch: hrnet_w18, AdamW 1.2e-3, one-cycle, crops of 288 x 384, bfloat16"
COLUMNS = {
    "what": "what",
    "steps": "steps",
    "epochs": "epochs",
    "seconds": "s",
    "images_per_second": "images/s",
    "miou": "val mIoU",
    "best": "best",
}
MINUTES = 4.0
RESERVE = 25.0  # seconds for the start of the run and for slower steps than measured
WARM_UP, MEASURED = 20, 60  # steps
MOST_STEPS = 20_000
EVALUATIONS = 4


def items(setting: Setting) -> dict[str, Item]:
    """Return the training run."""
    del setting
    return {"camvid": train}


def train(setting: Setting) -> Iterator[Row]:
    """Measure the speed, then train for the time left, at most four minutes."""
    root = os.environ.get("CAMVID_ROOT")
    if not root:
        raise Skipped("CAMVID_ROOT is not set; it is the directory that has images/ and masks/")
    with tempfile.TemporaryDirectory() as folder:
        config = camvid_config(root, Path(folder) / "speed", MOST_STEPS, setting)
        with opened(config) as trainer:
            step, evaluation = _speed(trainer, setting)
        batch = config["trainer"]["batch_size"]
        yield {
            "what": "a step, and one evaluation",
            "steps": 1,
            "seconds": step,
            "images_per_second": batch / step,
        }
        steps = num_steps(step, evaluation, setting)
        config = camvid_config(root, Path(folder) / "run", steps, setting)
        start = monotonic()
        with opened(config) as trainer:
            yield _trained(trainer, start)


def num_steps(step: float, evaluation: float, setting: Setting) -> int:
    """Return the number of steps that fit, with evaluations, in four minutes and the time left."""
    if setting.tiny:
        return 2
    seconds = min(60 * MINUTES, setting.left - RESERVE) - EVALUATIONS * evaluation
    return int(min(max(seconds / step, 10), MOST_STEPS))


def camvid_config(root: str, run_dir: Path, steps: int, setting: Setting) -> dict[str, Any]:
    """Return the experiment ``camvid_cpu`` with a larger model and batch, as plain values."""
    experiment = _yaml("experiment/camvid_cpu")
    evaluation = {**experiment["evaluation"], "batch_size": 8}
    loader = {"num_workers": min(12, os.cpu_count() or 1), "cache": "decoded"}
    trainer = {
        "max_steps": steps,
        "batch_size": 16,
        "precision": "bf16",
        "channels_last": True,
        "evaluate_every": -(-steps // EVALUATIONS),
        "log_every": 50,
        "log_images": 0,
        "device": setting.device.type,
    }
    augmentation = experiment["augmentation"]
    if setting.tiny:
        augmentation = {**augmentation, "crop_size": [64, 64]}
        evaluation |= {"size": [64, 64]}
        loader = {"num_workers": 0}
        trainer |= {"batch_size": 2}
    return {
        "dataset": {**_yaml("dataset/camvid"), "root": root},
        "model": {"name": "hrnet_w18_small_v1" if setting.tiny else "hrnet_w18"},
        "loss": {**_yaml("loss/sum"), **experiment["loss"]},
        "optimizer": {**_yaml("optimizer/adamw"), **experiment["optimizer"]},
        "scheduler": {**_yaml("scheduler/one_cycle"), **experiment["scheduler"]},
        "augmentation": augmentation,
        "evaluation": evaluation,
        "loader": loader,
        "trainer": trainer,
        "run_dir": str(run_dir),
    }


def _yaml(name: str) -> dict[str, Any]:
    """Read a file of ``configs/``, without its Hydra defaults list."""
    text = (config_dir() / f"{name}.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    content.pop("defaults", None)
    return content


def _speed(trainer: Trainer, setting: Setting) -> tuple[float, float]:
    """Return the seconds of a training step, including data loading, and of an evaluation."""
    stream = trainer.batches(0)
    warm_up, measured = (1, 1) if setting.tiny else (WARM_UP, MEASURED)
    for _ in range(warm_up):
        trainer.train_step([next(stream)])
    synchronize(setting.device)
    start = monotonic()
    for _ in range(measured):
        trainer.train_step([next(stream)])
    synchronize(setting.device)
    step = (monotonic() - start) / measured
    return step, timed(lambda: trainer.evaluator.evaluate(trainer.model), setting.device)


def _trained(trainer: Trainer, start: float) -> Row:
    """Train to the end; after SIGTERM return the best score so far."""
    try:
        result = trainer.fit()
    except Interrupted:
        result = None
    batch = trainer.options.batch_size
    seconds = monotonic() - start
    row: Row = {
        "what": "the run" if result else "the run, stopped at the time cap",
        "steps": trainer.step,
        "epochs": round(trainer.step / trainer.batches.steps_per_epoch, 1),
        "seconds": seconds,
        "images_per_second": trainer.step * batch / seconds,
        "best": trainer.best.get("mIoU"),
    }
    return {**row, "miou": result["mIoU"]} if result else {**row, "state": "capped"}
