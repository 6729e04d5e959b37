"""Scores as plain values, and as a table."""

from __future__ import annotations

import math
from typing import Any

from rich.markup import escape
from rich.table import Table

from segtrain.metrics import Evaluation, MetricScore
from segtrain.terminal import percent


def results(evaluation: Evaluation, **extra: Any) -> dict[str, Any]:
    """Convert scores for JSON; null where a score is undefined."""
    names = evaluation.class_names
    return {
        "mIoU": _defined(evaluation.miou),
        "pixel_accuracy": _defined(evaluation.pixel_accuracy),
        "mean_accuracy": _defined(evaluation.mean_accuracy),
        "per_class_iou": {
            name: _defined(value) for name, value in zip(names, evaluation.iou, strict=True)
        },
        "scores": evaluation.to_dict(),
        **extra,
    }


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def scores_table(evaluation: Evaluation, title: str) -> Table:
    """Return a table of the metrics of each class, and of their means."""
    table = Table(title=title, title_justify="left")
    table.add_column("class")
    by_class = {
        name: score
        for name, score in evaluation.scores.items()
        if any(not math.isnan(value) for value in score.per_class)
    }
    for name in [*by_class, "share of pixels"]:
        table.add_column(name, justify="right")
    total = max(evaluation.valid, 1)
    for index, name in enumerate(evaluation.class_names):
        values = [_text(score, score.per_class[index]) for score in by_class.values()]
        share = percent(evaluation.pixels[index] / total, decimals=2)
        table.add_row(escape(name), *values, share)
    table.add_section()
    means = [_text(score, score.mean) for score in by_class.values()]
    table.add_row("mean over classes", *means, "")
    for name, score in evaluation.scores.items():
        if name not in by_class:
            table.add_row(name.replace("_", " "), _text(score, score.mean))
    undefined = sum(math.isnan(value) for value in evaluation.iou)
    if undefined:
        table.caption = (
            f"n/a: undefined, and not part of the mean; {undefined} of {len(evaluation.iou)}"
            " classes are in neither prediction nor target"
        )
    return table


def _text(score: MetricScore, value: float) -> str:
    """A value as a percentage if it is a share, else as a number."""
    if score.is_share:
        return percent(value, decimals=2)
    return "n/a" if math.isnan(value) else f"{value:.4g}"


def without_scores() -> dict[str, Any]:
    """The scores of a run that has none, because it did not finish."""
    return {
        "mIoU": None,
        "pixel_accuracy": None,
        "mean_accuracy": None,
        "per_class_iou": {},
        "scores": {},
    }
