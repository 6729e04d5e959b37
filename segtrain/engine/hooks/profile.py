"""A hook that shows where the time of a training step goes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from rich.table import Table

from segtrain.engine.hooks.base import HOOKS, Hook, Watched
from segtrain.engine.hooks.phases import PhaseTimer, PhaseTrace
from segtrain.engine.logs import Logs
from segtrain.files import atomic_write, write_text
from segtrain.schema.ranges import Range
from segtrain.terminal import console, logger, percent

_TRACED = 5  # steps of the trace, which is large


@HOOKS.register("profile")
class Profile(Hook):
    """Measure where the time of a training step goes, and record a trace.

    First some steps are timed. On a GPU each phase then waits until the device is idle, so that its
    time is its own. After them :mod:`torch.profiler` records a trace of 5 steps, without waiting.

    Args:
        first_step: The first step that is timed, counted from the start of the process; those
            before it warm up.
        steps: The number of steps that are timed.
        trace: Record the trace, for Perfetto or ``chrome://tracing``.
    """

    def __init__(
        self,
        *,
        first_step: Annotated[int, Range(1)] = 10,
        steps: Annotated[int, Range(1)] = 20,
        trace: bool = True,
    ) -> None:
        self.timed = range(first_step, first_step + steps)
        self.traced = range(self.timed.stop, self.timed.stop + (_TRACED if trace else 0))
        self._next = 1  # the next step, counted from the start of the process
        self._timer: PhaseTimer | None = None
        self._trace: PhaseTrace | None = None
        self._found: list[dict[str, float]] = []

    def on_phase(self, run: Watched, phase: str) -> None:  # noqa: ARG002
        if self._timer is not None:
            self._timer.begin(phase)
        elif self._trace is not None:
            self._trace.begin(phase)

    def on_start(self, run: Watched) -> None:
        self._prepare(run)

    def on_step(self, run: Watched, values: Mapping[str, float] | None) -> None:  # noqa: ARG002
        if self._timer is not None:
            self._found.append(self._timer.end())
            self._timer = None
        self._next += 1
        if self._next == self.timed.stop:
            self._report(run)
        self._prepare(run)

    def on_evaluation(self, run: Watched, result: Mapping[str, Any]) -> None:  # noqa: ARG002
        self._prepare(run)  # an evaluation is no part of a step

    def on_checkpoint(self, run: Watched, path: Path) -> None:  # noqa: ARG002
        self._prepare(run)

    def on_end(self, run: Watched, result: Mapping[str, Any] | None) -> None:  # noqa: ARG002
        self._timer = None
        if self._trace is not None:
            self._write_trace(run)
        if 0 < len(self._found) < len(self.timed):
            self._report(run)
        elif not self._found and run.error is None:
            text = "profile: no step was timed, because this process took %d steps; set first_step"
            logger.warning(f"{text} to at most that", self._next - 1)

    def _prepare(self, run: Watched) -> None:
        """Prepare to time or trace the next step."""
        if self._next in self.timed:
            self._timer = PhaseTimer(run.device)
        elif self._next in self.traced and self._trace is None:
            self._trace = PhaseTrace(run.device)
        elif self._next not in self.traced and self._trace is not None:
            self._write_trace(run)

    def _report(self, run: Watched) -> None:
        """Print the table, and write it to ``profile.json``."""
        found = summary(self._found)
        first = self.timed.start
        last = first + len(self._found) - 1
        title = f"a step, mean of the middle half of steps {first} to {last}"
        console.print(_table(found, title))
        path = run.run_dir / "profile.json"
        content = {"steps": [first, last], "device": str(run.device), **found}
        with Logs().writing(path):
            write_text(path, json.dumps(content, indent=2) + "\n")

    def _write_trace(self, run: Watched) -> None:
        assert self._trace is not None
        path = run.run_dir / "trace.json.gz"
        with Logs().writing(path), TemporaryDirectory() as folder:
            self._trace.export(Path(folder) / path.name)
            with (Path(folder) / path.name).open("rb") as source, atomic_write(path) as stream:
                shutil.copyfileobj(source, stream)
            logger.info("profile: open %s in https://ui.perfetto.dev or chrome://tracing", path)
        self._trace = None


def summary(steps: list[dict[str, float]]) -> dict[str, Any]:
    """The mean milliseconds of a step and of its phases, and the share of each phase.

    The mean is over the middle half of the steps by duration: like a median it ignores outliers,
    but the phases still add up to the step.

    Args:
        steps: The seconds of each phase, for each step.

    Example:
        >>> summary([{"data": 0.01, "forward": 0.03}, {"data": 0.02, "forward": 0.02}])
        {'step_ms': 40.0, 'phases_ms': {'data': 15.0, 'forward': 25.0},
         'shares': {'data': 0.375, 'forward': 0.625}}
    """
    cut = len(steps) // 4
    middle = sorted(steps, key=lambda step: sum(step.values()))[cut : len(steps) - cut]
    phases = {name: fmean(step[name] for step in middle) for name in steps[0]}
    total = sum(phases.values())
    return {
        "step_ms": round(1000 * total, 3),
        "phases_ms": {name: round(1000 * seconds, 3) for name, seconds in phases.items()},
        "shares": {name: round(seconds / total, 4) for name, seconds in phases.items()},
    }


def _table(found: Mapping[str, Any], title: str) -> Table:
    width = len(title) + 4  # the title on one line
    table = Table("phase", show_footer=True, title=title, title_justify="left", min_width=width)
    table.columns[0].footer = "all"
    table.add_column("ms per step", f"{found['step_ms']:.2f}", justify="right")
    table.add_column("share", "100 %", justify="right")
    for name, milliseconds in found["phases_ms"].items():
        share = percent(found["shares"][name], decimals=1)
        table.add_row(name, f"{milliseconds:.2f}", share)
    return table
