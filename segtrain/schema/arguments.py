"""Checks of constructor arguments, one per kind of range, for callers without a configuration.

Each returns the value that it has checked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from segtrain.errors import ConfigError
from segtrain.schema.values import did_you_mean


def check_not_negative(name: str, value: float) -> float:
    """Check that `value` is finite and at least 0.

    Raises:
        ConfigError: Otherwise, with `name`.
    """
    if not 0 <= value < math.inf:
        raise ConfigError(f"{name} must be finite and not negative, got {value}")
    return value


def check_positive(name: str, value: float) -> float:
    """Check that `value` is finite and above 0.

    Raises:
        ConfigError: Otherwise, with `name`.
    """
    if not 0 < value < math.inf:
        raise ConfigError(f"{name} must be finite and above 0, got {value}")
    return value


def check_at_least_one(name: str, value: int) -> int:
    """Check that `value` is at least 1.

    Raises:
        ConfigError: Otherwise, with `name`.
    """
    if value < 1:
        raise ConfigError(f"{name} must be at least 1, got {value}")
    return value


def check_ignore_label(ignore_label: int, num_classes: int) -> int:
    """Check that a label is a whole number and no class id; one class has the ids 0 and 1.

    Raises:
        ConfigError: Otherwise.
    """
    if isinstance(ignore_label, bool) or not isinstance(ignore_label, int):
        raise ConfigError(f"ignore_label must be a whole number, got {ignore_label!r}")
    if 0 <= ignore_label < max(num_classes, 2):
        raise ConfigError(
            f"ignore_label {ignore_label} is also a class id: num_classes is {num_classes}"
        )
    return ignore_label


def check_one_of(name: str, value: str, allowed: Iterable[str], also: str = "") -> str:
    """Check that `value` is one of the words `allowed`; `also` names what else is accepted.

    Raises:
        ConfigError: Otherwise, with `name`, the closest word and all words.
    """
    if value not in allowed:
        also = f", or {also}" if also else ""
        raise ConfigError(f"unknown {name} {value!r}{did_you_mean(str(value), allowed)}{also}")
    return value
