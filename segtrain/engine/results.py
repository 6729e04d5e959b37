"""Scores as plain values, and as a table."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Group
from rich.table import Table
from torch import Tensor

from segtrain.errors import CheckpointError, one_line
from segtrain.metrics import Evaluation, MetricScore, score_in
from segtrain.metrics.evaluation import defined, split_choice
from segtrain.metrics.image_scores import image_scores
from segtrain.metrics.thresholds import THRESHOLDS, ThresholdScores
from segtrain.terminal import cell, percent

_COLUMNS = 5  # metrics side by side in a table of 80 columns
_SHOWN_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


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
        found = (
            f"predicted for {share} of the pixels, which are errors" if pixels else "not predicted"
        )
        overall.append(f"{name}: not a class of the target; {found}")
    return Group(*shown, *map(cell, overall))


def _class_table(evaluation: Evaluation, scores: dict[str, MetricScore]) -> Table:
    table = Table("class", show_footer=True)
    table.columns[0].footer = "mean"
    for name, score in scores.items():
        table.add_column(name, _text(score, score.mean), justify="right", no_wrap=True)
    table.add_column("pixels", justify="right", no_wrap=True)
    total = max(evaluation.valid, 1)
    for index, name in enumerate(evaluation.class_names):
        values = [_text(score, score.per_class[index]) for score in scores.values()]
        table.add_row(cell(name), *values, percent(evaluation.pixels[index] / total, decimals=2))
    return table


def _text(score: MetricScore, value: float) -> str:
    """A value as a percentage if it is a share, else as a number."""
    if score.is_share:
        return percent(value, decimals=2)
    return "n/a" if math.isnan(value) else f"{value:.4g}"


def worst_and_best(evaluation: Evaluation, choice: str, number: int) -> dict[str, Any]:
    """Return the images with the worst and with the best score `choice`, for JSON.

    Args:
        evaluation: The scores.
        choice: ``mIoU``, a metric such as ``dice``, or its class, ``iou[pole]``.
        number: The number of images in each list; no image is in both.
    """
    images = [
        {"name": image.name, "value": image.value, "class": image.class_name}
        for image in image_scores(evaluation, choice)
    ]
    best = images[:number]
    worst = images[max(len(images) - number, len(best)) :][::-1]
    return {"score": choice, "worst": worst, "best": best}


def images_table(evaluation: Evaluation, listed: Mapping[str, Any]) -> Table:
    """Return a table of the images that :func:`worst_and_best` lists."""
    score = evaluation.scores.get(split_choice(listed["score"])[0])
    is_share = score is None or score.is_share
    table = Table("", "image", title="worst and best images", title_justify="left")
    table.add_column(cell(listed["score"]), justify="right", no_wrap=True)
    table.add_column("costs most")
    for kind in ("worst", "best"):
        for row, image in enumerate(listed[kind]):
            value = image["value"]
            shown = percent(value, decimals=2) if is_share else f"{value:.4g}"
            label = "" if row else kind
            table.add_row(label, cell(image["name"]), shown, cell(image["class"]))
        table.add_section()
    return table


def threshold_table(scores: ThresholdScores, names: Sequence[str]) -> Group:
    """Return tables of the IoU of each class at some thresholds, and at the chosen one."""
    parts = [
        _threshold_part(scores, names, range(start, min(start + _COLUMNS, len(names))))
        for start in range(0, len(names), _COLUMNS)
    ]
    best = [
        f"{cell(name)}: threshold {at:g}, Dice {percent(float(dice), decimals=2)}"
        for name, at, dice in zip(
            names, scores.chosen, _at_chosen(scores.dice, scores), strict=True
        )
    ]
    note = "The threshold of the largest IoU is that of the largest Dice = 2 IoU / (1 + IoU)."
    return Group(*parts, *best, note)


def _threshold_part(scores: ThresholdScores, names: Sequence[str], logits: range) -> Table:
    table = Table("threshold", show_footer=True, title="IoU", title_justify="left")
    table.columns[0].footer = "best"
    best = _at_chosen(scores.iou, scores)
    for logit in logits:
        chosen = f"{percent(float(best[logit]), decimals=2)} at {scores.chosen[logit]:g}"
        table.add_column(cell(names[logit]), chosen, justify="right", no_wrap=True)
    for shown in _SHOWN_THRESHOLDS:
        place = THRESHOLDS.index(shown)
        values = [percent(float(scores.iou[logit, place]), decimals=2) for logit in logits]
        table.add_row(f"{shown:g}", *values)
    return table


def _at_chosen(values: Tensor, scores: ThresholdScores) -> Tensor:
    """The value of each logit ``(K,)`` at its chosen threshold."""
    places = torch.tensor([THRESHOLDS.index(at) for at in scores.chosen], device=values.device)
    return values.gather(1, places[:, None])[:, 0]


def threshold_curves(scores: ThresholdScores, names: Sequence[str]) -> dict[str, Any]:
    """Convert the scores at thresholds 0.01, 0.02, ... for JSON; null where one is undefined."""
    hundredths = slice(9, None, 10)
    curves = zip(names, scores.iou.tolist(), scores.dice.tolist(), strict=True)
    return {
        "thresholds": list(THRESHOLDS[hundredths]),
        "per_class": {
            name: {
                "iou": [defined(value) for value in iou[hundredths]],
                "dice": [defined(value) for value in dice[hundredths]],
            }
            for name, iou, dice in curves
        },
    }


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
