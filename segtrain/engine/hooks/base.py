"""What a hook is: code that watches a run, and may stop it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from segtrain.schema.registry import Registry


@dataclass
class Watched:
    """A run as its hooks see it.

    Attributes:
        run_dir: The run directory.
        total_steps: Optimizer steps of the whole run.
        step: Optimizer steps done.
        name: The name of the run.
        config: The whole configuration, as plain values.
        device: The device of the model.
        stopped_by: Why a hook stopped the run; None: none did.
        error: The error that ends the run, such as an interruption; None: there is none.
    """

    run_dir: Path
    total_steps: int
    step: int = 0
    name: str = "run"
    config: Mapping[str, Any] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    stopped_by: str | None = None
    error: BaseException | None = None

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

    def on_phase(self, run: Watched, phase: str) -> None:
        """Called when a part of a step begins, which ends the part before.

        Args:
            run: The run.
            phase: ``data``, ``transfer``, ``forward``, ``loss``, ``backward``, ``step`` (of the
                optimizer) or ``other``.
        """

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
        """Called at the end of the run, with the final scores.

        Args:
            run: The run; its `error` is what ended it early.
            result: The final scores; None: the run was stopped or failed, and may be resumed.
        """

    def state_dict(self) -> dict[str, Any]:
        """Numbers and texts that a resumed run needs; they are stored in checkpoints."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""


HOOKS: Registry[Hook] = Registry("hook")
