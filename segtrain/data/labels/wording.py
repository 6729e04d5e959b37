"""Values, colours, shares and label maps in words, as messages about masks show them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from segtrain.data.labels.label_map import compact_map

MAX_LISTED = 10
_LONG_MAP = 8  # a map with more entries is written as ranges
_MAX_MAP = 400  # characters
_WORD = re.compile(r"[A-Za-z_][A-Za-z_0-9-]*|\d+-\d+")
_KEYWORDS = ("true", "false", "null", "nan", "inf")  # which Hydra does not read as a text


def list_counts(counts: Mapping[int, int], *, colours: bool = False) -> str:
    """Return values and their numbers of pixels in words.

    Example:
        >>> list_counts({7: 12, 9: 1})
        'value 7 (12 pixels) and value 9 (1 pixel)'
    """
    parts = [
        f"{colour(v) if colours else f'value {v}'} ({n} pixel{'' if n == 1 else 's'})"
        for v, n in counts.items()
    ]
    if len(parts) > MAX_LISTED:
        parts = [*parts[:MAX_LISTED], f"{len(parts) - MAX_LISTED} other values"]
    return in_words(parts)


def in_words(parts: Iterable[object]) -> str:
    """Join parts by commas and one "and".

    Example:
        >>> in_words([0, 128, 255])
        '0, 128 and 255'
    """
    *first, last = map(str, parts)
    return " and ".join([", ".join(first), last] if first else [last])


def percent(pixels: int, total: int) -> str:
    """Return a share of pixels, with enough digits to tell it from none.

    Example:
        >>> percent(1, 8), percent(1, 3000), percent(1, 10**6)
        ('12.5 %', '0.033 %', 'less than 0.01 %')
    """
    share = 100 * pixels / max(total, 1)
    if 0 < share < 0.01:
        return "less than 0.01 %"
    return f"{share:.1f} %" if share >= 1 else f"{share:.2g} %"


def override(key: str, value: Mapping[Any, Any] | Sequence[Any] | int) -> str:
    """Return a config override as typed in a shell, quoted if the shell would split it.

    Example:
        >>> override("num_classes", 3), override("label_map", {0: 0, 255: 1})
        ('dataset.num_classes=3', "'dataset.label_map={0:0,255:1}'")
        >>> print(override("class_names", ["car", "traffic light"]))
        'dataset.class_names=[car,"traffic light"]'
    """
    if isinstance(value, int):
        return f"dataset.{key}={value}"
    if not isinstance(value, Mapping):
        return shlex.quote(f"dataset.{key}={_written(value)}")
    # Keys take no quotes in Hydra's notation.
    entries = ",".join(f"{raw}:{_written(name)}" for raw, name in value.items())
    return shlex.quote(f"dataset.{key}={{{entries}}}")


def _written(value: Any) -> str:
    """Return a list, a number or a text as Hydra reads it."""
    if isinstance(value, str):
        is_word = _WORD.fullmatch(value) and value.lower() not in _KEYWORDS
        return value if is_word else '"' + value.replace('"', r"\"") + '"'
    if isinstance(value, Sequence):
        return f"[{','.join(map(_written, value))}]"
    return str(value)


def describe_map(values: Mapping[int, int], max_length: int = _MAX_MAP) -> str:
    """Return a label map as an override, a long one as ranges; empty if longer than `max_length`.

    Example:
        >>> describe_map({raw: raw - 1 for raw in range(1, 151)})
        "'dataset.label_map={1-150:0-149}'"
    """
    text = override("label_map", compact_map(values) if len(values) > _LONG_MAP else values)
    return text if len(text) <= max_length else ""


def colour(packed: int) -> str:
    """Return a colour in words.

    Example:
        >>> colour(0x4000FF)
        'colour (64, 0, 255)'
    """
    return f"colour ({', '.join(map(str, channels(packed)))})"


def channels(packed: int) -> tuple[int, int, int]:
    """Return red, green and blue of a colour, ``0xRRGGBB``."""
    return packed >> 16, packed >> 8 & 255, packed & 255
