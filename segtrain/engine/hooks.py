"""Hooks: code that watches a run, and may stop it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from segtrain.errors import ConfigError
from segtrain.metrics import larger_is_better
from segtrain.schema.ranges import Range
from segtrain.schema.registry import Registry
from segtrain.terminal import logger


@dataclass
class Watched:
    """A run as its hooks see it.

    Attributes:
        run_dir: The run directory.
        total_steps: Optimizer steps of the whole run.
        step: Optimizer steps done.
        stopped_by: Why a hook stopped the run; None: none did.
    """

    run_dir: Path
    total_steps: int
    step: int = 0
    stopped_by: str | None = None

    def stop(self, reason: str) -> None:
        """End the run after this step, as if it had had no more steps."""
        self.stopped_by = self.stopped_by or reason


class Hook:
    """Base class of hooks; every method may be left out.

    Hooks are called in the main process, one after the other. They see numbers and files, and
    change neither weights nor data. Register a subclass with ``segtrain.register_hook("name")``.
    Its constructor takes keyword arguments, which are checked as those of every registered part.

    Example:
        >>> import json
        >>> class ToFile(Hook):
        ...     def __init__(self, *, path: str) -> None:
        ...         self.path = path
        ...
        ...     def on_evaluation(self, run: Watched, result: Mapping[str, Any]) -> None:
        ...         with open(self.path, "a") as file:
        ...             print(json.dumps({"step": run.step, "mIoU": result["mIoU"]}), file=file)
    """

    def on_start(self, run: Watched) -> None:
        """Called before the first step, also of a run that resumes."""

    def on_step(self, run: Watched, values: Mapping[str, float] | None) -> None:
        """Called after each step.

        Args:
            run: The run.
            values: The values of the line in ``metrics.jsonl``, such as ``loss`` and ``lr``; None
                at steps that write none.
        """

    def on_evaluation(self, run: Watched, result: Mapping[str, Any]) -> None:
        """Called after each evaluation, with the values that ``metrics.jsonl`` gets."""

    def on_checkpoint(self, run: Watched, path: Path) -> None:
        """Called after ``last.pt`` was saved."""

    def on_end(self, run: Watched, result: Mapping[str, Any] | None) -> None:
        """Called after the last step, with the final scores; None: the run is to be resumed."""

    def state_dict(self) -> dict[str, Any]:
        """Numbers and texts that a resumed run needs; they are stored in checkpoints."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""


HOOKS: Registry[Hook] = Registry("hook")


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


class Hooks:
    """The hooks of a run.

    Args:
        specs: Names, or mappings with a name and parameters; empty where none are called.
    """

    def __init__(self, specs: Sequence[Any]) -> None:
        self.hooks = [
            HOOKS.build(spec, where=f"hooks[{index}]") for index, spec in enumerate(specs)
        ]
        self.run: Watched | None = None

    def start(self, run: Watched) -> None:
        """Begin to watch a run."""
        self.run = run
        self.call("on_start", run.step)

    def call(self, method: str, step: int, *values: Any) -> None:
        """Call a method of each hook."""
        if self.run is None:
            return
        self.run.step = step
        for hook in self.hooks:
            getattr(hook, method)(self.run, *values)

    @property
    def wants_to_stop(self) -> bool:
        """Whether a hook stopped the run."""
        return self.run is not None and self.run.stopped_by is not None

    def state(self) -> list[dict[str, Any]]:
        """The states of the hooks, by their class."""
        return [{"hook": type(one).__name__, "state": one.state_dict()} for one in self.hooks]

    def load(self, saved: Sequence[Mapping[str, Any]]) -> None:
        """Restore the states of hooks that the checkpoint has, too."""
        known = {str(one["hook"]): one["state"] for one in saved}
        for hook in self.hooks:
            name = type(hook).__name__
            if name in known:
                hook.load_state_dict(known[name])
            elif hook.state_dict():
                logger.info("the checkpoint has no state of the hook %s, which starts anew", name)
