"""Checks of the arguments of a loss, one per kind of range.

Each returns the value that it has checked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from segtrain.errors import ConfigError


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


def check_one_of(name: str, value: str, allowed: Iterable[str]) -> str:
    """Check that `value` is one of the words `allowed`.

    Raises:
        ConfigError: Otherwise, with `name` and the words.
    """
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    return value
