"""The notation of `dataset.label_map`: raw values, ranges and lists to class ids or names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from segtrain.errors import ConfigError
from segtrain.schema.values import did_you_mean

IGNORE, OTHER = "ignore", "other"
MapGiven = Mapping[int | str, int | str] | Sequence[int | str]
"""A label map as in the configuration: a mapping, or a list whose positions are the raw values."""

_RANGE = re.compile(r"(-?\d+)-(-?\d+)")
_MAX_VALUES = 1 << 24
_KEYS = (
    "a raw value (7), a range (7-10), a list (7,9,11), a colour (0xRRGGBB) or the word other, which"
    " stands for all values without an entry"
)


@dataclass(frozen=True)
class LabelMap:
    """The class ids of raw mask values.

    Args:
        values: Raw value to class id or the ignore label.
        other: The class id of every value that is not in `values`; None: such a value is an error.
    """

    values: dict[int, int] = field(default_factory=dict)
    other: int | None = None


def parse_label_map(given: MapGiven, ignore_label: int, names: Sequence[str]) -> LabelMap:
    """Return a label map in plain numbers.

    Args:
        given: Keys are raw values, ranges that include both ends (``7-10``), lists (``7,9,11``),
            colours (``0x4000FF``: red, green, blue) or ``other``. Values are class ids, class
            names, ``ignore`` or, for a range of raw values, a range of ids of the same length.
        ignore_label: The value that ``ignore`` stands for.
        names: The name of each class id.

    Raises:
        ConfigError: When a key or a value is not one of these, an id does not exist, or a raw value
            has two entries.

    Example:
        >>> parse_label_map({"0-2": "ignore", "3-4": "0-1", 9: "car"}, 255, ["road", "man", "car"])
        LabelMap(values={0: 255, 1: 255, 2: 255, 3: 0, 4: 1, 9: 2}, other=None)
    """
    entries: Mapping[Any, Any] = given if isinstance(given, Mapping) else dict(enumerate(given))
    values: dict[int, int] = {}
    other = None
    for key, target in entries.items():
        if isinstance(key, str) and key.strip() == OTHER:
            other = _class_of(key, target, ignore_label, names)
            continue
        for raw, class_id in _entries(key, target, ignore_label, names):
            if raw in values:
                raise ConfigError(
                    f"dataset.label_map has two entries for the value {raw}, one of them {key!r}"
                )
            values[raw] = class_id
    return LabelMap(values, other)


def _entries(key: Any, target: Any, ignore: int, names: Sequence[str]) -> Iterator[tuple[int, int]]:
    raws = list(_raw_values(key))
    span = _RANGE.fullmatch(target.strip()) if isinstance(target, str) else None
    if span is None or target in names:
        class_id = _class_of(key, target, ignore, names)
        yield from ((raw, class_id) for raw in raws)
        return
    ids = range(int(span[1]), int(span[2]) + 1)
    if len(ids) != len(raws):
        raise ConfigError(
            f"dataset.label_map maps {key} ({len(raws)} values) to {target} ({len(ids)} values);"
            " the two ranges must have the same length"
        )
    for raw, class_id in zip(raws, ids, strict=True):
        yield raw, _class_of(raw, class_id, ignore, names)


def _raw_values(key: Any) -> Iterator[int]:
    if isinstance(key, int) and not isinstance(key, bool):
        yield key
        return
    for part in str(key).split(","):
        word = part.strip()
        span = _RANGE.fullmatch(word)
        if span is not None:
            first, last = int(span[1]), int(span[2])
            if not 0 <= last - first < _MAX_VALUES:
                raise ConfigError(
                    f"dataset.label_map: the range {word} must have its smaller value first, and at"
                    f" most {_MAX_VALUES} values"
                )
            yield from range(first, last + 1)
            continue
        try:
            yield int(word, 16) if word.lower().startswith("0x") else int(word)
        except ValueError:
            raise ConfigError(f"dataset.label_map: the key {key!r} must be {_KEYS}") from None


def _class_of(key: Any, target: Any, ignore_label: int, names: Sequence[str]) -> int:
    """Return the class id, or the ignore label, that `target` stands for."""
    if isinstance(target, str):
        word = target.strip()
        if word == IGNORE:
            return ignore_label
        if word in names:
            return names.index(word)
        if not re.fullmatch(r"-?\d+", word):
            raise ConfigError(
                f"dataset.label_map maps {key} to {target!r}, which is neither {IGNORE} nor a"
                f" class name{did_you_mean(word, [*names, IGNORE])}"
            )
        target = int(word)
    if isinstance(target, bool) or not isinstance(target, int):
        raise ConfigError(
            f"dataset.label_map maps {key} to {target!r}; it must be a class id, a class name or"
            f" {IGNORE}"
        )
    if target != ignore_label and not 0 <= target < len(names):
        raise ConfigError(
            f"dataset.label_map maps {key} to {target}, which is neither a class id (0 to"
            f" {len(names) - 1}) nor dataset.ignore_label={ignore_label}"
        )
    return target


def compact_map(values: Mapping[int, int], *, colours: bool = False) -> dict[int | str, int | str]:
    """Return a label map in which runs of at least three values are ranges, to read and paste.

    Args:
        values: Raw value to class id.
        colours: Whether the raw values are colours; they are written ``0xRRGGBB``.

    Example:
        >>> compact_map({0: 255, 1: 0, 2: 1, 3: 2, 9: 3, 20: 7, 21: 7, 22: 7})
        {0: 255, '1-3': '0-2', 9: 3, '20-22': 7}
    """
    if colours:
        return {f"0x{raw:06X}": class_id for raw, class_id in sorted(values.items())}
    items = sorted(values.items())
    found: dict[int | str, int | str] = {}
    start = 0
    while start < len(items):
        stop, step = _run(items, start)
        (first, first_id), (last, last_id) = items[start], items[stop]
        if stop - start >= 2:
            found[f"{first}-{last}"] = f"{first_id}-{last_id}" if step else first_id
            start = stop + 1
        else:
            found[first] = first_id
            start += 1
    return found


def _run(items: Sequence[tuple[int, int]], start: int) -> tuple[int, int]:
    """Return the end of the run that begins at `start`, and the step of its ids: 0 or 1."""
    best = (start, 0)
    for step in (0, 1):
        stop = start
        while stop + 1 < len(items):
            (raw, class_id), (next_raw, next_id) = items[stop], items[stop + 1]
            if next_raw != raw + 1 or next_id != class_id + step:
                break
            stop += 1
        if stop > best[0]:
            best = (stop, step)
    return best
