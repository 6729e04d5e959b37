"""The training loop: :meth:`Trainer.fit` trains a run, :meth:`Trainer.train_step` one step."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

import torch
from torch import Tensor

from segtrain.data import TrainBatch
from segtrain.engine.checkpoint import BEST, LAST
from segtrain.engine.clock import Clock
from segtrain.engine.data_failure import shared_failure
from segtrain.engine.device import autocast, peak_memory_bytes
from segtrain.engine.ending import abort, give_up
from segtrain.engine.evaluator import Evaluator, Scored
from segtrain.engine.finite_check import NonfiniteStepError
from segtrain.engine.hooks import Watched
from segtrain.engine.results import scores_table
from segtrain.engine.run_directory import Run
from segtrain.engine.signals import StopSignals, interrupted_run
from segtrain.engine.training_state import TrainingState
from segtrain.engine.watchdog import Watchdog
from segtrain.errors import DataError
from segtrain.terminal import ProgressLine, console, logger, progress, shows_progress


class Trainer(TrainingState):
    """Trains a model, evaluates it at intervals, and stops or saves it when it is asked to.

    The arguments and attributes are those of
    :class:`~segtrain.engine.training_state.TrainingState`.
    """

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

    def _checked_step(self, batches: list[TrainBatch]) -> dict[str, Tensor]:
        """Take a step that must be finite."""
        try:
            return self.train_step(batches)
        except NonfiniteStepError as error:
            raise self._reported(error) from None

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

    def _table_title(self, split: str) -> str:
        weights = "" if self.ema is None else ", moving average of the weights"
        return f"{split} at step {self.step}{weights}"
