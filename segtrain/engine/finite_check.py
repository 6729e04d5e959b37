"""Keep a step whose loss or gradient is NaN or infinite from changing the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from segtrain.data import TrainBatch
from segtrain.engine.device import Flag
from segtrain.engine.distributed import Processes
from segtrain.errors import NumericError, one_line
from segtrain.terminal import logger

MAX_SKIPPED_STEPS = 25
"""Steps in a row without a usable gradient that end a run."""
_SHOWN_FILES = 8
_ADVICE = "Lower optimizer.lr, set trainer.clip_grad_norm=1, or use trainer.precision=fp32"

OnNonfinite = Literal["stop", "skip"]


class NonfiniteStepError(NumericError):
    """A step was not finite.

    Args:
        message: The step, the terms, the process and the files.
        step: The step.
        batches: The micro-batches of that step in the process where it was not finite.
    """

    def __init__(self, message: str, step: int, batches: list[dict[str, Any]]) -> None:
        super().__init__(message)
        self.step, self.batches = step, batches


@dataclass
class _Pending:
    """A step whose flag was not looked at."""

    step: int
    bad: Flag
    losses: Mapping[str, Tensor]
    batches: Sequence[TrainBatch]


class FiniteCheck:
    """Keeps a step that is not finite from changing the weights, and ends the run or skips it.

    All processes decide alike, since a gradient is averaged over them. On a CPU they decide before
    the step. On other devices a check would wait for the device at every step. There a fused
    optimizer of torch skips the update itself (``found_inf``), and the run ends one step later. The
    check waits for optimizers that are not fused, and to skip a step.

    Args:
        model: The model and the criterion, whose running averages a skipped step must not change.
        optimizer: The optimizer.
        scaler: The scaler of fp16. It may skip single steps; only many in a row are an error.
        processes: The processes of the run.
        on_nonfinite: ``stop`` or ``skip``.

    Attributes:
        skipped: Steps that were skipped.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        processes: Processes,
        on_nonfinite: OnNonfinite = "stop",
    ) -> None:
        self.optimizer, self.scaler, self.processes = optimizer, scaler, processes
        self.skips = on_nonfinite == "skip"
        self.skipped = 0
        self._in_a_row = 0
        self._pending: _Pending | None = None
        self._buffers = list(model.buffers())
        self._before = [buffer.clone() for buffer in self._buffers]

    def before_step(self) -> None:
        """Remember the running statistics, which a step changes before it is checked."""
        if self._buffers:
            torch._foreach_copy_(self._before, self._buffers)

    def watch(
        self, step: int, losses: Mapping[str, Tensor], batches: Sequence[TrainBatch] = ()
    ) -> bool:
        """Check the optimizer step that follows; return whether to take it.

        Args:
            step: The number of that step.
            losses: Its ``loss`` and ``grad_norm``, ``()`` each, and its other terms.
            batches: Its micro-batches, for the report.

        Raises:
            NonfiniteStepError: When this step, or the step before it, is not finite.
            NumericError: When too many steps in a row were skipped.
        """
        self.settle()
        loss, grad_norm = losses["loss"], losses["grad_norm"]
        finite = torch.isfinite(loss + grad_norm)
        if self.scaler.is_enabled() and not self.skips:
            self._count(step, self._any_is_bad(~finite))
            finite = torch.isfinite(loss)
        bad = self.processes.sum((~finite).float())
        if is_fused(self.optimizer) and not self.scaler.is_enabled():
            self.optimizer.found_inf = bad.clamp(max=1)  # type: ignore[attr-defined]
        if self.skips:
            is_bad = self._any_is_bad(bad)
            self._count(step, is_bad)
            if is_bad:
                self._skip(step)
            return not is_bad
        self._pending = _Pending(step, Flag(bad), losses, batches)
        if bad.device.type == "cpu" or not is_fused(self.optimizer):
            self.settle()
        return True

    def settle(self) -> None:
        """Finish the check of the last step; called before anything is evaluated or saved.

        Raises:
            NonfiniteStepError: When that step was not finite.
        """
        pending, self._pending = self._pending, None
        if pending is not None and bool(pending.bad):
            raise self._failure(pending)

    def _any_is_bad(self, bad: Tensor) -> bool:
        return bool(self.processes.any(int(bad > 0)))

    def _skip(self, step: int) -> None:
        self.skipped += 1
        if self.processes.is_main:
            logger.warning(
                "step %d is left out, because its loss or its gradient is NaN or infinite"
                " (%d so far)",
                step, self.skipped,
            )  # fmt: skip
        self.restore()

    def restore(self) -> None:
        """Give the running statistics the values they had before the step."""
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._before)

    def _count(self, step: int, is_bad: bool) -> None:
        self._in_a_row = self._in_a_row + 1 if is_bad else 0
        if self._in_a_row > MAX_SKIPPED_STEPS:
            why = "were not finite" if self.skips else "overflowed in fp16"
            advice = _ADVICE if self.skips else "use trainer.precision=bf16 or fp32, or a lower"
            raise NumericError(
                f"{self._in_a_row} steps in a row up to step {step} {why}; {advice}"
                + ("" if self.skips else " optimizer.lr")
            )

    def _failure(self, pending: _Pending) -> NonfiniteStepError:
        """The error, the same in every process; only the first bad process gives its batch."""
        bad = [name for name, value in pending.losses.items() if not torch.isfinite(value).all()]
        # The norm of the averaged gradient is bad in every process, a loss in its own.
        has_cause = any(name != "grad_norm" for name in bad)
        found = self.processes.gather((has_cause, bad))
        is_known = any(cause for cause, _ in found)
        rank = next((rank for rank, (cause, _) in enumerate(found) if cause), 0)
        # A gradient that is bad in one process is bad in all after the average: keep every batch.
        is_kept = rank == self.processes.rank or not is_known
        mine = [_kept(batch) for batch in pending.batches] if is_kept else []
        batches = [batch for part in self.processes.gather(mine) for batch in part or []]
        step = pending.step
        where = f" (process {rank})" if self.processes.world_size > 1 and is_known else ""
        names = [name for batch in batches for name in batch.get("name", [])]
        message = f"{_words(found[rank][1])} NaN or infinite at step {step}{where}{_files(names)}"
        return NonfiniteStepError(message, step, batches)


def is_fused(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer of torch is fused, so that it can skip a step without waiting."""
    return all(group.get("fused") for group in optimizer.param_groups)


def all_finite(state: Mapping[str, Any]) -> bool:
    """Whether every number of a state dict is finite."""
    return all(
        bool(torch.isfinite(value).all())
        for value in state.values()
        if isinstance(value, Tensor) and value.is_floating_point()
    )


def report(error: NonfiniteStepError, kept: Path | None, saved: bool) -> NumericError:
    """The error for the user, after what there is to keep was kept.

    Args:
        error: The error of the check.
        kept: The file with the batch; None on a process that writes nothing.
        saved: Whether a checkpoint of the step before was saved.
    """
    weights = f"the weights are those of step {error.step - 1}"
    weights += ", in checkpoints/last.pt" if saved else ""
    batch = "" if kept is None else f"; the batch is kept in {kept}"
    return NumericError(f"{error}; {weights}{batch}. {_ADVICE}")


def _words(bad: Sequence[str]) -> str:
    terms = [name for name in bad if name not in ("loss", "grad_norm")]
    if not any(name != "grad_norm" for name in bad):
        return "the gradient is"
    return "the loss is" + (f" (term {', '.join(terms)})" if terms else "")


def _files(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = "" if len(names) <= _SHOWN_FILES else f" and {len(names) - _SHOWN_FILES} more"
    return f", files: {one_line(', '.join(names[:_SHOWN_FILES]), 1000)}{more}"


def _kept(batch: TrainBatch) -> dict[str, Any]:
    """A batch as plain values, for a file."""
    return {
        name: value.detach().cpu() if isinstance(value, Tensor) else value
        for name, value in batch.items()
    }
