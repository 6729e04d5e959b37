"""The training loop: :meth:`Trainer.fit` is a run, :meth:`Trainer.train_step` one step of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from segtrain.criterion.criterion import Criterion
from segtrain.data import TrainBatch
from segtrain.engine.checkpoint import State, entry, rng_state, save_checkpoint, set_rng_state
from segtrain.engine.clock import _Clock
from segtrain.engine.device import autocast
from segtrain.engine.distributed import Processes
from segtrain.engine.evaluator import Evaluator
from segtrain.engine.finite_check import FiniteCheck
from segtrain.engine.results import results, scores_table
from segtrain.engine.run_directory import Run
from segtrain.engine.signals import Interrupted, StopSignals
from segtrain.errors import CheckpointError, ConfigError, one_line
from segtrain.models import Segmentor
from segtrain.schema.sections import Config
from segtrain.terminal import console, logger, progress


class Trainer:
    """Trains one model for some steps, evaluates it on the way, and can go on where it stopped.

    Args:
        config: The configuration of the run; its sections `trainer` and `optimizer` are read here.
        model: On its device.
        criterion: On the same device.
        optimizer: Over the parameters of `model`.
        scheduler: Stepped once per optimizer step.
        batches: Makes the endless stream of micro-batches from a given step on.
        steps_per_epoch: Optimizer steps in one pass over the training split.
        total_steps: The budget.
        evaluator: Scores the model on the validation split.
        processes: This process among those of the run.
        metadata: Put into every checkpoint: what a predictor needs beside the weights.

    Attributes:
        run: The run directory, set before :meth:`fit` on the one process that writes.
    """

    def __init__(  # noqa: PLR0913  everything that a run is made of
        self,
        config: Config,
        *,
        model: Segmentor,
        criterion: Criterion,
        optimizer: torch.optim.Optimizer,
        scheduler: LRScheduler,
        batches: Callable[[int], Iterator[TrainBatch]],
        steps_per_epoch: int,
        total_steps: int,
        evaluator: Evaluator,
        processes: Processes,
        metadata: State,
    ) -> None:
        self.options = config.trainer
        self.config = config
        self.model = model
        self.criterion = criterion
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.batches = batches
        self.total_steps = total_steps
        self.evaluator = evaluator
        self.processes = processes
        self.run: Run | None = None
        self.metadata = metadata
        self.step = 0
        self.best: dict[str, float] = {}
        self.evaluate_every = self.options.evaluate_every or steps_per_epoch
        self.checkpoint_every = self.options.checkpoint_every or self.evaluate_every
        self._clock = _Clock(0.0)
        self._saved_step = self._evaluated_step = -1
        device = processes.device
        self.memory_format = (
            torch.channels_last if self.options.channels_last else torch.contiguous_format
        )
        model.to(memory_format=self.memory_format)
        wrapped = processes.wrap(model, sync_batchnorm=self.options.sync_batchnorm)
        self.forward: Any = torch.compile(wrapped) if self.options.compile else wrapped
        self.parameters = [
            parameter for group in optimizer.param_groups for parameter in group["params"]
        ]
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.options.precision == "fp16")
        self.finite = FiniteCheck(optimizer, self.scaler)
        decay = self.options.ema_decay
        self.ema = (
            AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)  # type: ignore[no-untyped-call]
            if decay
            else None
        )

    # ------------------------------------------------------------------ the loop

    def fit(self) -> dict[str, Any] | None:
        """Train up to the budget; returns the final scores, or None when stopped on the way.

        Raises:
            Interrupted: On SIGINT or SIGTERM, after the checkpoint of the last finished step was
                written.
            NumericError: When a loss, a gradient or a prediction is not finite; the weights are
                those before the step.
        """
        result = None
        stop_at = min(self.total_steps, self.options.stop_after or self.total_steps)
        self._clock = _Clock(self._clock.seconds)
        self.model.train()
        stream = self.batches(self.step)
        with (
            StopSignals() as signals,
            progress("train", self.total_steps, self.step, shown=self.processes.is_main) as bar,
        ):
            if self.step and self._due(self.evaluate_every) and self._evaluated_step != self.step:
                result = self._evaluate()  # the run was stopped just before
            while self.step < stop_at:
                losses = self.train_step([next(stream) for _ in range(self.options.accumulate)])
                self.step += 1
                bar.advance(self._log(losses))
                self._stop_if_asked(signals)
                if self._due(self.evaluate_every):
                    result = self._evaluate()
                if self._due(self.checkpoint_every):
                    self._save("last.pt")
            self._save("last.pt")
            if self.step < self.total_steps:
                logger.info("stopped after step %d, as trainer.stop_after says", self.step)
                return None
            result = result or self._evaluate()  # a finished run, gone on with, is only scored
        result = {**result, "seconds": self._clock.seconds, "best": self.best}
        if self.run is not None:
            self.run.write_results(result)
        return result

    def train_step(self, batches: list[TrainBatch]) -> dict[str, Tensor]:
        """One optimizer step over its micro-batches; returns its losses, still on the device."""
        self.optimizer.zero_grad(set_to_none=True)
        self.criterion.at_step(self.step)
        batches = [self._to_device(batch) for batch in batches]
        step_share = self._step_share(batches)
        losses: dict[str, Tensor] = {}
        for index, batch in enumerate(batches):
            last = index == len(batches) - 1
            with (
                nullcontext() if last or self.processes.world_size == 1 else self.forward.no_sync()
            ):
                with autocast(self.processes.device, self.options.precision):
                    outputs = self.forward(batch["images"])
                report = self.criterion(outputs, batch["target"], step_share=step_share)
                self.scaler.scale(report.total).backward()
            for name, value in {"loss": report.total.detach(), **report.parts}.items():
                losses[name] = losses[name] + value if name in losses else value
        self.processes.average_gradients(self.criterion.parameters())  # the model's are already
        self.scaler.unscale_(self.optimizer)
        losses["grad_norm"] = clip_grad_norm_(
            self.parameters, self.options.clip_grad_norm or float("inf")
        )
        self.finite.watch(self.step + 1, losses["loss"], losses["grad_norm"])
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        # An overflow in fp16 skips the step; the schedule and the moving average wait with it.
        if self.scaler.get_scale() >= scale:
            self.scheduler.step()
            if self.ema is not None:
                self.ema.update_parameters(self.model)
        return losses

    def _to_device(self, batch: TrainBatch) -> TrainBatch:
        device = self.processes.device
        images = batch["images"].to(device, non_blocking=True, memory_format=self.memory_format)
        target = batch["target"].to(device, non_blocking=True)
        # Bytes all the way here; class ids are as wide as PyTorch wants them on the device only.
        target = target.long() if target.dim() == 3 else target
        return {**batch, "images": images, "target": target}

    def _step_share(self, batches: list[TrainBatch]) -> Tensor | None:
        """What the parts of this step weigh together, per term; None when it has one part."""
        if len(batches) == 1 and self.processes.world_size == 1:
            return None
        share = torch.stack([self.criterion.share(batch["target"]) for batch in batches]).sum(0)
        # Gradients are averaged over processes, and the mean is over the pixels of all of them.
        return self.processes.sum(share) / self.processes.world_size

    # ------------------------------------------------------------------ what the run writes

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.total_steps

    def _stop_if_asked(self, signals: StopSignals) -> None:
        """After the same step in every process, whichever of them got the signal."""
        received = self.processes.any(signals.received)
        if received:
            self._save("last.pt")
            raise Interrupted(received, self.step, self._checkpoint_path("last.pt"))

    def _log(self, losses: dict[str, Tensor]) -> str | None:
        """Write the losses of this step if it is time to; returns the text for the bar then."""
        self._clock.count(
            self.options.batch_size * self.options.accumulate * self.processes.world_size
        )
        if not self._due(self.options.log_every):
            return None
        share = {
            name: self.processes.sum(value) / self.processes.world_size
            for name, value in losses.items()
        }
        values = {name: float(value) for name, value in share.items()}
        if self.run is None:
            return None
        line = {
            "loss": values.pop("loss"),
            "lr": float(self.optimizer.param_groups[0]["lr"]),
            "grad_norm": values.pop("grad_norm"),
            "images_per_second": self._clock.rate(),
        }
        self.run.log_step(self.step, line, values)
        text = (
            f"loss {line['loss']:.4f}  lr {line['lr']:.2e}  {line['images_per_second']:.1f} img/s"
        )
        if not console.is_terminal:
            logger.info("step %d/%d  %s", self.step, self.total_steps, text)
        return text

    def _evaluate(self) -> dict[str, Any]:
        """Score the model as it is, keep it if it is the best so far; the same on every process."""
        self.finite.settle()
        self.processes.broadcast(self.evaluated_model.buffers())
        with self._clock.paused():
            scores = self.evaluator.evaluate(self.evaluated_model)
        better = not self.best or scores.miou > self.best["mIoU"]
        if better and scores.miou == scores.miou:  # NaN is never the best
            self.best = {"mIoU": scores.miou, "step": self.step}
            self._save("best.pt", whole=False)
        self._evaluated_step = self.step
        names = self.evaluator.labels.names
        result = results(scores, names, step=self.step, seconds=self._clock.seconds)
        if self.run is not None:
            self.run.log_scores(self.step, result)
            if self.evaluator.picture is not None:
                self.run.log_image(self.step, self.evaluator.picture)
            best = self.best.get("mIoU", float("nan"))
            logger.info("step %d: mIoU %.4f, best %.4f", self.step, scores.miou, best)
            console.print(scores_table(scores, names, f"validation at step {self.step}"))
        return result

    @property
    def evaluated_model(self) -> nn.Module:
        """What is evaluated and kept: the moving average if there is one."""
        return self.model if self.ema is None else self.ema.module

    # ------------------------------------------------------------------ checkpoints

    def _checkpoint_path(self, name: str) -> Path | None:
        return None if self.run is None else self.run.checkpoints / name

    def _save(self, name: str, *, whole: bool = True) -> None:
        """Write a checkpoint: of the whole run, or of what inference needs."""
        if whole and self._saved_step == self.step:
            return
        self.finite.settle()
        path = self._checkpoint_path(name)
        state = self.state() if whole else self.model_state()  # every process has its part in it
        if path is not None:
            save_checkpoint(path, state)
        self._saved_step = self.step if whole else self._saved_step
        self.processes.wait()

    def model_state(self) -> State:
        """The weights, and what it takes to use them."""
        return {
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "step": self.step,
            "best": dict(self.best),
            "config": self.config.to_dict(),
            "metadata": self.metadata,
        }

    def state(self) -> State:
        """Everything that the rest of the run depends on."""
        return {
            **self.model_state(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema_updates": None if self.ema is None else self.ema.n_averaged,
            "total_steps": self.total_steps,
            "seconds": self._clock.seconds,
            "evaluated_step": self._evaluated_step,
            "criterion": self.processes.gather(self._criterion_state()),
            "rng": self.processes.gather(rng_state()),
        }

    def load_state(self, state: State, path: Path) -> None:
        """Go on from `state`, which was read from `path`.

        Raises:
            CheckpointError: When the checkpoint lacks a part or does not fit the model.
        """
        try:
            self.model.load_state_dict(entry(state, "model", path))
            if self.ema is not None:
                self.ema.module.load_state_dict(entry(state, "ema", path))
                self.ema.n_averaged.copy_(entry(state, "ema_updates", path))
            self._load_criterion(state)
            self._load_optimizer(state, path)
            if self.scaler.is_enabled() and entry(state, "scaler", path):
                self.scaler.load_state_dict(state["scaler"])
        except (RuntimeError, ValueError, KeyError, AttributeError, TypeError) as error:
            reason = one_line(error)
            raise CheckpointError(f"{path} does not fit this configuration: {reason}") from error
        self.step = entry(state, "step", path)
        if self.step > self.total_steps:
            raise ConfigError(
                f"{path} is at step {self.step}, past the budget of {self.total_steps} steps;"
                " raise trainer.max_steps or trainer.epochs"
            )
        self._clock = _Clock(entry(state, "seconds", path))
        self._evaluated_step = entry(state, "evaluated_step", path)
        self.best = entry(state, "best", path)
        states = entry(state, "rng", path)
        if len(states) == self.processes.world_size:
            set_rng_state(states[self.processes.rank])
        else:
            logger.warning(
                "the run had %d processes before: it goes on, not bit for bit", len(states)
            )

    def _criterion_state(self) -> State:
        return {key: value.cpu() for key, value in self.criterion.state_dict().items()}

    def _load_criterion(self, state: State) -> None:
        """What the criterion learned or averages; every process had its own averages."""
        saved = state.get("criterion") or [{}]  # older checkpoints have none
        rank = self.processes.rank if len(saved) == self.processes.world_size else 0
        self.criterion.load_state_dict(saved[rank])

    def _load_optimizer(self, state: State, path: Path) -> None:
        saved = entry(state, "optimizer", path)
        before = entry(state, "config", path)
        now = self.config.to_dict()
        same = all(before[key] == now[key] for key in ("optimizer", "scheduler"))
        if same and entry(state, "total_steps", path) == self.total_steps:
            self.optimizer.load_state_dict(saved)
            self.scheduler.load_state_dict(entry(state, "scheduler", path))
            return
        # Another rate, schedule or budget was asked for: the moments go on, the schedule is walked
        # to this step anew.
        logger.warning(
            "optimizer, scheduler or budget differ from those in %s; the new ones hold now",
            path,
        )
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": saved["state"], "param_groups": groups})
        for _ in range(entry(state, "step", path)):
            self.optimizer._opt_called = True  # type: ignore[attr-defined]  # or torch warns
            self.scheduler.step()
