"""Scores as plain values, and as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from segtrain.metrics import Scores
from segtrain.terminal import percent


def results(scores: Scores, class_names: Sequence[str], **extra: Any) -> dict[str, Any]:
    """Convert scores for JSON: IoU by class name, null where undefined."""
    return {
        "mIoU": _defined(scores.miou),
        "pixel_accuracy": _defined(scores.pixel_accuracy),
        "mean_accuracy": _defined(scores.mean_accuracy),
        "per_class_iou": {
            name: _defined(value) for name, value in zip(class_names, scores.iou, strict=True)
        },
        **extra,
    }


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def scores_table(scores: Scores, class_names: Sequence[str], title: str) -> Table:
    """Return a table of the IoU of each class and the means."""
    table = Table(title=title, title_justify="left")
    for column, justify in (("class", "left"), ("IoU", "right"), ("share of pixels", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    total = max(scores.valid, 1)
    for name, value, pixels in zip(class_names, scores.iou, scores.pixels, strict=True):
        table.add_row(escape(name), percent(value, decimals=2), percent(pixels / total, decimals=2))
    table.add_section()
    undefined = sum(math.isnan(value) for value in scores.iou)
    note = f" of {len(scores.iou) - undefined} classes" if undefined else ""
    table.add_row(f"mean IoU{note}", percent(scores.miou, decimals=2), "")
    table.add_row("pixel accuracy", percent(scores.pixel_accuracy, decimals=2), "")
    table.add_row("mean accuracy", percent(scores.mean_accuracy, decimals=2), "")
    return table
