"""What a training run consists of, and its checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from segtrain.criterion.criterion import Criterion
from segtrain.data import Normalization, TrainBatch
from segtrain.engine.checkpoint import LAST, PREVIOUS, State, rng_state, save_checkpoint
from segtrain.engine.clock import Clock
from segtrain.engine.distributed import Processes
from segtrain.engine.evaluator import Evaluator
from segtrain.engine.finite_check import FiniteCheck, NonfiniteStepError, all_finite, report
from segtrain.engine.freezing import Frozen
from segtrain.engine.hooks import Hooks
from segtrain.engine.moving_average import MovingAverage
from segtrain.engine.parallel import Parallel
from segtrain.engine.run_directory import Run
from segtrain.engine.signals import StopSignals
from segtrain.engine.watchdog import Watchdog
from segtrain.errors import NumericError
from segtrain.files import keep
from segtrain.metrics import larger_is_better
from segtrain.models import Segmentor
from segtrain.schema.sections import Config
from segtrain.terminal import logger

MAX_EVALUATIONS = 20  # of a run, unless trainer.evaluate_every is set


class TrainingState:
    """All parts of a training run, from which checkpoints are made.

    Args:
        config: The configuration of the run; the trainer reads its section `trainer`.
        model: The model, on its device.
        moving_average: The moving average of its weights; None: the weights are scored.
        parallel: How the processes share the model.
        criterion: The criterion, on the same device.
        optimizer: The optimizer of the parameters of `model` and `criterion`.
        scheduler: The learning-rate schedule, stepped once per optimizer step.
        batches: Return the endless stream of micro-batches that starts at a given step.
        steps_per_epoch: Optimizer steps in one pass over the training split.
        total_steps: Optimizer steps of the whole run.
        normalization: What the images are normalised with, on the device.
        evaluator: Scores the model on the validation split.
        test_evaluator: Scores the trained model on the test split; None: there is no test split.
        processes: The processes of the run.
        metadata: Stored in every checkpoint: what a predictor needs beside the weights.

    Attributes:
        run: The run directory; set before :meth:`fit`, in the process that writes only.
        step: Optimizer steps done.
        evaluated_step: The step of the last evaluation; -1: there was none.
        best: The best validation score so far, by its name, and its ``step``.
        clock: Measures the time of training.
    """

    def __init__(  # noqa: PLR0913  all parts of a run
        self,
        config: Config,
        *,
        model: Segmentor,
        criterion: Criterion,
        moving_average: MovingAverage | None,
        parallel: Parallel,
        optimizer: torch.optim.Optimizer,
        scheduler: LRScheduler,
        batches: Callable[[int], Generator[TrainBatch]],
        steps_per_epoch: int,
        total_steps: int,
        normalization: Normalization,
        evaluator: Evaluator,
        test_evaluator: Evaluator | None = None,
        processes: Processes,
        metadata: State,
    ) -> None:
        self.options = config.trainer
        self.config = config
        self.model = model
        self.criterion = criterion
        self.ema = moving_average
        self.parallel = parallel
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.batches = batches
        self.total_steps = total_steps
        self.normalization = normalization
        self.evaluator = evaluator
        self.test_evaluator = test_evaluator
        self.processes = processes
        self.run: Run | None = None
        self.metadata = metadata
        self.step = 0
        self.rate = 0.0  # learning rate of the last step
        self.best: dict[str, float] = {}
        self.evaluate_every = self.options.evaluate_every or max(
            steps_per_epoch, math.ceil(total_steps / MAX_EVALUATIONS)
        )
        self.checkpoint_every = self.options.checkpoint_every or self.evaluate_every
        self.clock = Clock()
        self._saved_step = self.evaluated_step = -1
        self._saved_at = time.monotonic()
        self.signals = StopSignals()
        self.watchdog = Watchdog(self.options.timeout, processes.rank, lambda *_: None)
        device = processes.device
        self.memory_format = (
            torch.channels_last if self.options.channels_last else torch.contiguous_format
        )
        self.frozen = Frozen(model, self.options.freeze) if self.options.freeze else None
        self.forward = self._wrapped()
        self.parameters = [
            parameter for group in optimizer.param_groups for parameter in group["params"]
        ]
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.options.precision == "fp16")
        parts = nn.ModuleList([model, criterion])  # both have running averages
        self.finite = FiniteCheck(
            parts, optimizer, self.scaler, processes, self.options.on_nonfinite
        )
        self.hooks = Hooks(config.hooks if processes.is_main else ())

    def _wrapped(self) -> Any:
        """The model as a training step calls it."""
        wrapped = self.parallel.wrap(self.model)
        return torch.compile(wrapped) if self.options.compile else wrapped

    def _thaw_if_due(self) -> None:
        thaw_at = self.options.thaw_at
        if self.frozen is not None and thaw_at is not None and self.step >= thaw_at:
            self.frozen.thaw()
            self.frozen = None
            # DDP and torch.compile see which parameters are trained only once.
            self.forward = self._wrapped()

    @property
    def scored_weights(self) -> str:
        """The weights that are scored and saved: ``moving_average`` or ``model``."""
        return "model" if self.ema is None else "moving_average"

    @property
    def evaluated_model(self) -> nn.Module:
        """The model that is scored: the moving average of the weights if there is one."""
        return self.model if self.ema is None else self.ema.module

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.total_steps

    def _is_kept(self) -> bool:
        """Whether the checkpoint of this step is kept for good."""
        return bool(self.options.keep_every) and self._due(self.options.keep_every or 1)

    def _is_best(self, value: float) -> bool:
        """Whether `value` is the best score so far; if so, remember it."""
        choice = self.options.best
        before = self.best.get(choice, math.nan)
        is_better = value > before if larger_is_better(choice) else value < before
        if math.isnan(value) or not (math.isnan(before) or is_better):  # NaN is never the best
            return False
        self.best = {choice: value, "step": self.step}
        return True

    def _settle(self) -> None:
        """Finish the check of the last step."""
        try:
            self.finite.settle()
        except NonfiniteStepError as error:
            raise self._reported(error) from None

    def _reported(self, error: NonfiniteStepError) -> NumericError:
        """Keep the batch of a step that was not finite, and the weights before it."""
        kept = None if self.run is None else self.run.keep_batches(error.step, error.batches)
        is_early = error.step == self.step + 1  # on a GPU the next step has begun
        if is_early:
            self.finite.restore()
        whole = self.parallel.whole(self.model.state_dict()) if is_early else {}
        saved = is_early and not self.processes.any(int(not all_finite(whole)))
        if saved:
            self._save(LAST)
        return report(error, kept, saved)

    def _checkpoint_path(self, name: str) -> Path | None:
        return None if self.run is None else self.run.checkpoints / name

    def _save(self, name: str, *, whole: bool = True) -> None:
        """Save a checkpoint of the whole run, or only of what inference needs."""
        if whole and self._saved_step == self.step:
            return
        self._settle()
        self.watchdog.note("saving a checkpoint", self.step)
        path = self._checkpoint_path(name)
        state = self.state() if whole else self.model_state()  # a collective call
        self.parallel.after_saving()
        if path is not None:
            save_checkpoint(path, state, previous=path.with_name(PREVIOUS) if whole else None)
            if whole and self._is_kept():
                keep(path, path.with_name(f"step_{self.step}.pt"), copies=True)
        if whole:
            self._saved_step, self._saved_at = self.step, time.monotonic()
            if self.run is not None:
                self.run.note_checkpoint(self.step)
                self.hooks.call("on_checkpoint", self.step, path)
        self.processes.wait()

    def _save_before_failure(self) -> None:
        """Save the last finished step of a run that ends because its data cannot be read."""
        if self.step == 0:
            return
        self._save(LAST)
        if self.run is not None:
            logger.info(
                "checkpoint of step %d saved; resume with run_dir=%s resume=auto",
                self.step, self.run.path,
            )  # fmt: skip

    def model_state(self) -> State:
        """The weights, and what a predictor needs to use them."""
        return {
            "model": self.parallel.whole(self.model.state_dict()),
            "ema": None if self.ema is None else self.parallel.whole(self.ema.module.state_dict()),
            "step": self.step,
            "best": dict(self.best),
            "config": self.config.to_dict(),
            "metadata": self.metadata,
        }

    def state(self) -> State:
        """Everything that is needed to resume the run exactly."""
        return {
            **self.model_state(),
            "optimizer": self.parallel.whole(self.optimizer.state_dict()),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema_updates": None if self.ema is None else self.ema.n_averaged,
            "total_steps": self.total_steps,
            "seconds": self.clock.seconds,
            "evaluated_step": self.evaluated_step,
            "criterion": self.processes.gather(
                {key: value.cpu() for key, value in self.criterion.state_dict().items()}
            ),
            "rng": self.processes.gather(rng_state()),
            "hooks": self.processes.gather(self.hooks.state())[0],
        }
