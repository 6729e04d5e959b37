"""The phases of a training step, timed or marked in a trace of torch.profiler."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

PHASES = ("data", "transfer", "forward", "loss", "backward", "step", "other")


class PhaseTimer:
    """The seconds of each phase of one step; everything outside a phase is ``other``.

    Args:
        device: Its work is waited for at the borders of phases.

    Example:
        >>> timer = PhaseTimer(torch.device("cpu"))
        >>> timer.begin("forward")
        >>> list(timer.end())
        ['data', 'transfer', 'forward', 'loss', 'backward', 'step', 'other']
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._phase, self._since = "other", self._now()

    def begin(self, phase: str) -> None:
        """Begin a phase, which ends the one before."""
        now = self._now()
        self._seconds[self._phase] += now - self._since
        self._phase, self._since = phase, now

    def end(self) -> dict[str, float]:
        """End the step; return its seconds by phase."""
        self.begin("other")
        return self._seconds

    def _now(self) -> float:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        return time.perf_counter()


class PhaseTrace:
    """A trace that is recorded until it is exported; each phase is a range in it."""

    def __init__(self, device: torch.device) -> None:
        activities = {"cuda": [ProfilerActivity.CUDA], "xpu": [ProfilerActivity.XPU]}
        # Otherwise its library prints when it starts and stops, and that there is no GPU.
        os.environ.setdefault("KINETO_LOG_LEVEL", "6")
        self._profile = profile(activities=[ProfilerActivity.CPU, *activities.get(device.type, [])])
        self._profile.start()
        self._range: record_function | None = None

    def begin(self, phase: str | None) -> None:
        """Begin a phase, which ends the one before; None begins none."""
        if self._range is not None:
            self._range.__exit__(None, None, None)
        self._range = None if phase is None else record_function(phase)
        if self._range is not None:
            self._range.__enter__()  # type: ignore[no-untyped-call]

    def export(self, path: Path) -> None:
        """Stop recording, and write a trace that Perfetto and Chrome read."""
        self.begin(None)
        self._profile.stop()
        self._profile.export_chrome_trace(str(path))
