"""The likely fix for mask values outside the contract, as an override that can be pasted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from segtrain.data.labels.label_map import compact_map

_MAX_LISTED = 10
_MAX_MAPPED = 64  # more different values than this suggest a photograph, not a mask
_LONG_MAP = 8  # a map with more entries is written as ranges
_NEAR = 16  # per channel; a colour this close to one of the palette is a distorted copy of it
_FROM_SOURCE = "write the masks again from their source, as PNG files"
_WHITE, _STEP_OF_GREY = 0xFFFFFF, 0x010101


def list_counts(counts: Mapping[int, int], *, colours: bool = False) -> str:
    """Return values and their numbers of pixels in words.

    Example:
        >>> list_counts({7: 12, 9: 1})
        'value 7 (12 pixels) and value 9 (1 pixel)'
    """
    parts = [
        f"{_colour(v) if colours else f'value {v}'} ({n} pixel{'' if n == 1 else 's'})"
        for v, n in counts.items()
    ]
    if len(parts) > _MAX_LISTED:
        parts = [*parts[:_MAX_LISTED], f"{len(parts) - _MAX_LISTED} other values"]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def override(key: str, value: Mapping[Any, Any] | int) -> str:
    """Return a config override as typed in a shell, quoted if the shell would split it.

    Example:
        >>> override("num_classes", 3), override("label_map", {0: 0, 255: 1})
        ('dataset.num_classes=3', "'dataset.label_map={0:0,255:1}'")
    """
    if isinstance(value, int):
        return f"dataset.{key}={value}"
    entries = ",".join(f"{raw}:{class_id}" for raw, class_id in value.items())
    return f"'dataset.{key}={{{entries}}}'"


def describe_map(values: Mapping[int, int], max_length: int = 400) -> str:
    """Return a label map as an override, a long one as ranges; empty if longer than `max_length`.

    Example:
        >>> describe_map({raw: raw - 1 for raw in range(1, 151)})
        "'dataset.label_map={1-150:0-149}'"
    """
    text = override("label_map", compact_map(values) if len(values) > _LONG_MAP else values)
    return text if len(text) <= max_length else ""


def advise(
    seen: Iterable[int], num_classes: int, ignore_label: int, label_map: Mapping[int, int] | None
) -> str:
    """Return the likely fix for masks that hold the values `seen`.

    Example:
        >>> advise({1, 2}, 2, 255, None)
        "if the ids start at 1, set 'dataset.label_map={1:0,2:1}'"
    """
    values = sorted(set(seen) - {ignore_label})
    if label_map is not None:
        return _advise_map(values, num_classes, ignore_label, label_map)
    if len(values) > _MAX_MAPPED:
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


def _advise_map(
    values: Sequence[int], num_classes: int, ignore_label: int, label_map: Mapping[int, int]
) -> str:
    """Return the fix for values without an entry in the label map."""
    if all(0 <= value < num_classes for value in values):
        return "the masks already hold class ids, so set dataset.label_map=null"
    extra = {value: ignore_label for value in values if value not in label_map}
    whole = describe_map({**label_map, **extra})
    if not whole:
        entries = ", ".join(f"{value}: ignore" for value in list(extra)[:_MAX_LISTED])
        return f"to ignore the missing values, add {entries} to dataset.label_map"
    return f"to ignore the missing values, set {whole}"


def _advise_run(values: list[int], num_classes: int, ignore_label: int) -> str:
    """Return the fix for values without gaps: shift the ids, or set the number of classes."""
    first, last = values[0], values[-1]
    if first == 1 and last == num_classes:
        shifted = {value: value - 1 for value in values}
        return f"if the ids start at 1, set {describe_map(shifted)}"
    if first == 0 and last == num_classes:
        shifted = {value: value - 1 if value else ignore_label for value in values}
        return (
            f"set {override('num_classes', last + 1)}, or, if 0 means unlabelled and the ids start "
            f"at 1, set {describe_map(shifted)}"
        )
    if first in (0, 1):
        return f"set {override('num_classes', last + 1)} if all of them are classes"
    return _advise_gaps(values, num_classes, ignore_label)


def _advise_gaps(values: list[int], num_classes: int, ignore_label: int) -> str:
    """Return the fix for values with gaps: map those that occur, in order."""
    inside = [value for value in values if 0 <= value < num_classes]
    if len(values) - len(inside) == 1 and values[-1] >= 250 and len(inside) > 1:
        only = values[-1]
        return f"if {only} marks pixels without a class, set {override('ignore_label', only)}"
    mapped = {value: index for index, value in enumerate(values)}
    if len(values) <= num_classes:
        return f"if these are the classes in order, set {describe_map(mapped)}"
    return (
        f"if each value is a class, set {override('num_classes', len(values))} and "
        f"{describe_map(mapped)}, or map some of them to {ignore_label} to ignore them"
    )


def advise_colours(
    seen: Iterable[int],
    names: Sequence[str],
    known: Mapping[int, int],
    label_map: Mapping[int, int] = MappingProxyType({}),
) -> str:
    """Return the likely fix for masks that hold the colours `seen`, ``0xRRGGBB`` each.

    Args:
        seen: All colours of all masks.
        names: The name of each class id.
        known: The colours in the contract, with their class ids.
        label_map: The part of `known` that comes from `dataset.label_map`.

    Example:
        >>> advise_colours({0x000000, 0xFF0000}, ["background", "car"], {})
        "if each colour is a class, in this order, set 'dataset.palette=[[0,0,0],[255,0,0]]'"
    """
    colours = sorted(set(seen))
    if len(colours) > max(_MAX_MAPPED, len(names) + 1):
        return (
            f"{len(colours)} different colours look like a photograph or a lossy copy of a mask;"
            f" {_FROM_SOURCE}"
        )
    is_grey = all(colour % _STEP_OF_GREY == 0 for colour in colours)
    if is_grey and len(known) == len(label_map):  # a map of grey values, not of colours
        return _advise_grey(colours, len(names))
    if known:
        return _advise_known(colours, names, known, label_map)
    palette = ",".join(f"[{','.join(map(str, _channels(colour)))}]" for colour in colours)
    count = "" if len(colours) == len(names) else f" {override('num_classes', len(colours))} and"
    return f"if each colour is a class, in this order, set{count} 'dataset.palette=[{palette}]'"


def _advise_known(
    colours: Sequence[int],
    names: Sequence[str],
    known: Mapping[int, int],
    label_map: Mapping[int, int],
) -> str:
    """Return the fix for masks of which the contract knows some colours."""
    missing = [colour for colour in colours if colour not in known]
    near = _near(missing, known)
    if near is not None:
        colour, intended = near
        class_id = known[intended]
        return (
            f"{_colour(colour)} is nearly {_colour(intended)}, the colour of"
            f" {names[class_id] if class_id < len(names) else 'ignored pixels'}: the mask is a"
            f" lossy or resized copy; {_FROM_SOURCE}"
        )
    entries: dict[str, int | str] = {f"0x{key:06X}": value for key, value in label_map.items()}
    entries |= {f"0x{colour:06X}": "ignore" for colour in missing[:_MAX_LISTED]}
    return (
        "add the colour of a class to dataset.palette, or, to ignore the missing colours, set"
        f" {override('label_map', entries)}"
    )


def _advise_grey(colours: Sequence[int], num_ids: int) -> str:
    """Return the fix for three equal channels: class ids, or black and white, saved as colours."""
    if set(colours) <= {0, _WHITE}:
        pairs = {"0x000000": 0, "0xFFFFFF": 1}
        return f"if white is the object, set {override('label_map', pairs)}"
    mapped: dict[str, int | str] = {}
    for colour in colours:
        value = colour // _STEP_OF_GREY
        mapped[f"0x{colour:06X}"] = value if value < num_ids else "ignore"
    return (
        "its three channels are equal, as in class ids saved as colours; write the masks as grey"
        f" PNG files, or set {override('label_map', mapped)}"
    )


def _near(missing: Iterable[int], known: Mapping[int, int]) -> tuple[int, int] | None:
    """Return an unknown colour and a known one that it is probably a distorted copy of."""
    for colour in missing:
        for other in known:
            pairs = zip(_channels(colour), _channels(other), strict=True)
            if max(abs(one - two) for one, two in pairs) <= _NEAR:
                return colour, other
    return None


def _channels(colour: int) -> tuple[int, int, int]:
    return colour >> 16, colour >> 8 & 255, colour & 255


def _colour(colour: int) -> str:
    return f"colour ({', '.join(map(str, _channels(colour)))})"
