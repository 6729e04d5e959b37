"""Checks of what a dataset says about its classes: names, colours, pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from segtrain.errors import ConfigError


def check_ignore_label(ignore_label: int, num_classes: int, num_ids: int) -> None:
    """Check that the ignore label is not a class id.

    Args:
        ignore_label: The value of pixels without a class.
        num_classes: For the error message.
        num_ids: Class ids run from 0 to ``num_ids - 1``.

    Raises:
        ConfigError: When it is one.
    """
    if isinstance(ignore_label, bool) or not isinstance(ignore_label, int):
        raise ConfigError(f"dataset.ignore_label must be a whole number, got {ignore_label!r}")
    if 0 <= ignore_label < num_ids:
        raise ConfigError(
            f"dataset.ignore_label={ignore_label} is also a class id, because "
            f"dataset.num_classes={num_classes} makes the ids 0 to {num_ids - 1}; choose a "
            f"value outside them, such as {255 if num_ids <= 255 else -1}"
        )


def check_length(key: str, values: Sequence[Any], num_ids: int) -> None:
    """Check that a key has one entry per class id.

    Raises:
        ConfigError: When the number of entries is wrong.
    """
    if len(values) != num_ids:
        raise ConfigError(
            f"dataset.{key} has {len(values)} entries, but there are {num_ids} classes; give one"
            " entry per class"
        )


def check_names(names: Sequence[str], num_ids: int) -> None:
    """Check that every class has a name, and that the names differ.

    Raises:
        ConfigError: When the number is wrong or a name occurs twice.
    """
    check_length("class_names", names, num_ids)
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise ConfigError(f"dataset.class_names has {repeated[0]!r} more than once")


def check_palette(palette: Sequence[Sequence[int]]) -> None:
    """Check that every entry of a palette is a colour.

    Raises:
        ConfigError: When an entry is not three numbers from 0 to 255.
    """
    for index, colour in enumerate(palette):
        if len(colour) != 3 or not all(0 <= channel <= 255 for channel in colour):
            raise ConfigError(
                f"dataset.palette[{index}] must be three numbers from 0 to 255, got {list(colour)}"
            )


def check_colours_differ(palette: Sequence[Sequence[int]], names: Sequence[str]) -> None:
    """Check that no two classes share a colour, so that masks of colours can be read.

    Raises:
        ConfigError: When two classes share one.
    """
    first: dict[tuple[int, ...], str] = {}
    for colour, name in zip(palette, names, strict=True):
        other = first.setdefault(tuple(colour), name)
        if other != name:
            raise ConfigError(
                f"dataset.palette has {list(colour)} for {other!r} and for {name!r}, so masks of"
                " colours cannot be read; give every class its own colour"
            )


def flip_pair_ids(
    pairs: Sequence[Sequence[int | str]], names: Sequence[str]
) -> tuple[tuple[int, int], ...]:
    """Return the class ids of pairs of class ids or names.

    Raises:
        ConfigError: When an entry is not a pair of different classes, or a class is in two pairs.

    Example:
        >>> flip_pair_ids([["left", "right"]], names=["hat", "left", "right"])
        ((1, 2),)
    """
    found = []
    for pair in pairs:
        ids = [names.index(side) if side in names else side for side in pair]
        known = all(isinstance(side, int) and 0 <= side < len(names) for side in ids)
        if len(ids) != 2 or not known or ids[0] == ids[1]:
            raise ConfigError(
                f"dataset.flip_pairs must be pairs of two class ids or class names, got"
                f" {list(pair)}"
            )
        found.append((int(ids[0]), int(ids[1])))
    members = [side for pair in found for side in pair]
    repeated = [side for side in members if members.count(side) > 1]
    if repeated:
        raise ConfigError(
            f"dataset.flip_pairs has class {names[repeated[0]]!r} more than once; a class can be in"
            " one pair only"
        )
    return tuple(found)
