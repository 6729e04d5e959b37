"""What to do about mask values outside the contract: the likely cause, as a line ready to paste."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_MOST_LISTED = 10
_MOST_MAPPED = 64  # more different values than this are a photograph, not a mask


def list_counts(counts: Mapping[int, int]) -> str:
    """Values and how often each occurs, in words.

    Example:
        >>> list_counts({7: 12, 9: 1})
        'value 7 (12 pixels) and value 9 (1 pixel)'
    """
    parts = [f"value {v} ({n} pixel{'' if n == 1 else 's'})" for v, n in counts.items()]
    if len(parts) > _MOST_LISTED:
        parts = [*parts[:_MOST_LISTED], f"{len(parts) - _MOST_LISTED} other values"]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def override(key: str, value: Mapping[int, int] | int) -> str:
    """A config override as typed in a shell; quoted where the shell would split it.

    Example:
        >>> override("num_classes", 3), override("label_map", {0: 0, 255: 1})
        ('dataset.num_classes=3', "'dataset.label_map={0:0,255:1}'")
    """
    if isinstance(value, int):
        return f"dataset.{key}={value}"
    entries = ",".join(f"{raw}:{class_id}" for raw, class_id in value.items())
    return f"'dataset.{key}={{{entries}}}'"


def advise(
    seen: Iterable[int], num_classes: int, ignore_label: int, label_map: Mapping[int, int] | None
) -> str:
    """The likely fix for masks that hold the values `seen`.

    Example:
        >>> advise({1, 2}, 2, 255, None)
        "if the ids start at 1, set 'dataset.label_map={1:0,2:1}'"
    """
    values = sorted(set(seen) - {ignore_label})
    if label_map is not None:
        extra = {value: ignore_label for value in values if value not in label_map}
        return f"to ignore what is missing, set {override('label_map', {**label_map, **extra})}"
    if len(values) > _MOST_MAPPED:
        return (
            f"{len(values)} different values look like a photograph or a lossy copy of a mask; "
            f"write the masks as PNG files of class ids"
        )
    if num_classes == 2 and set(values) <= {0, 255}:
        binary = override("label_map", {0: 0, 255: 1})
        return f"if the masks are binary with 255 for the object, set {binary}"
    if values == list(range(values[0], values[-1] + 1)):
        return _advise_run(values, num_classes, ignore_label)
    return _advise_gaps(values, num_classes, ignore_label)


def _advise_run(values: list[int], num_classes: int, ignore_label: int) -> str:
    """For values without gaps: the ids are shifted, or the number of classes is too small."""
    first, last = values[0], values[-1]
    if first == 1 and last == num_classes:
        shifted = {value: value - 1 for value in values}
        return f"if the ids start at 1, set {override('label_map', shifted)}"
    if first == 0 and last == num_classes:
        shifted = {value: value - 1 if value else ignore_label for value in values}
        return (
            f"set {override('num_classes', last + 1)}, or, if 0 means unlabelled and the ids start "
            f"at 1, set {override('label_map', shifted)}"
        )
    if first in (0, 1):
        return f"set {override('num_classes', last + 1)} if all of them are classes"
    return _advise_gaps(values, num_classes, ignore_label)


def _advise_gaps(values: list[int], num_classes: int, ignore_label: int) -> str:
    """For values with gaps: map those that occur, in order."""
    inside = [value for value in values if 0 <= value < num_classes]
    if len(values) - len(inside) == 1 and values[-1] >= 250 and len(inside) > 1:
        only = values[-1]
        return f"if {only} marks pixels without a class, set {override('ignore_label', only)}"
    mapped = {value: index for index, value in enumerate(values)}
    if len(values) <= num_classes:
        return f"if these are the classes in order, set {override('label_map', mapped)}"
    return (
        f"if each value is a class, set {override('num_classes', len(values))} and "
        f"{override('label_map', mapped)}, or map some of them to {ignore_label} to ignore them"
    )
