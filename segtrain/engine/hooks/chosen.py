"""The hooks that a run has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from segtrain.engine.hooks.base import HOOKS, Hook, Watched
from segtrain.errors import describe_error
from segtrain.terminal import logger


class Hooks:
    """The hooks of a run; a context manager that tells them when the run fails or is interrupted.

    Args:
        specs: Names, or mappings with a name and parameters; empty where none are called.
    """

    def __init__(self, specs: Sequence[Any]) -> None:
        self.hooks = [
            HOOKS.build(spec, where=f"hooks[{index}]") for index, spec in enumerate(specs)
        ]
        # Steps are divided into phases for few hooks, so that others do not slow them down.
        self._divided = [hook for hook in self.hooks if type(hook).on_phase is not Hook.on_phase]
        self.run: Watched | None = None
        self._is_ended = False

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

    def phase(self, name: str) -> None:
        """Begin a part of a step; see :meth:`Hook.on_phase`."""
        for hook in self._divided:
            if self.run is not None:
                hook.on_phase(self.run, name)

    def end(self, step: int, result: Mapping[str, Any] | None) -> None:
        """End the run, with its final scores or without."""
        self._is_ended = True
        self.call("on_end", step, result)

    def __enter__(self) -> Hooks:
        self._is_ended = False
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None or self.run is None or self._is_ended:
            return
        self.run.error = error
        for hook in self.hooks:
            try:
                hook.on_end(self.run, None)
            except Exception as second:  # noqa: BLE001  it must not hide the first error
                text = "the end of the hook %s failed: %s"
                logger.warning(text, type(hook).__name__, describe_error(second))

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
