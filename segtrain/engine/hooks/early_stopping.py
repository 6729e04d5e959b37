"""A hook that stops a run whose score no longer becomes better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from segtrain.engine.hooks.base import HOOKS, Hook, Watched
from segtrain.errors import ConfigError
from segtrain.metrics import larger_is_better
from segtrain.schema.ranges import Range


@HOOKS.register("early_stopping")
class EarlyStopping(Hook):
    """Stop a run whose validation score no longer becomes better.

    Args:
        score: A metric of `evaluation.metrics`, its value for a class such as ``iou[pole]``,
            ``mIoU``, ``pixel_accuracy`` or ``val_loss``.
        patience: Evaluations without a better score after which the run is stopped.
        min_delta: How much better a score must be.
    """

    def __init__(
        self,
        *,
        score: str = "mIoU",
        patience: Annotated[int, Range(1)] = 5,
        min_delta: Annotated[float, Range(0)] = 0.0,
    ) -> None:
        self.score, self.patience, self.min_delta = score, patience, min_delta
        self.best = math.nan
        self.waited = 0

    def on_start(self, run: Watched) -> None:
        self._stop_if_due(run)

    def on_evaluation(self, run: Watched, result: Mapping[str, Any]) -> None:
        value = score_of(result, self.score)
        if self._is_better(value):
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        self._stop_if_due(run)

    def _is_better(self, value: float) -> bool:
        if math.isnan(value) or math.isnan(self.best):
            return not math.isnan(value)
        gain = value - self.best
        if self.score == "val_loss" or not larger_is_better(self.score):
            gain = -gain
        return gain > self.min_delta

    def _stop_if_due(self, run: Watched) -> None:
        if self.waited >= self.patience:
            run.stop(
                f"early_stopping: {self.score} was not better than {self.best:.4f} for"
                f" {self.waited} evaluations"
            )

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best, self.waited = float(state["best"]), int(state["waited"])


def score_of(result: Mapping[str, Any], name: str) -> float:
    """The score of an evaluation with this name; NaN if it is undefined.

    Raises:
        ConfigError: When the evaluation has no such score.
    """
    metric, _, class_name = name.removesuffix("]").partition("[")
    scores = result.get("scores", {})
    if name in ("mIoU", "pixel_accuracy", "val_loss") and name in result:
        value = result[name]
    elif metric in scores and not class_name:
        value = scores[metric]["mean"]
    elif class_name and class_name in scores.get(metric, {}).get("per_class", {}):
        value = scores[metric]["per_class"][class_name]
    else:
        known = ["mIoU", "pixel_accuracy", *(["val_loss"] if "val_loss" in result else []), *scores]
        raise ConfigError(
            f"early_stopping.score={name}: the evaluation has no such score. Known:"
            f" {', '.join(known)}"
        )
    return math.nan if value is None else float(value)
