"""The training loop: :meth:`Trainer.fit` trains a run, :meth:`Trainer.train_step` one step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from segtrain.criterion.criterion import Criterion
from segtrain.data import Normalization, TrainBatch
from segtrain.engine.checkpoint import BEST, LAST, PREVIOUS, State, rng_state, save_checkpoint
from segtrain.engine.clock import Clock
from segtrain.engine.data_failure import shared_failure
from segtrain.engine.device import autocast, peak_memory_bytes
from segtrain.engine.distributed import Processes
from segtrain.engine.ending import abort, give_up
from segtrain.engine.evaluator import Evaluator, Scored
from segtrain.engine.finite_check import FiniteCheck, NonfiniteStepError, all_finite, report
from segtrain.engine.freezing import Frozen
from segtrain.engine.hooks import Hooks, Watched
from segtrain.engine.moving_average import MovingAverage
from segtrain.engine.parallel import Parallel
from segtrain.engine.results import scores_table
from segtrain.engine.run_directory import Run
from segtrain.engine.signals import StopSignals, interrupted_run
from segtrain.engine.watchdog import Watchdog
from segtrain.errors import DataError, NumericError
from segtrain.files import keep
from segtrain.metrics import larger_is_better
from segtrain.models import Segmentor
from segtrain.schema.sections import Config
from segtrain.terminal import ProgressLine, console, logger, progress, shows_progress

MAX_EVALUATIONS = 20  # of a run, unless trainer.evaluate_every is set


class Trainer:
    """Trains a model, evaluates it at intervals, and resumes from a checkpoint.

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
        self.finite = FiniteCheck(
            model, optimizer, self.scaler, processes, self.options.on_nonfinite
        )
        self.hooks = Hooks(config.hooks if processes.is_main else ())

    # ------------------------------------------------------------------ the loop

    def fit(self) -> dict[str, Any] | None:
        """Train all remaining steps; return the final scores, or None after `trainer.stop_after`.

        Raises:
            Interrupted: On Ctrl-C, SIGTERM, SIGHUP or SIGUSR1, after a checkpoint of the last
                finished step was saved.
            NumericError: When a loss, a gradient or a prediction is not finite; the weights are
                those before that step.
            DataError: When a sample cannot be read, such as after the connection to its server was
                lost; a checkpoint of the last finished step was saved.
        """
        self.clock = Clock(self.clock.seconds)
        self.model.train()
        with (
            self.hooks,
            closing(self.batches(self.step)) as stream,
            closing(self.evaluator),
            StopSignals(partial(abort, self.run), self.clock.grace) as self.signals,
            Watchdog(
                self.options.timeout, self.processes.rank, partial(give_up, self.run)
            ) as self.watchdog,
            progress("train", self.total_steps, self.step, shown=self.processes.is_main) as bar,
        ):
            if self.run is not None:
                with self.clock.paused():  # a logger waits for its server
                    self.hooks.start(self._watched(self.run))
            result, is_stopped = self._take_steps(stream, bar)
            self._save(LAST)
            if self.step < self.total_steps and not is_stopped:
                logger.info("stopped after step %d, as set by trainer.stop_after", self.step)
                self.hooks.end(self.step, None)
                return None
            if result is None or self.evaluated_step != self.step:
                result = self._evaluate()  # a finished run that is resumed is only evaluated
            result = self._final_results(result)
            self.hooks.end(self.step, result)
        self._finish(result)
        return result

    def _watched(self, run: Run) -> Watched:
        """The run as its hooks see it."""
        return Watched(
            run.path,
            self.total_steps,
            self.step,
            name=run.name,
            config=self.config.to_dict(),
            device=self.processes.device,
        )

    def _take_steps(
        self, stream: Iterator[TrainBatch], bar: ProgressLine
    ) -> tuple[dict[str, Any] | None, bool]:
        """Train up to the end; return the last scores, and whether a hook stopped the run."""
        result = None
        stop_at = min(self.total_steps, self.options.stop_after or self.total_steps)
        if self.step and self._due(self.evaluate_every) and self.evaluated_step != self.step:
            result = self._evaluate()  # the run stopped just before this evaluation
        is_stopped = self._stop_or_save()
        while self.step < stop_at and not is_stopped:
            self._thaw_if_due()
            self.watchdog.note("loading data", self.step)
            self.hooks.phase("data")
            batches = self._next_batches(stream)
            self.hooks.phase("other")
            self.watchdog.note("a training step", self.step)
            losses = self._checked_step(batches)
            self.hooks.phase("other")
            self.step += 1
            bar.advance(self._log(losses))
            if self.run is not None:
                self.run.heartbeat(self.step)
            is_stopped = self._stop_or_save()
            if self._due(self.evaluate_every):
                result = self._evaluate()
                is_stopped = self._stop_or_save()
            if self._due(self.checkpoint_every) or self._is_kept():
                self._save(LAST)
        return result, is_stopped

    def _finish(self, result: dict[str, Any]) -> None:
        """Record the final scores."""
        if self.run is None:
            return
        if not self.best:
            logger.warning(
                "there is no best.pt, because %s was never defined; use checkpoint=%s",
                self.options.best,
                self._checkpoint_path(LAST),
            )
        if self.hooks.run is not None and self.hooks.run.stopped_by is not None:
            logger.info("stopped after step %d: %s", self.step, self.hooks.run.stopped_by)
        self.run.finish(result)

    def _checked_step(self, batches: list[TrainBatch]) -> dict[str, Tensor]:
        """Take a step that must be finite."""
        try:
            return self.train_step(batches)
        except NonfiniteStepError as error:
            raise self._reported(error) from None

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
        saved = is_early and all_finite(self.parallel.whole(self.model.state_dict()))
        if saved:
            self._save(LAST)
        return report(error, kept, saved)

    def train_step(self, batches: list[TrainBatch]) -> dict[str, Tensor]:
        """Take one optimizer step over its micro-batches; return its losses, on the device."""
        for parameter in self.parameters:
            parameter.grad = None  # ten times as fast as zero_grad, which reports to the profiler
        self.finite.before_step()
        self.criterion.at_step(self.step, self.total_steps)
        self.hooks.phase("transfer")
        moved = [self.to_device(batch) for batch in batches]
        self.hooks.phase("loss")
        step_share = self._step_share(moved)
        losses: dict[str, Tensor] = {}
        for index, batch in enumerate(moved):
            last = index == len(moved) - 1
            with self.parallel.averaging(self.forward, averages=last):
                self.hooks.phase("forward")
                with autocast(self.processes.device, self.options.precision):
                    outputs = self.forward(batch["images"])
                self.hooks.phase("loss")
                report = self.criterion(outputs, batch["target"], step_share=step_share)
                self.hooks.phase("backward")
                self.scaler.scale(report.total).backward()
            for name, value in {"loss": report.total.detach(), **report.parts}.items():
                losses[name] = losses[name] + value if name in losses else value
        self.hooks.phase("step")
        self.processes.average_gradients(self.criterion.parameters())  # DDP averages the model's
        self.scaler.unscale_(self.optimizer)
        losses["grad_norm"] = self.parallel.clip(self.parameters)
        self.rate = float(self.optimizer.param_groups[0]["lr"])
        if not self.finite.watch(self.step + 1, losses, batches):
            self.scaler.update()
            return losses  # the step is skipped
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        # In fp16 an overflow skips the step; then the schedule and the moving average skip it too.
        if self.scaler.get_scale() >= scale:
            self.scheduler.step()
            if self.ema is not None:
                self.ema.update_parameters(self.model)
        return losses

    def to_device(self, batch: TrainBatch) -> TrainBatch:
        """Copy a batch to the device: images as the model takes them, the target as the loss does.

        Shape:
            - images: ``(N, C, H, W)``, float32, normalised, in the model's memory format.
            - target: ``(N, H, W)``, int64; ``(N, C, H, W)``, uint8, for multi-label data.
        """
        device = self.processes.device
        images = self.normalization(batch["images"].to(device, non_blocking=True))
        images = images.contiguous(memory_format=self.memory_format)
        target = batch["target"].to(device, non_blocking=True)
        # Pixels and class ids travel as bytes, and are converted on the device.
        target = target.long() if target.dim() == 3 else target
        return {**batch, "images": images, "target": target}

    def _step_share(self, batches: list[TrainBatch]) -> Tensor | None:
        """The weight of all parts of this step together, per term; None if there is one part."""
        if len(batches) == 1 and self.processes.world_size == 1:
            return None
        share = torch.stack([self.criterion.share(batch["target"]) for batch in batches]).sum(0)
        # DDP averages gradients over processes, but the mean is over the pixels of all processes.
        return self.processes.sum(share) / self.processes.world_size

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

    # ------------------------------------------------------------------ what the run writes

    def _next_batches(self, stream: Iterator[TrainBatch]) -> list[TrainBatch]:
        """Read the micro-batches of a step; if a process cannot, all stop after the same step."""
        batches: list[TrainBatch] = []
        failure: DataError | None = None
        try:
            batches = [next(stream) for _ in range(self.options.accumulate)]
        except DataError as error:
            failure = error
        failure = shared_failure(self.processes, failure)
        if failure is not None:
            self._save_before_failure()
            raise failure
        return batches

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

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.total_steps

    def _is_kept(self) -> bool:
        """Whether the checkpoint of this step is kept for good."""
        return bool(self.options.keep_every) and self._due(self.options.keep_every or 1)

    def _stop_or_save(self) -> bool:
        """Stop, or save a checkpoint, if one process was asked to, or finds that it is time to.

        Every process does so after the same step.

        Returns:
            Whether a hook stopped the run.

        Raises:
            Interrupted: When a signal asked for it.
        """
        self.watchdog.note("an evaluation", self.step)
        is_late = (
            self.step > 0
            and time.monotonic() - self._saved_at > 60 * self.options.checkpoint_minutes
        )
        stops = self.hooks.wants_to_stop
        flags = self.processes.any(4 * self.signals.received + 2 * stops + is_late)
        signal, is_stopped = flags >> 2, bool(flags & 2)
        if signal or flags & 1:
            self._save(LAST)
        if signal:
            raise interrupted_run(signal, self.step, self._checkpoint_path(LAST))
        return is_stopped

    def _log(self, losses: dict[str, Tensor]) -> str | None:
        """Write the losses every `trainer.log_every` steps; return a text for the progress bar."""
        self.clock.count(
            self.options.batch_size * self.options.accumulate * self.processes.world_size
        )
        if not self._due(self.options.log_every):
            self.hooks.call("on_step", self.step, None)
            return None
        share = {
            name: self.processes.sum(value) / self.processes.world_size
            for name, value in losses.items()
        }
        values = {name: float(value) for name, value in share.items()}
        if self.run is None:
            return None
        skipped = {"skipped_steps": self.finite.skipped} if self.finite.skipped else {}
        line = {
            "loss": values.pop("loss"),
            "lr": self.rate,
            "grad_norm": values.pop("grad_norm"),
            "images_per_second": self.clock.rate(),
            **skipped,
        }
        self.run.log_step(self.step, line, values)
        self.hooks.call("on_step", self.step, {**line, **values})
        text = (
            f"loss {line['loss']:.4f}  lr {line['lr']:.2e}  {line['images_per_second']:.1f} img/s"
        )
        if not shows_progress():
            logger.info("step %d/%d  %s", self.step, self.total_steps, text)
        return text

    def _evaluate(self) -> dict[str, Any]:
        """Score the model on the validation split, and save it if it is the best so far."""
        scored = self._score(self.evaluator)
        if self._is_best(scored.evaluation.score(self.options.best)):
            self._save(BEST, whole=False)
        self.evaluated_step = self.step
        result = scored.results(step=self.step, split="val", seconds=self.clock.seconds)
        if self.run is not None:
            self.run.log_scores(self.step, result)
            self.hooks.call("on_evaluation", self.step, result)
            self.run.log_pictures(self.step, scored.pictures)
            scored.evaluation.save_per_image(self.run.path / "per_image.npz")
            value = scored.evaluation.score(self.options.best)
            best = self.best.get(self.options.best, math.nan)
            shown = ["n/a" if math.isnan(score) else f"{score:.4f}" for score in (value, best)]
            logger.info("step %d: %s %s, best %s", self.step, self.options.best, *shown)
            console.print(scores_table(scored.evaluation, self._table_title("validation")))
        return result

    def _final_results(self, validation: dict[str, Any]) -> dict[str, Any]:
        """The scores of the last step, on the test split if there is one, and the run's figures."""
        result = validation
        if self.test_evaluator is not None:
            scored = self._score(self.test_evaluator)
            result = scored.results(step=self.step, split="test")
            kept = ("mIoU", "val_loss", "scores")  # windows, scales and flips have no loss
            result["val"] = {key: validation[key] for key in kept if key in validation}
            if self.run is not None:
                scored.evaluation.save_per_image(self.run.path / "per_image.npz")
                console.print(scores_table(scored.evaluation, self._table_title("test")))
        stopped_by = None if self.hooks.run is None else self.hooks.run.stopped_by
        return {
            **result,
            **({} if stopped_by is None else {"stopped_by": stopped_by}),
            "best": self.best,
            "scored_weights": self.scored_weights,
            "seconds": self.clock.seconds,
            "seconds_per_step": self.clock.seconds_per_step,
            "peak_memory_bytes": peak_memory_bytes(self.processes.device),
        }

    def _score(self, evaluator: Evaluator) -> Scored:
        """Score the weights on a split; training can go on afterwards."""
        self._settle()
        self.processes.broadcast(self.evaluated_model.buffers())
        with (
            self.clock.paused(),
            self.criterion.without_mining(),
            self.parallel.evaluating(self.evaluated_model),
        ):
            try:
                return evaluator.evaluate(self.evaluated_model, self.criterion, self._stop_or_save)
            except DataError:  # in every process
                self._save_before_failure()
                raise

    def _is_best(self, value: float) -> bool:
        """Whether `value` is the best score so far; if so, remember it."""
        choice = self.options.best
        before = self.best.get(choice, math.nan)
        is_better = value > before if larger_is_better(choice) else value < before
        if math.isnan(value) or not (math.isnan(before) or is_better):  # NaN is never the best
            return False
        self.best = {choice: value, "step": self.step}
        return True

    def _table_title(self, split: str) -> str:
        weights = "" if self.ema is None else ", moving average of the weights"
        return f"{split} at step {self.step}{weights}"

    @property
    def scored_weights(self) -> str:
        """The weights that are scored and saved: ``moving_average`` or ``model``."""
        return "model" if self.ema is None else "moving_average"

    @property
    def evaluated_model(self) -> nn.Module:
        """The model that is scored: the moving average of the weights if there is one."""
        return self.model if self.ema is None else self.ema.module

    # ------------------------------------------------------------------ checkpoints

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
