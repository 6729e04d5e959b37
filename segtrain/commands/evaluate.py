"""The command ``segtrain evaluate``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import nn

from segtrain.assembly.evaluation import build_evaluation
from segtrain.assembly.thresholds import described, names_of_logits, store_thresholds
from segtrain.engine import Evaluator
from segtrain.engine.checkpoint import State, find_checkpoint
from segtrain.engine.distributed import processes
from segtrain.engine.results import (
    images_table,
    scores_table,
    threshold_curves,
    threshold_table,
    worst_and_best,
)
from segtrain.files import write_text
from segtrain.metrics import Evaluation
from segtrain.metrics.evaluation import split_choice
from segtrain.schema.sections import SWEEP, EvaluateConfig
from segtrain.terminal import console, logger


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Score a checkpoint, print the scores as a table, and return them."""
    with processes(config.device) as here:
        evaluator, model, state = build_evaluation(config, here)
        extra = _thresholds(config, evaluator, model, state)
        scored = evaluator.evaluate(model)
        evaluation = scored.evaluation
        weights = "moving_average" if state.get("ema") else "model"
        choice = _listed_score(str(state["config"]["trainer"]["best"]), evaluation)
        images = worst_and_best(evaluation, choice, config.list_images)
        extra |= {"images": images} if config.list_images else {}
        result = scored.results(
            step=state["step"], split=config.split, scored_weights=weights, **extra
        )
        result |= {"checkpoint": config.checkpoint, "class_map": config.class_map}
        views = evaluator.apply(model)
        result |= {"evaluation": asdict(views.views), "precision": views.precision}
        if here.is_main:
            title = f"{config.split} split, checkpoint of step {state['step']}"
            average = ", moving average of the weights" if state.get("ema") else ""
            console.print(scores_table(evaluation, title + average))
            if config.list_images:
                console.print(images_table(evaluation, images))
            _write(config, evaluation, result)
            logger.info(
                "mIoU %.4f, pixel accuracy %.4f", evaluation.miou, evaluation.pixel_accuracy
            )
        return result


def _listed_score(best: str, evaluation: Evaluation) -> str:
    """The score by which images are listed: `trainer.best` of the training if it is computed."""
    name, class_name = split_choice(best)
    is_known = class_name is None or class_name in evaluation.class_names
    return best if name in evaluation.per_image and is_known else "mIoU"


def _write(config: EvaluateConfig, evaluation: Evaluation, result: Mapping[str, Any]) -> None:
    if config.output is not None:
        output = Path(config.output)
        output.parent.mkdir(parents=True, exist_ok=True)
        write_text(output, json.dumps(result, indent=2) + "\n")
        evaluation.save_per_image(output.with_suffix(".npz"))


def _thresholds(
    config: EvaluateConfig, evaluator: Evaluator, model: nn.Module, state: State
) -> dict[str, Any]:
    """Choose the thresholds by a sweep if that is asked for; return them for JSON, by class."""
    extra: dict[str, Any] = {}
    names, is_main = names_of_logits(state["metadata"]), evaluator.processes.is_main
    if config.thresholds == SWEEP:
        scores = evaluator.threshold_scores(model)
        evaluator.scoring = replace(evaluator.scoring, thresholds=scores.chosen)
        extra["threshold_sweep"] = threshold_curves(scores, names)
        if is_main:
            path = find_checkpoint(config.checkpoint)
            store_thresholds(path, scores.chosen, state["step"])
            console.print(threshold_table(scores, names))
            logger.info("thresholds stored in %s: %s", path, described(scores.chosen, names))
    thresholds = evaluator.scoring.thresholds
    if thresholds is None:
        return extra
    if is_main and config.thresholds is None:
        logger.info(
            "thresholds of the checkpoint, chosen on its val split: %s; thresholds=0.5 overrides"
            " them",
            described(thresholds, names),
        )
    return {"thresholds": dict(zip(names, thresholds, strict=True)), **extra}
