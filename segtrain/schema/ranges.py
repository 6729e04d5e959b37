"""The values that a number of the configuration may have, stated beside its type."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from segtrain.errors import ConfigError


@dataclass(frozen=True)
class Range:
    """The allowed range of a number, or of each number in a sequence. Numbers must be finite.

    A field of a dataclass states its range in its annotation, and :func:`check_ranges` checks all
    of them: ``flip: Annotated[float, Range(0, 1)] = 0.5``.

    Args:
        low: The smallest value.
        high: The largest value.
        open_low: Whether `low` itself is not allowed.
        hint: The next step, appended to the error message.
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    hint: str = ""

    def __str__(self) -> str:
        """The range in words.

        Example:
            >>> print(Range(0, 1), Range(0, open_low=True), Range(high=1), sep=", ")
            from 0 to 1, above 0, at most 1
        """
        if self.low > -math.inf and self.high < math.inf and not self.open_low:
            return f"from {self.low:g} to {self.high:g}"
        low = f"{'above' if self.open_low else 'at least'} {self.low:g}"
        high = f"at most {self.high:g}"
        return " and ".join([low] * (self.low > -math.inf) + [high] * (self.high < math.inf))

    def __contains__(self, value: float) -> bool:
        inside = self.low <= value <= self.high and not (self.open_low and value == self.low)
        return inside and math.isfinite(value)

    def check(self, key: str, value: float | Sequence[float] | None) -> None:
        """Check the value of a key; None is always allowed.

        Raises:
            ConfigError: When the value, or one of a sequence, is out of range.

        Example:
            >>> Range(1).check("crop_size", (0, 64))
            Traceback (most recent call last):
            segtrain.errors.ConfigError: crop_size must be at least 1, got [0, 64]
        """
        if value is None:
            return
        values = value if isinstance(value, Sequence) else [value]
        if not all(one in self for one in values):
            shown = list(value) if isinstance(value, Sequence) else value
            finite = "" if all(map(math.isfinite, values)) else "finite and "
            raise ConfigError(f"{key} must be {finite}{self}, got {shown}{self.hint}")


def ranges_of(annotation: Any) -> list[Range]:
    """The ranges that an annotation states, as in ``Annotated[float, Range(0)]``."""
    return [note for note in getattr(annotation, "__metadata__", ()) if isinstance(note, Range)]


def check_ranges(section: Any) -> None:
    """Check every field of a dataclass whose annotation states a :class:`Range`.

    Raises:
        ConfigError: When a value is out of range.
    """
    for name, annotation in get_type_hints(type(section), include_extras=True).items():
        for allowed in ranges_of(annotation):
            allowed.check(name, getattr(section, name))
