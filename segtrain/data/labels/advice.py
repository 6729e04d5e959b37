"""The likely fix for mask values outside the contract, as an override that can be pasted.

A value that a fix would ignore is named with its share of the pixels, because a class or an object
that is lost in this way is not noticed in training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from segtrain.data.labels.levels import Levels, find_levels
from segtrain.data.labels.wording import (
    MAX_LISTED,
    describe_map,
    in_words,
    override,
    percent,
)

_MAX_MAPPED = 64  # more different values than this suggest a photograph, not a mask
_WHITE, _TWO = 255, 2
_STEP = 32  # between grey levels that stand for classes
_FIRST_VOID = 250  # a single value from here on beside small ids probably means "no class"


class Fix(NamedTuple):
    """A likely fix.

    Attributes:
        text: When it applies, and the override; without a dataset key if nothing can be pasted.
        mapping: The label map of the override; None: there is none, or it has ranges.
    """

    text: str
    mapping: Mapping[int, int] | None = None


def advise(
    counts: Mapping[int, int],
    num_classes: int,
    ignore_label: int,
    label_map: Mapping[int, int] | None,
) -> str:
    """Return the likely fix for masks that hold these values.

    Args:
        counts: Every value in all masks, with its number of pixels.
        num_classes: Number of class ids.
        ignore_label: The value of pixels without a class.
        label_map: The label map in use; None: values are class ids.

    Example:
        >>> advise({1: 8, 2: 8}, 2, 255, None)
        "if the ids start at 1, set 'dataset.label_map={1:0,2:1}'"
        >>> advise({0: 8, 5: 2}, 5, 255, {0: 0}).partition("; ")[2]
        'this ignores 5 (20.0 % of the pixels)'
    """
    if label_map is not None:
        fix = _fix_map(counts, num_classes, ignore_label, label_map)
    else:
        fix = likely_fix(counts, num_classes, ignore_label)
    if fix.mapping is None:
        return fix.text
    return fix.text + ignored_values(counts, fix.mapping, ignore_label)


def likely_fix(counts: Mapping[int, int], num_classes: int, ignore_label: int) -> Fix:
    """Return the likely fix for masks that are read without a label map."""
    every = sorted(counts)
    negative = [value for value in every if value < 0 and value != ignore_label]
    if negative:
        return _fix_negative(every, negative, num_classes, ignore_label)
    levels = find_levels(counts, num_classes) if len(every) > num_classes else None
    if levels is not None:
        return Fix(describe_levels(levels, len(every)))
    values = [value for value in every if value != ignore_label]
    if len(values) > _MAX_MAPPED:
        return Fix(
            f"{len(values)} different values look like a photograph or a lossy copy of a mask; "
            f"write the masks as PNG files of class ids"
        )
    if num_classes == 2 and set(values) <= {0, _WHITE}:
        binary = {0: 0, _WHITE: 1}
        return Fix(
            f"if the masks are binary with 255 for the object, set {describe_map(binary)}", binary
        )
    if ignore_label in every and (len(every) == num_classes or _are_grey_levels(every)):
        values = every  # the ignore label is a class, too
    if values == list(range(values[0], values[-1] + 1)):
        return _fix_run(values, num_classes, ignore_label)
    return _fix_gaps(values, num_classes, ignore_label)


def describe_levels(levels: Levels, number: int) -> str:
    """Return the label map of masks whose values lie around a few grey levels, in words.

    Args:
        levels: The levels.
        number: Number of different values.
    """
    first, *inner, last = levels.values
    edges = f"; soft edges between {first} and {last} get a class in between" * bool(inner)
    return (
        f"{number} values around {in_words(levels.values)}, as after JPEG compression or resizing"
        f" ({percent(levels.between, levels.total)} of the pixels lie between): if these are the"
        f" classes in order, set {override('label_map', levels.ranges())}{edges}"
    )


def ignored_values(counts: Mapping[int, int], mapping: Mapping[int, int], ignore_label: int) -> str:
    """Name the values that a label map would ignore, with their shares of the pixels."""
    total = sum(counts.values())
    lost = [value for value in sorted(counts) if mapping.get(value, ignore_label) == ignore_label]
    if not lost:
        return ""
    named = [
        f"{value} ({percent(counts[value], total)} of the pixels)" for value in lost[:MAX_LISTED]
    ]
    if len(lost) > MAX_LISTED:
        rest = sum(counts[value] for value in lost[MAX_LISTED:])
        named.append(f"{len(lost) - MAX_LISTED} other values ({percent(rest, total)})")
    return f"; this ignores {in_words(named)}"


def _fix_map(
    counts: Mapping[int, int], num_classes: int, ignore_label: int, label_map: Mapping[int, int]
) -> Fix:
    """Return the fix for values without an entry in the label map."""
    values = [value for value in sorted(counts) if value != ignore_label]
    if all(0 <= value < num_classes for value in values):
        return Fix("the masks already hold class ids, so set dataset.label_map=null")
    extra = {value: ignore_label for value in values if value not in label_map}
    levels = find_levels(counts, num_classes) if len(extra) > 1 else None
    if levels is not None:
        return Fix(describe_levels(levels, len(counts)))
    mapping = {**label_map, **extra}
    whole = describe_map(mapping)
    if not whole:
        entries = ", ".join(f"{value}: ignore" for value in list(extra)[:MAX_LISTED])
        return Fix(f"to ignore the missing values, add {entries} to dataset.label_map", mapping)
    return Fix(f"to ignore the missing values, set {whole}", mapping)


def _fix_negative(
    every: Sequence[int], negative: Sequence[int], num_classes: int, ignore_label: int
) -> Fix:
    """Return the fix for values below zero, which mark pixels without a class."""
    rest = [value for value in every if value not in negative]
    classes = [value for value in rest if value != ignore_label]
    if len(rest) == num_classes and len(classes) < _TWO:  # such as 0 and 255
        classes = rest
    are_ids = all(0 <= value < num_classes for value in classes)
    ids = {value: value if are_ids else index for index, value in enumerate(classes)}
    mapping = ids | {v: ignore_label for v in every if v not in classes}
    if are_ids and mapping.keys() - ids == {negative[0]}:
        only = override("ignore_label", negative[0])
        return Fix(f"if {negative[0]} marks pixels without a class, set {only}", mapping)
    count = f"{override('num_classes', len(ids))} and " if len(ids) > num_classes else ""
    return Fix(
        f"if values below 0 mark pixels without a class, set {count}{describe_map(mapping)}",
        mapping,
    )


def _are_grey_levels(values: Sequence[int]) -> bool:
    """Whether values are as far apart as grey levels for the eye, such as 0, 128 and 255."""
    return len(values) > _TWO and all(two - one >= _STEP for one, two in pairwise(values))


def _fix_run(values: Sequence[int], num_classes: int, ignore_label: int) -> Fix:
    """Return the fix for values without gaps: shift the ids, or set the number of classes."""
    first, last = values[0], values[-1]
    if first == 1 and last == num_classes:
        shifted = {value: value - 1 for value in values}
        return Fix(f"if the ids start at 1, set {describe_map(shifted)}", shifted)
    if first == 0 and last == num_classes:
        shifted = {value: value - 1 if value else ignore_label for value in values}
        return Fix(
            f"set {override('num_classes', last + 1)}, or, if 0 means unlabelled and the ids start "
            f"at 1, set {describe_map(shifted)}",
            shifted,
        )
    if first in (0, 1):
        return Fix(
            f"set {override('num_classes', last + 1)} if all of them are classes",
            {value: value for value in values},
        )
    return _fix_gaps(values, num_classes, ignore_label)


def _fix_gaps(values: Sequence[int], num_classes: int, ignore_label: int) -> Fix:
    """Return the fix for values with gaps: map those that occur, in order."""
    inside = [value for value in values if 0 <= value < num_classes]
    if len(values) - len(inside) == 1 and values[-1] >= _FIRST_VOID and len(inside) > 1:
        only = values[-1]
        mapping = {value: value for value in inside}
        return Fix(
            f"if {only} marks pixels without a class, set {override('ignore_label', only)}", mapping
        )
    mapping = {value: index for index, value in enumerate(values)}
    if len(values) <= num_classes:
        return Fix(f"if these are the classes in order, set {describe_map(mapping)}", mapping)
    return Fix(
        f"if each value is a class, set {override('num_classes', len(values))} and "
        f"{describe_map(mapping)}, or map some of them to {ignore_label} to ignore them",
        mapping,
    )
