"""The keys of a configuration that differ from those of the checkpoint, and what they mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from segtrain.engine.checkpoint import State
from segtrain.errors import one_line

SAMPLES = "training samples"
"""Stands for the key of the samples that a dataset has, whatever its keys are."""
_MAX_LENGTH = 80  # characters of a value

# Keys that change neither what is trained nor the scores.
_NO_EFFECT = (
    *("hooks", "name", "run_dir", "resume", "resume_allow", "plugins", "criterion.strip_rows"),
    *(f"loader.{key}" for key in ("num_workers", "prefetch_factor", "cache")),
    *(f"evaluation.{key}" for key in ("batch_size",)),
    *(
        f"trainer.{key}"
        for key in (
            *("max_steps", "epochs", "stop_after", "device", "compile", "channels_last"),
            *("log_every", "log_images", "checkpoint_every", "checkpoint_minutes", "on_nonfinite"),
            *("deterministic", "timeout", "keep_every", "parallel"),
        )
    ),
    *(f"model.{key}" for key in ("weights", "reinit", "abn", "activation_checkpointing")),
)
# What else a run may change without being asked, beside the numbers of optimizer and schedule.
_ALLOWED = (
    "evaluation",
    *(f"trainer.{key}" for key in ("best", "evaluate_every", "clip_grad_norm", "clip_grad_value")),
)
_KINDS = ("optimizer.name", "scheduler.name")
_EFFECTS = {
    "dataset": "trains on other samples or classes",
    SAMPLES: "trains on other samples",
    "model": "is another model",
    "loss": "minimises another loss",
    "mining": "minimises another loss",
    "criterion": "minimises another loss",
    "augmentation": "trains on other images",
    "seed": "has another order of samples and augmentation",
    "loader": "draws other samples",
    "optimizer.name": "has no use for the moments",
    "optimizer": "takes other steps",
    "scheduler": "has another learning rate",
    "evaluation": "scores in another way",
    "trainer.batch_size": "is at another place in the epoch",
    "trainer.accumulate": "is at another place in the epoch",
    "trainer.ema_decay": "averages the weights in another way",
    "trainer.freeze": "trains other parameters",
    "trainer.thaw_at": "trains other parameters",
    "trainer.precision": "rounds in another way",
}
# Sections whose keys are those of a class: a key that the checkpoint lacks is of a newer version.
_FIXED = ("trainer", "loader", "augmentation", "evaluation", "criterion")


class Change(NamedTuple):
    """A key with another value than in the checkpoint; None stands for a key that is not set."""

    key: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.shown_key} {shown(self.before)} -> {shown(self.now)}"

    @property
    def shown_key(self) -> str:
        """The key as typed: ``loss`` instead of ``loss.name``."""
        return self.key.removesuffix(".name")

    @property
    def section(self) -> str:
        """The section of the key."""
        return self.key.partition(".")[0]

    @property
    def effect(self) -> str:
        """What the run then does otherwise."""
        for key in (self.key, self.section):
            if key in _EFFECTS:
                return _EFFECTS[key]
        return "trains in another way"

    def is_allowed(self, given: Sequence[str]) -> bool:
        """Whether a run may make this change.

        Args:
            given: The sections and keys of ``resume_allow``.
        """
        names = (self.key, self.section, self.shown_key)
        if any(name in given for name in names):
            return True
        if self.key == SAMPLES:
            return "dataset" in given
        if self.section in ("optimizer", "scheduler"):
            return self.key not in _KINDS
        return self.section in _ALLOWED or self.key in _ALLOWED


def changes(before: State, now: State) -> list[Change]:
    """Every key that has an effect and another value than before.

    Example:
        >>> [str(one) for one in changes({"seed": 0, "loss": {"name": "dice"}}, {"seed": 1})]
        ['seed 0 -> 1', 'loss dice -> null']
    """
    found = []
    for section in {**before, **now}:
        if section not in before:  # the checkpoint is of an older version
            continue
        old, new = (dict(_flat(section, side.get(section))) for side in (before, now))
        for key in {**old, **new}:
            is_newer = section in _FIXED and key not in old
            if old.get(key) != new.get(key) and not is_newer and not _has_no_effect(key):
                found.append(Change(key, old.get(key), new.get(key)))
    return found


def _has_no_effect(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in _NO_EFFECT)


def _flat(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every dotted key below `key`, with its value."""
    if not isinstance(value, Mapping):
        yield key, value
        return
    for name, item in value.items():
        yield from _flat(f"{key}.{name}", item)


def shown(value: Any) -> str:
    """A value as typed; a long one is cut off."""
    plain = {None: "null", True: "true", False: "false"}
    is_plain = value is None or isinstance(value, bool)
    return plain[value] if is_plain else one_line(value, _MAX_LENGTH)


def sides(found: Sequence[Change]) -> tuple[str, str]:
    """The keys and values before and now, as typed; a key without a value is left out."""
    before, now = (
        [
            f"{change.shown_key}={shown(value)}"
            for change in found
            if (value := getattr(change, side)) is not None
        ]
        for side in ("before", "now")
    )
    return " ".join(before), " ".join(now)
