"""Scores as plain values, and as a table."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from segtrain.errors import CheckpointError, one_line
from segtrain.metrics import Evaluation, MetricScore, score_in
from segtrain.metrics.evaluation import defined
from segtrain.terminal import percent

_COLUMNS = 5  # metrics side by side in a table of 80 columns


def results(evaluation: Evaluation, **extra: Any) -> dict[str, Any]:
    """Convert scores for JSON; null where a score is undefined."""
    names = evaluation.class_names
    return {
        "mIoU": defined(evaluation.miou),
        "pixel_accuracy": defined(evaluation.pixel_accuracy),
        "mean_accuracy": defined(evaluation.mean_accuracy),
        "per_class_iou": {
            name: defined(value) for name, value in zip(names, evaluation.iou, strict=True)
        },
        "scores": evaluation.to_dict(),
        **({"predicted_only": others} if (others := dict(evaluation.predicted_only)) else {}),
        **extra,
    }


def scores_table(evaluation: Evaluation, title: str) -> Group:
    """Return tables of the metrics of each class and their means, and the other metrics below."""
    by_class = [
        (name, score)
        for name, score in evaluation.scores.items()
        if any(not math.isnan(value) for value in score.per_class)
    ]
    parts = [by_class[start : start + _COLUMNS] for start in range(0, len(by_class), _COLUMNS)]
    shown: list[Any] = [_class_table(evaluation, dict(part)) for part in parts or [[]]]
    shown[0].title, shown[0].title_justify = title, "left"
    overall = [
        f"{name} {_text(score, score.mean)}"
        for name, score in evaluation.scores.items()
        if not score.per_class
    ]
    undefined = sum(math.isnan(value) for value in evaluation.iou)
    if undefined:
        overall.append(
            f"n/a: undefined and not part of the mean; {undefined} of {len(evaluation.iou)} classes"
            " are in neither prediction nor target"
        )
    for name, pixels in evaluation.predicted_only.items():
        share = percent(pixels / max(evaluation.valid, 1), decimals=2)
        overall.append(
            f"{name}: not a scored class; predicted for {share} of the pixels, all wrong"
        )
    return Group(*shown, *map(escape, overall))


def _class_table(evaluation: Evaluation, scores: dict[str, MetricScore]) -> Table:
    table = Table("class", show_footer=True)
    table.columns[0].footer = "mean"
    for name, score in scores.items():
        table.add_column(name, _text(score, score.mean), justify="right", no_wrap=True)
    table.add_column("pixels", justify="right", no_wrap=True)
    total = max(evaluation.valid, 1)
    for index, name in enumerate(evaluation.class_names):
        values = [_text(score, score.per_class[index]) for score in scores.values()]
        table.add_row(escape(name), *values, percent(evaluation.pixels[index] / total, decimals=2))
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


def read_results(run_dir: Path) -> dict[str, Any] | None:
    """Read ``results.json``; None if the run has none yet.

    Raises:
        CheckpointError: When the file is not valid JSON.
    """
    path = run_dir / "results.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {one_line(error)}") from error
    return content


def final_score(run_dir: Path, choice: str) -> float | None:
    """The score of a run on the validation split at its last step; None if it has none."""
    result = read_results(run_dir) or {}
    return score_in(result.get("val", result), choice)
