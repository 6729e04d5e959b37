from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from segtrain.errors import ConfigError
from segtrain.schema.arguments import (
    check_at_least_one,
    check_not_negative,
    check_one_of,
    check_positive,
)


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (check_not_negative, 0.0),
        (check_not_negative, 1e300),
        (check_positive, 5e-324),
        (check_at_least_one, 1),
    ],
)
def test_the_value_is_returned(check: Callable[[str, Any], Any], value: float) -> None:
    assert check("gamma", value) == value
    assert check_one_of("kind", "b", ("a", "b")) == "b"


@pytest.mark.parametrize(
    ("check", "value", "message"),
    [
        (check_not_negative, -1e-9, "gamma must be finite and not negative, got -1e-09"),
        (check_not_negative, math.inf, "gamma must be finite and not negative, got inf"),
        (check_not_negative, math.nan, "gamma must be finite and not negative, got nan"),
        (check_positive, 0.0, "gamma must be finite and above 0, got 0.0"),
        (check_positive, math.inf, "gamma must be finite and above 0, got inf"),
        (check_positive, math.nan, "gamma must be finite and above 0, got nan"),
        (check_at_least_one, 0, "gamma must be at least 1, got 0"),
    ],
)
def test_a_wrong_value_is_refused(
    check: Callable[[str, Any], Any], value: float, message: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{message}$"):
        check("gamma", value)


def test_a_wrong_word_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^unknown kind 'c'. Known: a, b$"):
        check_one_of("kind", "c", {"a": 1, "b": 2})
    with pytest.raises(
        ConfigError,
        match=r"^unknown kind 'largr'; did you mean 'large'\? Known: large, or a number$",
    ):
        check_one_of("kind", "largr", ["large"], also="a number")
