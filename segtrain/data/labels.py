"""The label contract: the one place where raw mask values become class ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segtrain.data.label_advice import advise, list_counts, override
from segtrain.data.palette import default_palette
from segtrain.errors import ConfigError, DataError

_OUTSIDE = np.iinfo(np.int64).min  # marks raw values that the contract does not know


@dataclass(frozen=True)
class LabelContract:
    """What the values in a mask mean, and what they are called and drawn as.

    Args:
        num_classes: Number of classes; ids run from 0 to ``num_classes - 1``.
        ignore_label: The value of pixels without a class in every `target`; not a class id.
        label_map: Raw mask value to class id or `ignore_label`. Its entries win over
            `ignore_label`, so ``{0: 0, 255: 1}`` reads binary masks. None: raw values are ids.
        class_names: One name per class; ``class_0``, ``class_1``, ... by default.
        palette: One RGB colour (0 to 255) per class; a fixed, spread set by default.

    Raises:
        ConfigError: When the values contradict each other.

    Example:
        >>> contract = LabelContract(num_classes=2, label_map={0: 0, 255: 1})
        >>> contract.to_ids(np.array([[0, 255]], dtype=np.uint8), "a.png")
        array([[0, 1]])
    """

    num_classes: int
    ignore_label: int = 255
    label_map: Mapping[int, int] | None = None
    class_names: Sequence[str] | None = None
    palette: Sequence[Sequence[int]] | None = None

    def __post_init__(self) -> None:
        _check_ids(self.num_classes, self.ignore_label)
        _check_label_map(self.label_map, self.num_classes, self.ignore_label)
        names, palette = self.class_names, self.palette
        names = [f"class_{i}" for i in range(self.num_classes)] if names is None else names
        palette = default_palette(self.num_classes) if palette is None else palette
        _check_length("class_names", names, self.num_classes)
        doubled = [name for name in names if list(names).count(name) > 1]
        if doubled:
            raise ConfigError(f"dataset.class_names has {doubled[0]!r} more than once")
        _check_length("palette", palette, self.num_classes)
        _check_colours(palette)
        object.__setattr__(self, "class_names", tuple(str(name) for name in names))
        object.__setattr__(self, "palette", tuple(tuple(colour) for colour in palette))
        if self.label_map is not None:
            object.__setattr__(self, "label_map", dict(self.label_map))

    @property
    def names(self) -> tuple[str, ...]:
        """The class names."""
        return tuple(self.class_names or ())

    @property
    def colours(self) -> tuple[tuple[int, ...], ...]:
        """The RGB colour of each class."""
        return tuple(tuple(colour) for colour in self.palette or ())

    @cached_property
    def mapping(self) -> Mapping[int, int]:
        """Every raw value that a mask may hold, and the id (or `ignore_label`) that it becomes."""
        if self.label_map is None:
            known = {value: value for value in range(self.num_classes)}
        else:
            known = {}
        known[self.ignore_label] = self.ignore_label
        return MappingProxyType(known | dict(self.label_map or {}))

    @cached_property
    def _table(self) -> NDArray[np.int64]:
        table = np.full(1 << 16, _OUTSIDE, dtype=np.int64)
        for value, class_id in self.mapping.items():
            if 0 <= value < len(table):
                table[value] = class_id
        return table

    def to_ids(self, raw: NDArray[Any], file: str) -> NDArray[np.int64]:
        """The class ids of a mask as read from disk.

        Args:
            raw: The values in the mask.
            file: Where they come from, for the message.

        Shape:
            - raw: ``(H, W)``, any integer type.
            - output: ``(H, W)``, int64 in ``[0, num_classes)`` or `ignore_label`.

        Raises:
            DataError: When a value is outside the contract.
        """
        if raw.dtype in (np.uint8, np.uint16):
            ids: NDArray[np.int64] = self._table[raw]
        else:  # 32-bit masks may hold values that are negative or beyond the table
            values, places = np.unique(raw, return_inverse=True)
            mapped = [self.mapping.get(int(value), _OUTSIDE) for value in values]
            ids = np.array(mapped, dtype=np.int64)[places].reshape(raw.shape)
        if (ids == _OUTSIDE).any():
            self.check_histogram(histogram(raw), file)
        return ids

    def check_histogram(self, counts: Mapping[int, int], file: str) -> None:
        """Check the raw values of a mask, given as value to pixel count.

        Raises:
            DataError: When a value is outside the contract.
        """
        problem = self.explain(counts, file)
        if problem is not None:
            raise DataError(problem)

    def outside(self, counts: Mapping[int, int]) -> dict[int, int]:
        """The entries of `counts` that the contract does not know."""
        return {v: n for v, n in sorted(counts.items()) if n and v not in self.mapping}

    def explain(self, counts: Mapping[int, int], file: str, seen: Iterable[int] = ()) -> str | None:
        """One sentence on the values outside the contract, or None when there are none.

        Args:
            counts: Raw value to pixel count of one mask.
            file: The mask, for the message.
            seen: Values found in the other masks; with them the proposed fix covers all masks.
        """
        outside = self.outside(counts)
        if not outside:
            return None
        values = {value for value, count in counts.items() if count} | set(seen)
        return (
            f"{file}: the mask holds {list_counts(outside)}, but {self._allowed()}; "
            f"{advise(values, self.num_classes, self.ignore_label, self.label_map)}"
        )

    def _allowed(self) -> str:
        if self.label_map is not None:
            return (
                f"{override('label_map', dict(self.label_map))} and "
                f"dataset.ignore_label={self.ignore_label} name no such value"
            )
        return (
            f"with dataset.num_classes={self.num_classes} only 0 to {self.num_classes - 1} and "
            f"dataset.ignore_label={self.ignore_label} are allowed"
        )

    def check_ids(self, target: NDArray[Any], name: str) -> None:
        """Check a target that did not come through :meth:`to_ids`.

        Raises:
            DataError: When it holds anything but class ids and `ignore_label`.
        """
        outside = (target < 0) | (target >= self.num_classes)
        if outside.any() and (outside := outside & (target != self.ignore_label)).any():
            raise DataError(
                f"sample {name!r}: its target holds {target[outside][0]} at {int(outside.sum())}"
                f" or fewer pixels; {self._allowed()}"
            )

    def colorize(self, ids: NDArray[Any]) -> NDArray[np.uint8]:
        """Class ids as colours; pixels without a class are black.

        Shape:
            - ids: ``(H, W)``, integers.
            - output: ``(H, W, 3)``, uint8.
        """
        colours = np.array([*self.colours, (0, 0, 0)], dtype=np.uint8)
        valid = (ids >= 0) & (ids < self.num_classes)
        return colours[np.where(valid, ids, self.num_classes)]


def histogram(raw: NDArray[Any]) -> dict[int, int]:
    """Value to pixel count of an array of integers.

    Example:
        >>> histogram(np.array([[0, 7], [7, 7]], dtype=np.uint8))
        {0: 1, 7: 3}
    """
    if raw.dtype in (np.uint8, np.uint16):
        counts = np.bincount(raw.ravel())
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    values, numbers = np.unique(raw, return_counts=True)
    return {int(value): int(count) for value, count in zip(values, numbers, strict=True)}


def _check_ids(num_classes: int, ignore_label: int) -> None:
    if num_classes < 1:
        raise ConfigError(f"dataset.num_classes must be at least 1, got {num_classes}")
    if 0 <= ignore_label < num_classes:
        raise ConfigError(
            f"dataset.ignore_label={ignore_label} is also a class id, because "
            f"dataset.num_classes={num_classes} makes the ids 0 to {num_classes - 1}; choose a "
            f"value outside them, such as 255 or -1"
        )


def _check_label_map(label_map: Mapping[int, int] | None, num_classes: int, ignore: int) -> None:
    for value, class_id in (label_map or {}).items():
        if class_id != ignore and not 0 <= class_id < num_classes:
            raise ConfigError(
                f"dataset.label_map sends {value} to {class_id}, which is neither a class id "
                f"(0 to {num_classes - 1}) nor dataset.ignore_label={ignore}"
            )


def _check_length(key: str, values: Sequence[Any], num_classes: int) -> None:
    if len(values) != num_classes:
        raise ConfigError(
            f"dataset.{key} has {len(values)} entries, but dataset.num_classes={num_classes}; "
            f"give one entry per class"
        )


def _check_colours(palette: Sequence[Sequence[int]]) -> None:
    for index, colour in enumerate(palette):
        if len(colour) != 3 or not all(0 <= channel <= 255 for channel in colour):
            raise ConfigError(
                f"dataset.palette[{index}] must be three numbers from 0 to 255, got {list(colour)}"
            )
