"""Stop a run whose loss or gradient is NaN or infinite, before it changes the weights."""

from __future__ import annotations

import torch
from torch import Tensor

from segtrain.errors import NumericError

MAX_SKIPPED_STEPS = 25  # fp16 steps in a row without a usable gradient


class FiniteCheck:
    """Keeps a step that is not finite from changing the weights, and ends the run.

    On a CPU the run ends before the step. On other devices a check would wait for the device at
    every step. There a fused optimizer of torch skips the update itself (``found_inf``), and the
    run ends one step later. Optimizers that are not fused cannot skip it, so the check waits.

    Args:
        optimizer: The optimizer.
        scaler: The scaler of fp16. It may skip single steps; only many in a row are an error.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
        self.optimizer = optimizer
        self.scaler = scaler
        self._skipped = 0
        self._pending: tuple[int, Tensor] | None = None

    def watch(self, step: int, loss: Tensor, grad_norm: Tensor) -> None:
        """Check the optimizer step that follows.

        Args:
            step: The number of that step.
            loss: Its loss, ``()``.
            grad_norm: The norm of its gradients, ``()``.

        Raises:
            NumericError: When this step (on a CPU) or the step before it is not finite.
        """
        self.settle()
        finite = torch.isfinite(loss) & torch.isfinite(grad_norm)
        if self.scaler.is_enabled():
            self._count_skipped(step, finite)
            finite = torch.isfinite(loss)
        elif is_fused(self.optimizer):
            self.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        self._pending = (step, finite)
        if finite.device.type == "cpu" or not is_fused(self.optimizer):
            self.settle()

    def settle(self) -> None:
        """Finish the check of the last step; called before anything is evaluated or saved.

        Raises:
            NumericError: When that step was not finite.
        """
        if self._pending is None:
            return
        step, finite = self._pending
        self._pending = None
        if not bool(finite):
            raise NumericError(
                f"the loss or its gradient is NaN or infinite at step {step}; the weights are those"
                f" of step {step - 1}. Lower optimizer.lr, set trainer.clip_grad_norm=1, or use"
                " trainer.precision=fp32"
            )

    def _count_skipped(self, step: int, finite: Tensor) -> None:
        self._skipped = 0 if bool(finite) else self._skipped + 1
        if self._skipped > MAX_SKIPPED_STEPS:
            raise NumericError(
                f"{self._skipped} steps in a row up to step {step} overflowed in fp16; use"
                " trainer.precision=bf16 or fp32, or a lower optimizer.lr"
            )


def is_fused(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer of torch is fused, so that it can skip a step without waiting."""
    return all(group.get("fused") for group in optimizer.param_groups)
