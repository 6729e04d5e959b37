"""Compare the configuration of a run with that of the checkpoint that it resumes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from segtrain.engine.checkpoint import State, entry
from segtrain.engine.trainer import Trainer
from segtrain.errors import CheckpointError, ConfigError, one_line
from segtrain.terminal import logger

_CRITERION = ("loss", "mining", "criterion")
_TRAINER = ("batch_size", "accumulate", "clip_grad_norm", "precision", "ema_decay")
_COMPARED = (
    *_CRITERION,
    *("optimizer", "scheduler", "seed"),
    *(f"trainer.{key}" for key in _TRAINER),
)
_NO_EFFECT = ("criterion.strip_rows",)  # changes memory, not the loss
_STATE = {"optimizer": "moments", "scheduler": "state"}
_MAX_LENGTH = 80  # characters of a value


class Change(NamedTuple):
    """A key with another value than in the checkpoint; None stands for a key that is not set."""

    key: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key} {_shown(self.before)} -> {_shown(self.now)}"


def check_resumable(trainer: Trainer, state: State, path: Path) -> None:
    """Refuse a checkpoint whose state a run cannot use; warn of every other change.

    A change of the loss, the learning rate, ... is allowed, as it changes the optimization but not
    the state. Another optimizer, another schedule or other learned numbers of the criterion change
    the state.

    Args:
        trainer: The trainer, at the step of the checkpoint.
        state: The checkpoint.
        path: The file that it was loaded from, for messages.

    Raises:
        CheckpointError: When the state does not fit.
        ConfigError: When the run is finished, so that a change would only relabel it.
    """
    before, now = entry(state, "config", path), trainer.config.to_dict()
    changes = list(_changes(before, now))
    listed = ", ".join(map(str, changes))
    if changes and trainer.step == trainer.total_steps:
        raise ConfigError(
            f"{path} is finished, but this configuration differs from its own: {listed}; choose"
            " another run_dir to train with it"
        )
    for section in _STATE:
        _check_section(section, before, now, path)
    _check_criterion(trainer, state, changes, path)
    if trainer.ema is not None and entry(state, "ema", path) is None:
        raise _refusal(
            path, "trainer.ema_decay=null", f"trainer.ema_decay={trainer.ema.decay:g}",
            "so it holds no moving average of the weights",
        )  # fmt: skip
    steps = Change("total steps", entry(state, "total_steps", path), trainer.total_steps)
    if steps.before != steps.now:
        listed = ", ".join(map(str, [*changes, steps]))
    if listed:
        logger.warning("%s was trained with other values; the new ones are used: %s", path, listed)


def check_groups(trainer: Trainer, saved: State, state: State, path: Path) -> None:
    """Check that the optimizer groups the parameters as in the checkpoint.

    Its state goes by the position of a parameter, so moments would reach other parameters.

    Args:
        trainer: The trainer.
        saved: The entry ``optimizer`` of the checkpoint.
        state: The checkpoint.
        path: The file that it was loaded from, for messages.

    Raises:
        CheckpointError: When it groups them in another way.
    """
    ours, theirs = (
        [len(group["params"]) for group in groups]
        for groups in (trainer.optimizer.param_groups, saved["param_groups"])
    )
    if ours == theirs:
        return
    changes = list(_changes(state["config"], trainer.config.to_dict(), ("optimizer",)))
    if not changes:
        raise CheckpointError(
            f"{path} does not fit this configuration: its optimizer has {sum(theirs)} parameters in"
            f" {len(theirs)} groups, that of this run {sum(ours)} in {len(ours)}"
        )
    raise _refusal(path, *_sides(changes), "which groups the parameters of the model differently")


def _check_section(section: str, before: State, now: State, path: Path) -> None:
    """Refuse another optimizer or scheduler, also one that starts or stops to use momentum."""
    kinds = [(spec[section]["name"], bool(spec[section].get("momentum"))) for spec in (before, now)]
    if kinds[0] != kinds[1]:
        keys = (section, f"{section}.momentum")
        changes = [change for change in _changes(before, now, (section,)) if change.key in keys]
        raise _refusal(path, *_sides(changes), f"which does not fit its {_STATE[section]}")


def _check_criterion(trainer: Trainer, state: State, changes: Sequence[Change], path: Path) -> None:
    """Refuse another loss or mining if one of the two keeps numbers in the checkpoint."""
    saved = (state.get("criterion") or [{}])[0]  # older checkpoints have no entry
    ours, theirs = (
        {key: tuple(value.shape) for key, value in numbers.items()}
        for numbers in (trainer.criterion.state_dict(), saved)
    )
    own = [change for change in changes if _section(change) in _CRITERION]
    if ours == theirs or not own:
        return
    config = trainer.config.to_dict()
    same = [
        Change(key, config[key]["name"], config[key]["name"])
        for key in ("loss", "mining")
        if all(change.key != key for change in own)
    ]
    why = "and the learned weights or running averages of one do not fit the other"
    both = sorted([*same, *own], key=lambda change: _CRITERION.index(_section(change)))
    raise _refusal(path, *_sides(both), why)


def _section(change: Change) -> str:
    return change.key.partition(".")[0]


def _refusal(path: Path, before: str, now: str, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path} was trained with {before}, but the configuration has {now}, {why}; resume with"
        f" {before}, or start a new run from the weights alone: leave out resume=, choose another"
        f" run_dir and set model.weights={path}"
    )


def _sides(changes: Sequence[Change]) -> tuple[str, str]:
    """The keys and values before and now, as typed; a key without a value is left out."""
    before, now = (
        [
            f"{change.key}={_shown(value)}"
            for change in changes
            if (value := getattr(change, side)) is not None
        ]
        for side in ("before", "now")
    )
    return " ".join(before), " ".join(now)


def _changes(before: State, now: State, keys: Sequence[str] = _COMPARED) -> Iterator[Change]:
    """Yield each key at or below one of `keys` that has another value than before."""
    for key in keys:
        sides = [_at(key, config) for config in (before, now)]
        if sides[0] == {}:  # the checkpoint is of an older version
            continue
        old, new = (dict(_flat(key, side)) for side in sides)
        for name in {**old, **new}:
            if old.get(name) != new.get(name) and name not in _NO_EFFECT:
                yield Change(name.removesuffix(".name"), old.get(name), new.get(name))


def _at(key: str, config: State) -> Any:
    """The value at a dotted key; an empty mapping if there is none."""
    section, _, rest = key.partition(".")
    found = config.get(section, {})
    return _at(rest, found) if rest else found


def _flat(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every dotted key below `key`, with its value."""
    if not isinstance(value, Mapping):
        yield key, value
        return
    for name, item in value.items():
        yield from _flat(f"{key}.{name}", item)


def _shown(value: Any) -> str:
    """A value as typed; a long one is cut off."""
    plain = {None: "null", True: "true", False: "false"}
    is_plain = value is None or isinstance(value, bool)
    return plain[value] if is_plain else one_line(value, _MAX_LENGTH)
