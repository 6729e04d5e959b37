"""The command ``segtrain evaluate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from segtrain.assembly.evaluation import build_evaluation
from segtrain.engine.distributed import processes
from segtrain.engine.results import scores_table
from segtrain.files import write_text
from segtrain.schema.sections import EvaluateConfig
from segtrain.terminal import console, logger


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Score a checkpoint, print the scores as a table, and return them."""
    with processes(config.device) as here:
        evaluator, model, state = build_evaluation(config, here)
        scored = evaluator.evaluate(model)
        evaluation = scored.evaluation
        weights = "moving_average" if state.get("ema") else "model"
        result = scored.results(step=state["step"], split=config.split, scored_weights=weights)
        if here.is_main:
            title = f"{config.split} split, checkpoint of step {state['step']}"
            average = ", moving average of the weights" if state.get("ema") else ""
            console.print(scores_table(evaluation, title + average))
            if config.output is not None:
                output = Path(config.output)
                output.parent.mkdir(parents=True, exist_ok=True)
                write_text(output, json.dumps(result, indent=2) + "\n")
                evaluation.save_per_image(output.with_suffix(".npz"))
            logger.info(
                "mIoU %.4f, pixel accuracy %.4f", evaluation.miou, evaluation.pixel_accuracy
            )
        return result
