"""The likely fix for mask colours outside the contract, as an override that can be pasted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from segtrain.data.labels.advice import describe_levels, ignored_values, likely_fix
from segtrain.data.labels.levels import find_levels
from segtrain.data.labels.wording import MAX_LISTED, channels, colour, override, percent

_MAX_MAPPED = 64  # more different colours than this suggest a photograph, not a mask
_NEAR = 16  # per channel; a colour this close to one of the palette is a distorted copy of it
_FROM_SOURCE = "write the masks again from their source, as PNG files"
_WHITE, _STEP_OF_GREY = 255, 0x010101


def advise_colours(
    counts: Mapping[int, int],
    names: Sequence[str],
    known: Mapping[int, int],
    label_map: Mapping[int, int] = MappingProxyType({}),
    ignore_label: int = 255,
) -> str:
    """Return the likely fix for masks that hold these colours, ``0xRRGGBB`` each.

    Args:
        counts: Every colour in all masks, with its number of pixels.
        names: The name of each class id.
        known: The colours in the contract, with their class ids.
        label_map: The part of `known` that comes from `dataset.label_map`.
        ignore_label: The value of pixels without a class.

    Example:
        >>> advise_colours({0x000000: 9, 0xFF0000: 1}, ["background", "car"], {})
        "if each colour is a class, in this order, set 'dataset.palette=[[0,0,0],[255,0,0]]'"
    """
    colours = sorted(counts)
    is_grey = all(packed % _STEP_OF_GREY == 0 for packed in colours)
    if is_grey and len(known) == len(label_map):  # a map of grey values, not of colours
        grey = {packed // _STEP_OF_GREY: pixels for packed, pixels in counts.items()}
        return _advise_grey(grey, len(names), ignore_label)
    if len(colours) > max(_MAX_MAPPED, len(names) + 1):
        return (
            f"{len(colours)} different colours look like a photograph or a lossy copy of a mask;"
            f" {_FROM_SOURCE}"
        )
    if known:
        return _advise_known(counts, names, known, label_map)
    palette = ",".join(f"[{','.join(map(str, channels(packed)))}]" for packed in colours)
    count = "" if len(colours) == len(names) else f" {override('num_classes', len(colours))} and"
    return f"if each colour is a class, in this order, set{count} 'dataset.palette=[{palette}]'"


def _advise_known(
    counts: Mapping[int, int],
    names: Sequence[str],
    known: Mapping[int, int],
    label_map: Mapping[int, int],
) -> str:
    """Return the fix for masks of which the contract knows some colours."""
    missing = [packed for packed in sorted(counts) if packed not in known]
    near = _near(missing, known)
    if near is not None:
        packed, intended = near
        class_id = known[intended]
        return (
            f"{colour(packed)} is nearly {colour(intended)}, the colour of"
            f" {names[class_id] if class_id < len(names) else 'ignored pixels'}: the mask is a"
            f" lossy or resized copy; {_FROM_SOURCE}"
        )
    entries: dict[str, int | str] = {f"0x{key:06X}": value for key, value in label_map.items()}
    entries |= {f"0x{packed:06X}": "ignore" for packed in missing[:MAX_LISTED]}
    lost = sum(counts[packed] for packed in missing)
    return (
        "add the colour of a class to dataset.palette, or, to ignore the missing colours"
        f" ({percent(lost, sum(counts.values()))} of the pixels), set"
        f" {override('label_map', entries)}"
    )


def _advise_grey(counts: Mapping[int, int], num_ids: int, ignore_label: int) -> str:
    """Return the fix for three equal channels: class ids or grey values, saved as colours."""
    levels = find_levels(counts, num_ids)
    if levels is not None:
        return f"its three channels are equal; {describe_levels(levels, len(counts))}"
    if set(counts) <= {0, _WHITE}:
        return f"if white is the object, set {_as_colours({0: 0, _WHITE: 1}, ignore_label)}"
    if all(value < num_ids or value == ignore_label for value in counts):
        mapping: Mapping[int, int] = {value: value for value in counts}
    else:
        fix = likely_fix(counts, num_ids, ignore_label)
        if fix.mapping is None:
            return f"its three channels are equal; {fix.text}"
        mapping = {value: fix.mapping.get(value, ignore_label) for value in sorted(counts)}
    number = 1 + max((ids for ids in mapping.values() if ids != ignore_label), default=0)
    more = f"{override('num_classes', number)} and " if number > num_ids else ""
    return (
        "its three channels are equal, as in class ids saved as colours; write the masks as grey"
        f" PNG files, or set {more}{_as_colours(mapping, ignore_label)}"
        f"{ignored_values(counts, mapping, ignore_label)}"
    )


def _as_colours(mapping: Mapping[int, int], ignore_label: int) -> str:
    """Return a label map of grey values as one of colours, as an override."""
    entries = {
        f"0x{value * _STEP_OF_GREY:06X}": "ignore" if class_id == ignore_label else class_id
        for value, class_id in mapping.items()
    }
    return override("label_map", entries)


def _near(missing: Iterable[int], known: Mapping[int, int]) -> tuple[int, int] | None:
    """Return an unknown colour and a known one that it is probably a distorted copy of."""
    for packed in missing:
        for other in known:
            pairs = zip(channels(packed), channels(other), strict=True)
            if max(abs(one - two) for one, two in pairs) <= _NEAR:
                return packed, other
    return None
