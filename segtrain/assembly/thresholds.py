"""The thresholds of a checkpoint that is scored."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from segtrain.engine.checkpoint import State, load_checkpoint, save_checkpoint
from segtrain.engine.status import lock
from segtrain.errors import CheckpointError, ConfigError
from segtrain.schema.sections import SWEEP, EvaluateConfig

Thresholds = tuple[float, ...]


def chosen_thresholds(config: EvaluateConfig, metadata: State) -> Thresholds | None:
    """The threshold of each logit: that of the configuration, else that of the checkpoint.

    Returns:
        One threshold per logit; None for one half, for exclusive classes, and before a sweep.

    Raises:
        ConfigError: When thresholds are given for exclusive classes, or their number is wrong.
        CheckpointError: When the checkpoint holds a wrong number of them.
    """
    given, num_logits = config.thresholds, int(metadata["num_classes"])
    if given is None:
        stored = metadata.get("thresholds")
        if stored is not None and len(stored) != num_logits:
            raise CheckpointError(
                f"the checkpoint holds {len(stored)} thresholds for {num_logits} logits; choose"
                " them again with thresholds=sweep, or set thresholds=0.5"
            )
        return None if stored is None else tuple(stored)
    if num_logits > 1 and not metadata.get("multi_label"):
        raise ConfigError(
            f"thresholds={given}: the model has {num_logits} classes that exclude each other, and"
            " predicts the one of the largest probability; leave thresholds out"
        )
    if given == SWEEP:
        return None
    if isinstance(given, float):
        return (given,) * num_logits
    assert not isinstance(given, str)
    if len(given) != num_logits:
        raise ConfigError(
            f"thresholds has {len(given)} numbers, but the model has {num_logits} logits:"
            f" {', '.join(names_of_logits(metadata))}; give one number for each, or one for all"
        )
    return given


def names_of_logits(metadata: State) -> list[str]:
    """The name of the class of each logit, for data with one logit and multi-label data."""
    return list(metadata["class_names"])[-int(metadata["num_classes"]) :]


def described(thresholds: Sequence[float], names: Sequence[str]) -> str:
    """Thresholds with the names of their classes.

    Example:
        >>> described([0.43, 0.5], ["vessel", "disc"])
        'vessel 0.43, disc 0.5'
    """
    return ", ".join(f"{name} {value:g}" for name, value in zip(names, thresholds, strict=True))


def store_thresholds(path: Path, thresholds: Thresholds, step: int) -> None:
    """Write thresholds to the metadata of a checkpoint, atomically; all else stays as it is.

    Args:
        path: The checkpoint.
        thresholds: One per logit.
        step: The step of the weights for which they were chosen.

    Raises:
        RunDirectoryBusyError: When the run is still training, which may replace the checkpoint.
        CheckpointError: When the checkpoint was replaced since it was scored.
    """
    with ExitStack() as stack:
        if path.parent.name == "checkpoints":
            stack.enter_context(lock(path.parent.parent, "checkpoint"))
        state = load_checkpoint(path)
        if state["step"] != step:
            raise CheckpointError(
                f"{path} was replaced while it was scored: it is of step {state['step']}, not"
                f" {step}; choose the thresholds again"
            )
        state["metadata"] = {**state["metadata"], "thresholds": list(thresholds)}
        save_checkpoint(path, state)
