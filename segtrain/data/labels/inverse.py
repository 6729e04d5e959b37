"""From class ids back to the raw values of masks."""

from __future__ import annotations

from typing import NamedTuple

from segtrain.data.labels.label_map import MapGiven, parse_label_map
from segtrain.errors import CheckpointError, ConfigError

_LARGEST_GREY = 65535


class RawValues(NamedTuple):
    """The raw value of each class id.

    Attributes:
        values: By class id.
        ignored: That of pixels without a class.
        shared: The class ids that several raw values have, with these values; `values` holds the
            smallest.
        are_colours: Whether the raw values are colours, ``0xRRGGBB``.
    """

    values: tuple[int, ...]
    ignored: int
    shared: dict[int, tuple[int, ...]]
    are_colours: bool


def raw_values(given: MapGiven | None, ignore_label: int, names: tuple[str, ...]) -> RawValues:
    """Invert a label map.

    Args:
        given: The label map; None, or one whose keys are the names of an export: raw values equal
            class ids.
        ignore_label: The value of pixels without a class.
        names: The name of each class id; for multi-label data ``no`` and ``yes``.

    Raises:
        CheckpointError: When no raw value has one of the class ids.

    Example:
        >>> raw_values({"7-8": 0, 11: 1, 0: "ignore"}, 255, ("road", "sky")).values
        (7, 11)
        >>> raw_values({1: 1, "other": 0}, 255, ("background", "sky")).values
        (0, 1)
    """
    try:
        known = parse_label_map(given or {}, ignore_label, names)
    except ConfigError:  # its keys are names of classes, which no mask file holds
        known = parse_label_map({}, ignore_label, names)
    if not known.values and known.other is None:
        return RawValues(tuple(range(len(names))), ignore_label, {}, are_colours=False)
    raws: dict[int, list[int]] = {}
    for raw, class_id in sorted(known.values.items()):
        if raw >= 0:
            raws.setdefault(class_id, []).append(raw)
    if known.other is not None and known.other not in raws:
        free = next(value for value in range(len(known.values) + 1) if value not in known.values)
        raws[known.other] = [free]
    missing = [name for index, name in enumerate(names) if index not in raws]
    if missing:
        raise CheckpointError(
            f"outputs=[labels]: dataset.label_map of the training has no raw value for the class"
            f" {missing[0]!r}; leave labels out, and use ids"
        )
    shared = {index: tuple(raws[index]) for index in range(len(names)) if len(raws[index]) > 1}
    values = tuple(raws[index][0] for index in range(len(names)))
    are_colours = max(values) > _LARGEST_GREY
    ignored = raws.get(ignore_label, [0 if are_colours else ignore_label])[0]
    return RawValues(values, ignored, shared, are_colours)
