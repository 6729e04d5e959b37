"""The types and ranges of the values in a checkpoint, which may come from anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from segtrain.errors import CheckpointError, one_line, printable

Check = Callable[[Any], bool]
_MOST_STEPS = 2**53


class Rule(NamedTuple):
    """What is allowed at a place.

    Attributes:
        holds: Whether a value is allowed.
        words: What is allowed, in words.
    """

    holds: Check
    words: str


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any, low: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value < _MOST_STEPS


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(key, str) and isinstance(item, Tensor) for key, item in value.items()
    )


def _is_list_of(check: Check) -> Check:
    return lambda value: isinstance(value, (list, tuple)) and all(map(check, value))


def _is_colour(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 3
        and all(_is_count(part) and part < 256 for part in value)
    )


def _optional(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _is_best(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        _is_name(key) and _is_number(item) for key, item in value.items()
    )


def _is_plain(value: Any) -> bool:
    """Whether a value of a schedule is one that it can compute with."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(_is_plain(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (int, str, Tensor))


def _is_schedule(value: Any) -> bool:
    if not isinstance(value, Mapping) or not _is_plain(value):
        return False
    rates = [value[key] for key in ("base_lrs", "_last_lr") if key in value]
    steps = [value[key] for key in ("last_epoch", "_step_count") if key in value]
    return (
        bool(steps)
        and all(_is_count(step) for step in steps)
        and all(_is_list_of(_is_number)(rate) for rate in rates)
    )


def _is_group(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and _is_number(value.get("lr"))
        and value["lr"] >= 0
        and _is_list_of(_is_count)(value.get("params"))
    )


def _is_optimizer(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and _is_list_of(_is_group)(value.get("param_groups"))
        and isinstance(value.get("state"), Mapping)
        and all(isinstance(item, Mapping) for item in value["state"].values())
    )


def _is_generator(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and _is_bytes(value.get("torch"))
        and _is_list_of(_is_bytes)(value.get("cuda"))
        and _is_python(value.get("python"))
        and _is_numpy(value.get("numpy"))
    )


def _is_bytes(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.uint8 and value.dim() == 1


def _is_python(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 3
        and _is_list_of(_is_count)(value[1])
        and len(value[1]) == 625
    )


def _is_numpy(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 5
        and value[0] == "MT19937"
        and isinstance(value[1], Tensor)
        and value[1].shape == (624,)
        and _is_count(value[2])
    )


_STEP = Rule(_is_count, "a whole number of at least 0")
_POSITIVE = Rule(lambda value: _is_count(value, 1), "a whole number of at least 1")
_TENSORS = Rule(_is_tensors, "tensors by name")
_BOOL = Rule(lambda value: isinstance(value, bool), "true or false")
_NUMBERS = Rule(_is_list_of(_is_number), "a list of finite numbers")
_MAPPING = Rule(lambda value: isinstance(value, Mapping), "a mapping")

# Every entry may be missing: whoever needs it says so.
_RULES: dict[str, Rule] = {
    "step": _STEP,
    "model": _TENSORS,
    "ema": Rule(_optional(_is_tensors), "tensors by name, or nothing"),
    "best": Rule(_is_best, "finite numbers by name"),
    "config": _MAPPING,
    "metadata": _MAPPING,
    "optimizer": Rule(_is_optimizer, "the state of an optimizer, with groups and moments"),
    "scheduler": Rule(_is_schedule, "the state of a schedule, with its steps and rates"),
    "scaler": _MAPPING,
    "ema_updates": Rule(
        _optional(lambda value: isinstance(value, Tensor) or _is_count(value)), "a number"
    ),
    "total_steps": _POSITIVE,
    "seconds": Rule(lambda value: _is_number(value) and value >= 0, "a number of at least 0"),
    "evaluated_step": Rule(lambda value: value == -1 or _is_count(value), "a step, or -1"),
    "criterion": Rule(_is_list_of(_is_tensors), "tensors by name, for each process"),
    "rng": Rule(_is_list_of(_is_generator), "the states of the random generators"),
    "hooks": Rule(
        _is_list_of(
            lambda value: (
                isinstance(value, Mapping)
                and _is_name(value.get("hook"))
                and isinstance(value.get("state"), Mapping)
            )
        ),
        "the states of hooks",
    ),
    "metadata.model": Rule(
        lambda value: isinstance(value, Mapping) and _is_name(value.get("name")),
        "a mapping with a name",
    ),
    "metadata.channels": _POSITIVE,
    "metadata.num_classes": _POSITIVE,
    "metadata.ignore_label": Rule(lambda value: isinstance(value, int), "a whole number"),
    "metadata.class_names": Rule(_is_list_of(_is_name), "a list of names"),
    "metadata.palette": Rule(_is_list_of(_is_colour), "a list of colours [red, green, blue]"),
    "metadata.mean": _NUMBERS,
    "metadata.std": Rule(
        _is_list_of(lambda value: _is_number(value) and value > 0), "a list of numbers above 0"
    ),
    "metadata.size": Rule(
        _optional(
            lambda value: _is_list_of(lambda one: _is_count(one, 1))(value) and len(value) == 2
        ),
        "a height and a width",
    ),
    "metadata.multi_label": _BOOL,
    "metadata.align_corners": _BOOL,
    "metadata.channels_last": _BOOL,
    "metadata.precision": Rule(lambda value: value in ("fp32", "bf16", "fp16"), "fp32, bf16, fp16"),
    "metadata.thresholds": Rule(
        _optional(_is_list_of(lambda value: _is_number(value) and 0 < value < 1)),
        "a list of numbers between 0 and 1",
    ),
    "metadata.reading": _MAPPING,
    "metadata.class_weights": _MAPPING,
    "config.trainer": _MAPPING,
    "config.dataset": _MAPPING,
    "config.plugins": Rule(_is_list_of(_is_name), "a list of names"),
}


def check_values(state: Mapping[str, Any], path: object) -> None:
    """Check the types and ranges of the values in a checkpoint.

    Raises:
        CheckpointError: When one is wrong, with its key, the value and what is allowed.

    Example:
        >>> check_values({"step": -1}, "last.pt")
        Traceback (most recent call last):
        segtrain.errors.CheckpointError: last.pt: 'step' must be a whole number of at least 0, ...
    """
    for key, rule in _RULES.items():
        for value in _found(state, key):
            if not rule.holds(value):
                raise CheckpointError(
                    f"{path}: {key!r} must be {rule.words}, but it is {_shown(value)}; the file is"
                    " damaged or was written by another program"
                )
    _check_lengths(state.get("metadata", {}), path)


def _check_lengths(metadata: Mapping[str, Any], path: object) -> None:
    channels = metadata.get("channels")
    for key in ("mean", "std"):
        values = metadata.get(key)
        if values is not None and channels is not None and len(values) != channels:
            raise CheckpointError(
                f"{path}: 'metadata.{key}' has {len(values)} numbers, but the model takes images of"
                f" {channels} channels"
            )
    names, palette = metadata.get("class_names"), metadata.get("palette")
    if names is not None and palette is not None and len(names) != len(palette):
        raise CheckpointError(
            f"{path}: 'metadata.class_names' has {len(names)} names, but 'metadata.palette'"
            f" {len(palette)} colours"
        )


def _found(state: Mapping[str, Any], key: str) -> Iterator[Any]:
    """The value at a dotted key, if it is there."""
    first, _, rest = key.partition(".")
    if first not in state:
        return
    if not rest:
        yield state[first]
    elif isinstance(state[first], Mapping):
        yield from _found(state[first], rest)


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return printable(one_line(repr(value), 60))
