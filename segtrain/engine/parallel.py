"""How several processes train one model: as copies (DDP), or with a part each (FSDP2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, get_total_norm

from segtrain.engine.distributed import Processes
from segtrain.schema.sections import TrainerConfig


class Parallel:
    """Each process has a copy of the model, and gradients are averaged; also for one process.

    Args:
        processes: The processes of the run.
        options: The section `trainer` of the configuration.
    """

    def __init__(self, processes: Processes, options: TrainerConfig) -> None:
        self.processes, self.options = processes, options

    def place(self, model: nn.Module) -> None:
        """Prepare a model on its device, before its optimizer is built."""
        if self.options.channels_last:
            model.to(memory_format=torch.channels_last)

    def wrap(self, model: nn.Module) -> Any:
        """The model as a training step calls it."""
        return self.processes.wrap(model, sync_batchnorm=self.options.sync_batchnorm)

    def averaging(self, forward: Any, *, averages: bool) -> AbstractContextManager[None]:
        """Choose whether the backward pass of a micro-batch averages gradients over processes."""
        if averages or self.processes.world_size == 1:
            return nullcontext()
        context: AbstractContextManager[None] = forward.no_sync()
        return context

    def clip(self, parameters: Sequence[Tensor]) -> Tensor:
        """Clip the gradients as configured; return their norm, ``()``, before clipping by norm."""
        if self.options.clip_grad_value:
            clip_grad_value_(parameters, self.options.clip_grad_value)
        if self.options.clip_grad_norm:
            return clip_grad_norm_(parameters, self.options.clip_grad_norm)
        return get_total_norm([one.grad for one in parameters if one.grad is not None])

    def whole(self, state: Any) -> Any:
        """A nested state with whole tensors, for a checkpoint; called by every process."""
        return state

    def parts(self, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The weights of a checkpoint as the tensors `own` of a model are held here."""
        del own
        return state

    def moments(self, saved: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The state of an optimizer in a checkpoint as it is held here."""
        del optimizer
        return saved

    def after_saving(self) -> None:
        """Go on after a checkpoint, which an evaluation may have been interrupted for."""

    @contextmanager
    def evaluating(self, model: nn.Module) -> Iterator[None]:
        """Let each process call the model as often as it likes."""
        del model
        yield
