"""Run directories that are written, not trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

CLASSES = ("background", "crack")


def counts(iou: Sequence[float], pixels: int = 1000) -> dict[str, np.ndarray]:
    """Counts ``(images, 2)`` of images whose crack, a fifth of the pixels, has about this IoU."""
    crack = pixels // 5
    right = np.array([round(crack * value) for value in iou])
    wrong = crack - right  # missed only, so that the IoU is right / crack
    background = np.full(len(right), pixels - crack)
    return {
        "tp": np.stack([background, right], 1),
        "fp": np.stack([wrong, 0 * wrong], 1),
        "fn": np.stack([0 * wrong, wrong], 1),
        "tn": np.stack([right, background], 1),
    }


def write_run(
    path: Path,
    iou: Sequence[float],
    *,
    loss: str = "cross_entropy",
    seed: int = 0,
    words: Sequence[str] = (),
    config: Mapping[str, Any] | None = None,
    names: Sequence[str] | None = None,
    betti: Sequence[float] | None = None,
    curve: Mapping[int, float] | None = None,
    state: str = "finished",
    **results: Any,
) -> Path:
    """Write a run whose images have the given IoU of class 1; return its directory."""
    path.mkdir(parents=True)
    found = counts(iou)
    total = {key: value.sum(0) for key, value in found.items()}
    per_class = total["tp"] / (total["tp"] + total["fp"] + total["fn"])
    scores = {
        "iou": {"mean": per_class.mean(), "per_class": dict(zip(CLASSES, per_class, strict=True))}
    }
    arrays: dict[str, np.ndarray] = dict(found)
    if betti is not None:
        arrays["betti0_error"] = np.stack([np.zeros(len(iou)), np.array(betti)], 1)
        mean = arrays["betti0_error"].mean(0)
        scores["betti0_error"] = {
            "mean": mean.mean(),
            "per_class": dict(zip(CLASSES, mean, strict=True)),
        }
    np.savez(
        path / "per_image.npz",
        names=np.array(names or [f"{index}.png" for index in range(len(iou))]),
        classes=np.array(CLASSES),
        **arrays,
    )
    whole = {
        "seed": seed,
        "loss": {"name": loss},
        "optimizer": {"name": "adamw", "lr": 0.003},
        "dataset": {"name": "folder"},
        "trainer": {"max_steps": 300, "device": "auto"},
        "loader": {"num_workers": seed},
        "evaluation": {"classes": None},
        "run_dir": str(path),
        **(config or {}),
    }
    (path / "config.yaml").write_text(yaml.safe_dump(whole))
    content = {
        "mIoU": per_class.mean(),
        "per_class_iou": dict(zip(CLASSES, per_class, strict=True)),
        "scores": scores,
        "step": 300,
        "split": "val",
        "seconds_per_step": 0.1,
        "peak_memory_bytes": 1 << 30,
        "scored_weights": "model",
        "state": state,
        "overrides": [f"loss={loss}", f"seed={seed}", *words],
        "preset": loss,
        "dataset_hash": {"train": "a" * 64, "val": "b" * 64},
        "versions": {"torch": "2.14", "segtrain": "1"},
        **results,
    }
    (path / "results.json").write_text(json.dumps(content))
    (path / "status.json").write_text(json.dumps({"state": state, "exit_code": 0, "step": 300}))
    lines = [{"step": step, "evaluation": {"mIoU": value}} for step, value in (curve or {}).items()]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def write_group(
    folder: Path, name: str, mean: float, seeds: Sequence[int] = (0, 1, 2), **more: Any
) -> None:
    """Write a run per seed, whose images have an IoU of about `mean`."""
    for seed in seeds:
        generator = np.random.default_rng(100 * seed + len(name))
        hard = np.random.default_rng(0).normal(0, 0.1, 12)  # the same images are hard for all
        iou = np.clip(mean + hard + generator.normal(0, 0.01, 12), 0, 1)
        write_run(folder / f"{name}-{seed}", list(iou), loss=name, seed=seed, **more)
