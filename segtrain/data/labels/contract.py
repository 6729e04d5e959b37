"""The label contract: the one place where raw mask values become class ids."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segtrain.data.labels.advice import advise, advise_colours, describe_map, list_counts
from segtrain.data.labels.label_map import LabelMap, MapGiven, parse_label_map
from segtrain.data.labels.mask_facts import NAN, MaskFacts, histogram, pack, pack_colours
from segtrain.data.labels.palette import default_palette
from segtrain.errors import ConfigError, DataError

_NUM_COLOURS = 1 << 24
_MOST_SAID = 60  # characters of a label map that a message repeats
_ANSWERS = ("no", "yes")  # what a value of a multi-label mask says of its class


@dataclass(frozen=True)
class LabelContract:
    """What the values in a mask mean, and what they are called and drawn as.

    Args:
        num_classes: Channels of the logits. Class ids run from 0 to ``num_classes - 1``; 1 means
            one logit that tells an object (id 1) from the background (id 0).
        ignore_label: The value of pixels without a class in every `target`; not a class id.
        label_map: What raw mask values become, see :mod:`segtrain.data.labels.label_map`. Its
            entries win over `ignore_label`, so ``{0: 0, 255: 1}`` reads binary masks. None: raw
            values are ids.
        class_names: One name per class; ``class_0``, ``class_1``, ... by default.
        palette: One RGB colour (0 to 255) per class, with which masks of colours are read and
            predictions drawn; where it is None there are colours for drawing alone.
        multi_label: Whether a pixel may be of several classes or of none. A mask then answers for
            one class with 0 or 1, or has a channel for each class.
        flip_pairs: Pairs of classes (ids or names) that change places when an image is mirrored,
            such as left and right arm.

    Raises:
        ConfigError: When the values contradict each other.

    Example:
        >>> contract = LabelContract(num_classes=2, label_map={0: 0, 255: 1})
        >>> contract.to_ids(np.array([[0, 255]], dtype=np.uint8), "a.png")
        array([[0, 1]], dtype=uint8)
    """

    num_classes: int
    ignore_label: int = 255
    label_map: MapGiven | None = None
    class_names: Sequence[str] | None = None
    palette: Sequence[Sequence[int]] | None = None
    multi_label: bool = False
    flip_pairs: Sequence[Sequence[int | str]] = ()
    names: tuple[str, ...] = field(init=False)
    colours: tuple[tuple[int, ...], ...] = field(init=False)

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise ConfigError(f"dataset.num_classes must be at least 1, got {self.num_classes}")
        self._check_ignore_label()
        names, palette = self.class_names, self.palette
        names = self._default_names() if names is None else self._checked_names(names)
        colours = default_palette(self.num_ids) if palette is None else self._with_one(palette)
        _check_colours(colours if palette is None else palette)
        _check_length("palette", colours, self.num_ids)
        object.__setattr__(self, "names", tuple(str(name) for name in names))
        object.__setattr__(self, "colours", tuple(tuple(colour) for colour in colours))
        object.__setattr__(self, "flip_pairs", _check_pairs(self.flip_pairs, self.names))
        _ = self.map  # a wrong label_map is found here

    # ------------------------------------------------------------------ what the numbers mean

    @property
    def is_binary(self) -> bool:
        """Whether one logit tells an object from the background."""
        return self.num_classes == 1 and not self.multi_label

    @property
    def num_ids(self) -> int:
        """Number of class ids: two for one logit, as many as classes otherwise."""
        return 2 if self.is_binary else self.num_classes

    @cached_property
    def map(self) -> LabelMap:
        """`label_map` in plain numbers; of multi-label masks, to 0, 1 and the ignore label."""
        names = _ANSWERS if self.multi_label else self.names
        return parse_label_map(self.label_map or {}, self.ignore_label, names)

    @cached_property
    def mapping(self) -> Mapping[int, int]:
        """Every raw value that a mask may hold, and the id (or `ignore_label`) that it becomes."""
        ids = len(_ANSWERS) if self.multi_label else self.num_ids
        known = {value: value for value in range(ids)} if self.label_map is None else {}
        known[self.ignore_label] = known[NAN] = self.ignore_label
        return known | self.map.values

    @cached_property
    def colour_mapping(self) -> Mapping[int, int]:
        """Likewise for masks of colours: ``0xRRGGBB`` to id."""
        known = {}
        if self.palette is not None:
            _check_different(self.colours, self.names)
            known = {pack(colour): class_id for class_id, colour in enumerate(self.colours)}
        return known | self.map.values

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Of the targets: uint8 where it holds every id and `ignore_label`, else int64."""
        small = 0 <= self.ignore_label <= 255 and max(self.num_ids, 2) <= 254
        return np.dtype(np.uint8 if small else np.int64)

    # ------------------------------------------------------------------ from raw values to ids

    def to_ids(self, raw: NDArray[Any] | Sequence[NDArray[Any]], file: str) -> NDArray[Any]:
        """The class ids of a mask as read from disk.

        Args:
            raw: The values in the mask; of multi-label data also a list with a mask per class.
            file: Where they come from, for the message.

        Shape:
            - raw: ``(H, W)``, any integer type, or colours ``(H, W, 3)``, uint8. For multi-label
              data ``(H, W, num_classes)``, or a list of ``(H, W)``.
            - output: ``(H, W)`` of `dtype`, in ``[0, num_ids)`` or `ignore_label`. For multi-label
              data ``(H, W, num_classes)``, 0, 1 or `ignore_label`, the latter in all channels.

        Raises:
            DataError: When a value is outside the contract.
        """
        values = self._stacked(raw, file)
        if self.multi_label or values.ndim == 2:
            table, mapping = self._table, self.mapping
        else:
            values = pack_colours(values)
            table, mapping = self._colour_table, self.colour_mapping
        ids = self._look_up(values, table, mapping)
        if (ids == self._outside).any():
            facts = self.count(raw)
            raise DataError(self.explain(facts, file) or f"{file}: a value is outside the contract")
        if self.multi_label:
            ids[(ids == self.ignore_label).any(2)] = self.ignore_label
        return ids

    def _look_up(
        self, values: NDArray[Any], table: NDArray[Any], mapping: Mapping[int, int]
    ) -> NDArray[Any]:
        if values.dtype == np.uint8 and self.dtype == np.uint8:
            cv2 = importlib.import_module("cv2")  # several times as fast as NumPy's indexing
            flat = np.ascontiguousarray(values).reshape(len(values), -1)  # any number of channels
            found: NDArray[Any] = cv2.LUT(flat, table[:256])
            return found.reshape(values.shape)
        if values.dtype in (np.uint8, np.uint16) or len(table) == _NUM_COLOURS:
            return np.take(table, values)
        raws, places = np.unique(values, return_inverse=True)  # negative, or beyond the table
        outside = self._outside if self.map.other is None else self.map.other
        mapped = [mapping.get(int(value), outside) for value in raws]
        return np.array(mapped, dtype=self.dtype)[places].reshape(values.shape)

    def _stacked(self, raw: NDArray[Any] | Sequence[NDArray[Any]], file: str) -> NDArray[Any]:
        """One array, of as many channels as there are classes where the data is multi-label.

        Raises:
            DataError: When the number of channels or the sizes are wrong.
        """
        if not isinstance(raw, np.ndarray):
            sizes = {mask.shape for mask in raw}
            if len(sizes) > 1:
                raise DataError(f"{file}: the masks of the classes differ in size: {sorted(sizes)}")
            raw = np.stack([*raw], axis=2)
        values = raw[..., None] if self.multi_label and raw.ndim == 2 else raw
        if self.multi_label and values.shape[2] != self.num_classes:
            raise DataError(
                f"{file}: a multi-label mask needs a channel per class, {self.num_classes}, but has"
                f" {values.shape[2]}; give a file per class, or set"
                f" dataset.num_classes={values.shape[2]}"
            )
        if not self.multi_label and values.ndim == 3 and values.shape[2] != 3:
            raise DataError(
                f"{file}: the mask has {values.shape[2]} channels; a mask has one, three of colour,"
                " or one per class with dataset.multi_label=true"
            )
        return values

    @cached_property
    def _outside(self) -> int:
        """What marks a raw value that the contract does not know: no id and not ignored."""
        if self.dtype != np.uint8:
            return int(np.iinfo(np.int64).min)
        return 255 if self.ignore_label != 255 else 254

    @cached_property
    def _table(self) -> NDArray[Any]:
        return self._filled(1 << 16, self.mapping)

    @cached_property
    def _colour_table(self) -> NDArray[Any]:
        return self._filled(_NUM_COLOURS, self.colour_mapping)

    def _filled(self, size: int, mapping: Mapping[int, int]) -> NDArray[Any]:
        default = self._outside if self.map.other is None else self.map.other
        table = np.full(size, default, dtype=self.dtype)
        for value, class_id in mapping.items():
            if 0 <= value < size:
                table[value] = class_id
        return table

    # ------------------------------------------------------------------ what is wrong with a mask

    def count(self, raw: NDArray[Any] | Sequence[NDArray[Any]]) -> MaskFacts:
        """What a mask holds, whether it is inside the contract or not."""
        if not isinstance(raw, np.ndarray):
            return MaskFacts((*raw[0].shape, len(raw)), tuple(histogram(mask) for mask in raw))
        if raw.ndim == 3 and not self.multi_label and raw.shape[2] == 3:
            return MaskFacts(raw.shape, (histogram(pack_colours(raw)),), colours=True)
        if raw.ndim == 3:
            channels = tuple(histogram(raw[..., index]) for index in range(raw.shape[2]))
            return MaskFacts(raw.shape, channels)
        return MaskFacts(raw.shape, (histogram(raw),))

    def outside(self, facts: MaskFacts) -> dict[int, int]:
        """The raw values that the contract does not know, and how many pixels have them."""
        if self.map.other is not None:
            return {}
        mapping = self.colour_mapping if facts.colours else self.mapping
        found: dict[int, int] = {}
        for channel in facts.counts:
            for value, number in channel.items():
                if number and value not in mapping:
                    found[value] = found.get(value, 0) + number
        return dict(sorted(found.items()))

    def class_pixels(self, facts: MaskFacts) -> tuple[NDArray[np.int64], int]:
        """Pixels of each class ``(num_ids,)``, and pixels without one."""
        pixels = np.zeros(self.num_ids, dtype=np.int64)
        ignored = 0
        mapping = self.colour_mapping if facts.colours else self.mapping
        for index, channel in enumerate(facts.counts):
            without = 0
            for value, number in channel.items():
                class_id = mapping.get(value, self.map.other)
                if class_id is None or class_id == self.ignore_label:
                    without += number
                elif not self.multi_label:
                    pixels[class_id] += number
                elif class_id and index < self.num_classes:
                    pixels[index] += number
            ignored = max(ignored, without)
        return pixels, ignored

    def explain(self, facts: MaskFacts, file: str, seen: Iterable[int] = ()) -> str | None:
        """One sentence on the values outside the contract, or None when there are none.

        Args:
            facts: Of one mask, as from :meth:`count`.
            file: The mask, for the message.
            seen: Values found in the other masks; with them the proposed fix covers all masks.
        """
        outside = self.outside(facts)
        if not outside:
            return None
        values = facts.values | set(seen)
        held = list_counts(outside, colours=facts.colours)
        return f"{file}: the mask holds {held}, but {self._allowed(facts)}; " + (
            advise_colours(values, self.names, self.colour_mapping, self.map.values)
            if facts.colours
            else advise(
                values,
                len(_ANSWERS) if self.multi_label else self.num_ids,
                self.ignore_label,
                self.map.values if self.label_map is not None else None,
            )
        )

    def _allowed(self, facts: MaskFacts) -> str:
        if facts.colours and not self.colour_mapping:
            return "no dataset.palette says which class a colour is"
        described = describe_map(self.map.values, most=_MOST_SAID) or "dataset.label_map"
        if facts.colours:
            return "dataset.palette and dataset.label_map name no such colour"
        if self.label_map is not None:
            return f"{described} and dataset.ignore_label={self.ignore_label} name no such value"
        if self.multi_label:
            return f"with dataset.multi_label=true only 0, 1 and {self.ignore_label} are allowed"
        one = " (one logit)" if self.is_binary else ""
        return (
            f"with dataset.num_classes={self.num_classes}{one} only 0 to {self.num_ids - 1} and "
            f"dataset.ignore_label={self.ignore_label} are allowed"
        )

    def check_ids(self, target: NDArray[Any], name: str) -> None:
        """Check a target that did not come through :meth:`to_ids`.

        Raises:
            DataError: When it holds anything but class ids and `ignore_label`.
        """
        most = len(_ANSWERS) if self.multi_label else self.num_ids
        outside = (target < 0) | (target >= most) if target.dtype.kind == "i" else target >= most
        if outside.any() and (outside := outside & (target != self.ignore_label)).any():
            allowed = self._allowed(MaskFacts(target.shape, ()))
            raise DataError(
                f"sample {name!r}: its target holds {target[outside][0]} at {int(outside.sum())}"
                f" or fewer pixels; {allowed}"
            )

    # ------------------------------------------------------------------ names and colours

    def colorize(self, ids: NDArray[Any]) -> NDArray[np.uint8]:
        """Class ids as colours; pixels without a class are black.

        Shape:
            - ids: ``(H, W)``, integers; for multi-label data ``(H, W, num_classes)``, of which the
              last class that is there is seen.
            - output: ``(H, W, 3)``, uint8.
        """
        if self.multi_label:
            there = ids == 1
            last = self.num_classes - 1 - there[..., ::-1].argmax(2)
            ids = np.where(there.any(2), last, -1)
        colours = np.array([*self.colours, (0, 0, 0)], dtype=np.uint8)
        valid = (ids >= 0) & (ids < self.num_ids)
        return colours[np.where(valid, ids, self.num_ids)]

    def _default_names(self) -> Sequence[str]:
        if self.is_binary:
            return ("background", "object")
        return [f"class_{i}" for i in range(self.num_classes)]

    def _checked_names(self, names: Sequence[str]) -> Sequence[str]:
        names = ["background", *names] if self.is_binary and len(names) == 1 else list(names)
        _check_length("class_names", names, self.num_ids)
        doubled = [name for name in names if names.count(name) > 1]
        if doubled:
            raise ConfigError(f"dataset.class_names has {doubled[0]!r} more than once")
        return names

    def _with_one(self, palette: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
        """The palette; black for the background where only the object's colour is given."""
        return [(0, 0, 0), *palette] if self.is_binary and len(palette) == 1 else palette

    def _check_ignore_label(self) -> None:
        ids = max(self.num_ids, len(_ANSWERS) if self.multi_label else 0)
        if 0 <= self.ignore_label < ids:
            raise ConfigError(
                f"dataset.ignore_label={self.ignore_label} is also a class id, because "
                f"dataset.num_classes={self.num_classes} makes the ids 0 to {ids - 1}; choose a "
                f"value outside them, such as {255 if ids <= 255 else -1}"
            )


def _check_length(key: str, values: Sequence[Any], wanted: int) -> None:
    if len(values) != wanted:
        raise ConfigError(
            f"dataset.{key} has {len(values)} entries, but there are {wanted} classes; give one"
            " entry per class"
        )


def _check_colours(palette: Sequence[Sequence[int]]) -> None:
    for index, colour in enumerate(palette):
        if len(colour) != 3 or not all(0 <= channel <= 255 for channel in colour):
            raise ConfigError(
                f"dataset.palette[{index}] must be three numbers from 0 to 255, got {list(colour)}"
            )


def _check_different(palette: Sequence[Sequence[int]], names: Sequence[str]) -> None:
    first: dict[tuple[int, ...], str] = {}
    for colour, name in zip(palette, names, strict=True):
        other = first.setdefault(tuple(colour), name)
        if other != name:
            raise ConfigError(
                f"dataset.palette has {list(colour)} for {other!r} and for {name!r}; a mask of"
                " colours could not be read, so give every class its own"
            )


def _check_pairs(
    pairs: Sequence[Sequence[int | str]], names: Sequence[str]
) -> tuple[tuple[int, int], ...]:
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
    if len(set(members)) < len(members):
        raise ConfigError("dataset.flip_pairs names a class twice; each has one partner")
    return tuple(found)
