"""The curves of a run by their names, the same in TensorBoard and in every logger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OF_STEP = ("loss", "lr", "grad_norm", "images_per_second", "skipped_steps")


def step_curves(values: Mapping[str, Any]) -> dict[str, float]:
    """The values of a training step; parts of the loss have names of their own.

    Example:
        >>> step_curves({"loss": 0.7, "lr": 0.01, "out.dice": 0.2})
        {'train/loss': 0.7, 'train/lr': 0.01, 'train_parts/out.dice': 0.2}
    """
    return _defined(
        {f"train{'' if key in _OF_STEP else '_parts'}/{key}": values[key] for key in values}
    )


def evaluation_curves(result: Mapping[str, Any]) -> dict[str, float]:
    """The scores of an evaluation: the means of the metrics, and the values of the classes.

    Example:
        >>> iou = {"mean": 0.5, "per_class": {"road": 0.8, "pole": 0.2}}
        >>> evaluation_curves({"mIoU": 0.5, "pixel_accuracy": 0.9, "scores": {"iou": iou}})
        {'val/mIoU': 0.5, 'val/pixel_accuracy': 0.9, 'val/iou': 0.5, 'val_iou/road': 0.8,
         'val_iou/pole': 0.2}
    """
    curves = {f"val/{key}": result[key] for key in ("mIoU", "pixel_accuracy")}
    curves["val/loss"] = result.get("val_loss")
    for metric, score in result["scores"].items():
        curves[f"val/{metric}"] = score["mean"]
        for name, value in score.get("per_class", {}).items():
            curves[f"val_{metric}/{name}"] = value
    return _defined(curves)


def final_curves(result: Mapping[str, Any]) -> dict[str, float]:
    """The final scores, each a curve of one point.

    Example:
        >>> final_curves({"mIoU": 0.5, "scores": {"iou": {"mean": 0.5}, "dice": {"mean": None}}})
        {'final/iou': 0.5, 'final/mIoU': 0.5}
    """
    scores = {f"final/{key}": score["mean"] for key, score in result["scores"].items()}
    return _defined({**scores, "final/mIoU": result["mIoU"]})


def _defined(curves: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in curves.items() if value is not None}
