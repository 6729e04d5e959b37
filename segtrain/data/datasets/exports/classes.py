"""From the classes of an annotation tool to the class ids of a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segtrain.data.labels.label_map import IGNORE, OTHER, MapGiven
from segtrain.errors import ConfigError
from segtrain.schema.values import did_you_mean

BACKGROUND = "background"
VOID = "__ignore__"
"""The class of shapes whose pixels are ignored, as labelme calls it."""
_MAX_SHOWN = 6


def choose_classes(
    values: Mapping[int, str],
    *,
    class_names: Sequence[str] | None,
    label_map: MapGiven | None,
    ignore_label: int = 255,
    has_numbers: bool = True,
    multi_label: bool = False,
) -> dict[str, Any]:
    """Return `num_classes`, `class_names` and `label_map` of a label contract.

    Without `class_names` and `label_map`, every class of the tool is a class, in the tool's order.
    With `class_names`, those classes are, in this order. `label_map` maps names of the tool to
    class names, class ids or ``ignore``; ``other`` stands for the names without an entry. Pixels of
    no object are ignored if no class is called ``background``.

    Args:
        values: The name of each raw value; ``background`` is that of pixels without an object.
        class_names: The classes to learn.
        label_map: The class of each name.
        ignore_label: The value of ignored pixels.
        has_numbers: Whether the raw values are numbers of the tool, so that `label_map` may use
            them instead of names.
        multi_label: Whether a pixel may have several classes, so that one class is enough.

    Raises:
        ConfigError: When a class of the tool has no class of the dataset, or a name is unknown.

    Example:
        >>> values = {0: "background", 1: "car", 2: "truck", 3: "sky"}
        >>> choose_classes(values, class_names=None, label_map=None)["class_names"]
        ['background', 'car', 'truck', 'sky']
        >>> chosen = {"car": "vehicle", "truck": "vehicle", "sky": "ignore"}
        >>> choose_classes(values, class_names=None, label_map=chosen)
        {'num_classes': 2, 'class_names': ['background', 'vehicle'],
         'label_map': {0: 0, 1: 1, 2: 1, 3: 255}}
    """
    given = _by_name(values, label_map, has_numbers=has_numbers)
    names = [str(name) for name in _class_names(values, class_names, given)]
    _check_names(values, names, given, least=1 if multi_label else 2)
    classes: dict[int | str, int] = {}
    for raw, name in values.items():
        if name in given or raw in given:
            target = given.get(name, given.get(raw))
        elif name in names:
            target = name
        elif name in (BACKGROUND, VOID):
            target = IGNORE
        else:
            target = given.get(OTHER)
        classes[raw] = _class_id(name, target, names, ignore_label)
    missing = [name for index, name in enumerate(names) if index not in classes.values()]
    if missing and missing != [BACKGROUND]:
        raise ConfigError(f"dataset.label_map leaves nothing for the class {missing[0]!r}")
    if OTHER in given:
        classes[OTHER] = _class_id(OTHER, given[OTHER], names, ignore_label)
    return {"num_classes": len(names), "class_names": names, "label_map": classes}


def _by_name(
    values: Mapping[int, str], label_map: MapGiven | None, *, has_numbers: bool
) -> dict[int | str, Any]:
    entries: Mapping[Any, Any] = (
        label_map if isinstance(label_map, Mapping) else dict(enumerate(label_map or ()))
    )
    names = set(values.values())
    found: dict[int | str, Any] = {}
    for key, target in entries.items():
        if str(key) in names or key == OTHER:
            found[str(key)] = target
        elif has_numbers and key in values:
            found[key] = target
        else:
            raise ConfigError(
                f"dataset.label_map: the export has no class {key!r}{did_you_mean(str(key), names)}"
            )
    return found


def _class_names(
    values: Mapping[int, str], class_names: Sequence[str] | None, given: Mapping[int | str, Any]
) -> Sequence[str]:
    if class_names is not None:
        return class_names
    if not given:
        return [name for name in values.values() if name != VOID]
    targets = [target for target in given.values() if isinstance(target, str) and target != IGNORE]
    kept = [name for raw, name in values.items() if name not in given and raw not in given]
    kept = [name for name in kept if name != VOID and (OTHER not in given or name == BACKGROUND)]
    first = [name for name in (*kept, *targets) if name == BACKGROUND]
    return list(dict.fromkeys([*first, *kept, *targets]))


def _class_id(name: str, target: Any, names: Sequence[str], ignore_label: int) -> int:
    if target == IGNORE:
        return ignore_label
    if target in names:
        return names.index(target)
    if isinstance(target, int) and (0 <= target < len(names) or target == ignore_label):
        return target
    if target is None:
        raise ConfigError(
            f"the export has the class {name!r}, but dataset.class_names does not; add it there, or"
            f" give it a class in dataset.label_map, such as {{{name}: {IGNORE}}} or"
            f" {{{OTHER}: {names[0]}}} for all that are not listed"
        )
    raise ConfigError(
        f"dataset.label_map: {target!r}, the class of {name!r}, is neither {IGNORE} nor a class id"
        f" or a name of dataset.class_names{did_you_mean(str(target), names)}"
    )


def _check_names(
    values: Mapping[int, str],
    names: Sequence[str],
    given: Mapping[int | str, Any],
    *,
    least: int,
) -> None:
    """Check that the names exist and that there is something to tell apart."""
    for name in names:
        if name not in values.values() and name not in given.values() and name != BACKGROUND:
            known = [known for known in values.values() if known not in given]
            raise ConfigError(
                f"dataset.class_names: the export has no class {name!r}{did_you_mean(name, known)}"
            )
    if len(names) < least:
        raise ConfigError(
            f"there is nothing to tell apart: dataset.class_names={list(names)} after"
            f" dataset.label_map; the export has {', '.join(values.values())}, and {BACKGROUND}"
            " stands for the pixels of no object"
        )
