"""Resume a run exactly where its checkpoint was saved."""

from __future__ import annotations

from pathlib import Path

from segtrain.engine.checkpoint import State, entry, set_rng_state
from segtrain.engine.clock import Clock
from segtrain.engine.resume_changes import changes
from segtrain.engine.resume_check import (
    check_resumable,
    describe_world_size,
    fitting_moments,
    moments_fit,
)
from segtrain.engine.trainer import Trainer
from segtrain.errors import CheckpointError, ConfigError, one_line
from segtrain.models.weights import check_values
from segtrain.terminal import logger


def resume(trainer: Trainer, state: State, path: Path) -> None:
    """Set a new trainer to the state of a run, as :meth:`Trainer.state` saved it.

    Args:
        trainer: The trainer, before its first step.
        state: The checkpoint.
        path: The file that it was loaded from, for messages.

    Raises:
        CheckpointError: When the checkpoint lacks a part, does not fit the configuration, or has
            weights that are not finite.
        ConfigError: When the run is longer than that of `trainer`, or finished with other values.
    """
    trainer.step = entry(state, "step", path)
    if trainer.step > trainer.total_steps:
        raise ConfigError(
            f"{path} is at step {trainer.step}, beyond the {trainer.total_steps} steps of this run;"
            " raise trainer.max_steps or trainer.epochs"
        )
    check_resumable(trainer, state, path)
    own = trainer.model.state_dict()
    for key in ("model", "ema"):
        check_values(state.get(key) or {}, path, own)
    try:
        trainer.model.load_state_dict(trainer.parallel.parts(entry(state, "model", path), own))
        _load_average(trainer, state, path)
        _load_criterion(trainer, state)
        _load_optimizer(trainer, state, path)
        if trainer.scaler.is_enabled() and entry(state, "scaler", path):
            trainer.scaler.load_state_dict(state["scaler"])
    except (RuntimeError, ValueError, KeyError, AttributeError, TypeError) as error:
        reason = one_line(error)
        raise CheckpointError(f"{path} does not fit this configuration: {reason}") from error
    trainer.hooks.load(state.get("hooks") or [])
    trainer.clock = Clock(entry(state, "seconds", path))
    trainer.evaluated_step = entry(state, "evaluated_step", path)
    trainer.best = _best(trainer, state, path)
    states = entry(state, "rng", path)
    now = trainer.processes.world_size
    if len(states) == now:
        set_rng_state(states[trainer.processes.rank])
    elif trainer.processes.is_main:
        before = entry(state, "config", path)["trainer"]
        samples = (
            len(states) * before["batch_size"] * before["accumulate"],
            now * trainer.options.batch_size * trainer.options.accumulate,
        )
        logger.warning("%s", describe_world_size(len(states), now, samples))


def _best(trainer: Trainer, state: State, path: Path) -> dict[str, float]:
    """The best score so far, if later scores can be compared with it."""
    best: dict[str, float] = entry(state, "best", path)
    if trainer.options.best not in best:  # trainer.best has changed
        return {}
    found = changes(entry(state, "config", path), trainer.config.to_dict())
    others = [one.key for one in found if one.section == "evaluation"]
    if any(key != "evaluation.metrics" for key in others):
        logger.warning(
            "the best score so far is of another evaluation, so best.pt starts anew with the next"
        )
        return {}
    return best


def _load_average(trainer: Trainer, state: State, path: Path) -> None:
    """Restore the moving average of the weights; a run that had none starts it here."""
    if trainer.ema is None:
        return
    own = trainer.ema.module.state_dict()
    if entry(state, "ema", path) is None:
        trainer.ema.module.load_state_dict(trainer.parallel.parts(state["model"], own))
        _reinitialised("the moving average of the weights", "the weights of this step")
        return
    trainer.ema.module.load_state_dict(trainer.parallel.parts(state["ema"], own))
    trainer.ema.n_averaged.copy_(entry(state, "ema_updates", path))


def _load_criterion(trainer: Trainer, state: State) -> None:
    """Restore learned parameters and running averages; each process has its own averages."""
    saved = state.get("criterion") or [{}]  # older checkpoints have no entry
    rank = trainer.processes.rank if len(saved) == trainer.processes.world_size else 0
    shapes = [
        {key: value.shape for key, value in numbers.items()}
        for numbers in (saved[rank], trainer.criterion.state_dict())
    ]
    if shapes[0] == shapes[1]:
        trainer.criterion.load_state_dict(saved[rank])
    else:
        _reinitialised("the learned weights and running averages of the loss", "their defaults")


def _load_optimizer(trainer: Trainer, state: State, path: Path) -> None:
    saved = entry(state, "optimizer", path)
    before = entry(state, "config", path)
    now = trainer.config.to_dict()
    if moments_fit(trainer, state, path):
        same = all(before[key] == now[key] for key in ("optimizer", "scheduler"))
        same &= len(saved["param_groups"]) == len(trainer.optimizer.param_groups)
        if same and entry(state, "total_steps", path) == trainer.total_steps:
            trainer.optimizer.load_state_dict(trainer.parallel.moments(saved, trainer.optimizer))
            trainer.scheduler.load_state_dict(entry(state, "scheduler", path))
            return
        # The learning rate, the schedule or the number of steps changed: keep the moments, and step
        # the new schedule up to this step.
        groups = trainer.optimizer.state_dict()["param_groups"]
        count = fitting_moments(trainer, state, path)
        moments = {key: value for key, value in saved["state"].items() if key < count}
        kept = {"state": moments, "param_groups": groups}
        trainer.optimizer.load_state_dict(trainer.parallel.moments(kept, trainer.optimizer))
    else:
        _reinitialised("the state of the optimizer", "no moments")
    for _ in range(entry(state, "step", path)):
        trainer.optimizer._opt_called = True  # type: ignore[attr-defined]  # or torch warns
        trainer.scheduler.step()


def _reinitialised(what: str, start: str) -> None:
    logger.warning("%s does not fit that of the checkpoint, so it starts anew from %s", what, start)
