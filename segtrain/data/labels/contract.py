"""The label contract: the one place where raw mask values become class ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segtrain.data.labels.advice import advise
from segtrain.data.labels.checks import (
    check_colours_differ,
    check_ignore_label,
    check_length,
    check_names,
    check_palette,
    flip_pair_ids,
)
from segtrain.data.labels.colour_advice import advise_colours
from segtrain.data.labels.label_map import LabelMap, MapGiven, parse_label_map
from segtrain.data.labels.lookup import NUM_COLOURS, Lookup
from segtrain.data.labels.mask_facts import NAN, MaskFacts, pack, pack_colours, stack_channels
from segtrain.data.labels.palette import colorize, default_palette
from segtrain.data.labels.wording import describe_map, list_counts
from segtrain.errors import ConfigError, DataError

_MAX_SHOWN = 60  # characters of a label map that a message repeats
_GREY, _MANY = 256, 64  # grey values; so many are ranges, not single values
_NO_AND_YES = ("no", "yes")  # what the values 0 and 1 of a multi-label mask mean for its class


@dataclass(frozen=True)
class LabelContract:
    """The meaning of the values in a mask, and the names and colours of the classes.

    Args:
        num_classes: Channels of the logits. Class ids run from 0 to ``num_classes - 1``; 1 means
            one logit that separates an object (id 1) from the background (id 0).
        ignore_label: The value of pixels without a class in every `target`; not a class id.
        label_map: The class id of each raw value, see :mod:`segtrain.data.labels.label_map`. Its
            entries win over `ignore_label`, so ``{0: 0, 255: 1}`` reads binary masks. None: raw
            values are class ids.
        class_names: One name per class; ``class_0``, ``class_1``, ... by default.
        palette: One RGB colour (0 to 255) per class, by which masks of colours are read and
            predictions are drawn. None: default colours, for drawing only.
        multi_label: Whether a pixel may have several classes or none. Each class then has a mask
            of 0 and 1: a file of its own, or a channel of one file.
        flip_pairs: Pairs of classes (ids or names) that are swapped when an image is mirrored, such
            as left and right arm.

    Attributes:
        names: One name per class id.
        colours: One RGB colour per class id.

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
        check_ignore_label(
            self.ignore_label, self.num_classes, max(self.num_ids, self._values_per_channel)
        )
        names, colours = self._all_names(), self._all_colours()
        check_names(names, self.num_ids)
        check_palette(self.palette or ())
        check_length("palette", colours, self.num_ids)
        object.__setattr__(self, "names", tuple(str(name) for name in names))
        object.__setattr__(self, "colours", tuple(tuple(colour) for colour in colours))
        object.__setattr__(self, "flip_pairs", flip_pair_ids(self.flip_pairs, self.names))
        _ = self.map  # checks label_map

    def _all_names(self) -> list[str]:
        if self.class_names is None and not self.is_binary:
            return [f"class_{index}" for index in range(self.num_classes)]
        names = ["object"] if self.class_names is None else list(self.class_names)
        return ["background", *names] if self.is_binary and len(names) == 1 else names

    def _all_colours(self) -> Sequence[Sequence[int]]:
        if self.palette is None:
            return default_palette(self.num_ids)
        only_object = self.is_binary and len(self.palette) == 1
        return [(0, 0, 0), *self.palette] if only_object else self.palette

    # ------------------------------------------------------------------ the meaning of values

    @property
    def is_binary(self) -> bool:
        """Whether one logit separates an object from the background."""
        return self.num_classes == 1 and not self.multi_label

    @property
    def num_ids(self) -> int:
        """Number of class ids: 2 for one logit, else `num_classes`."""
        return 2 if self.is_binary else self.num_classes

    @property
    def _values_per_channel(self) -> int:
        """Number of values in a channel of a target, besides the ignore label: ids, or 0 and 1."""
        return len(_NO_AND_YES) if self.multi_label else self.num_ids

    @cached_property
    def map(self) -> LabelMap:
        """`label_map` in plain numbers; for multi-label masks, to 0, 1 and the ignore label."""
        names = _NO_AND_YES if self.multi_label else self.names
        return parse_label_map(self.label_map or {}, self.ignore_label, names)

    @cached_property
    def mapping(self) -> Mapping[int, int]:
        """Every raw value that a mask may hold, and its class id or `ignore_label`."""
        known = {}
        if self.label_map is None:
            known = {value: value for value in range(self._values_per_channel)}
        known[self.ignore_label] = known[NAN] = self.ignore_label
        return known | self.map.values

    @cached_property
    def colour_mapping(self) -> Mapping[int, int]:
        """Likewise for masks of colours: ``0xRRGGBB`` to class id."""
        known = {}
        if self.palette is not None:
            check_colours_differ(self.colours, self.names)
            known = {pack(colour): class_id for class_id, colour in enumerate(self.colours)}
        return known | self.map.values

    @cached_property
    def reads_ranges(self) -> bool:
        """Whether `label_map` gives every grey value from 0 to 255 a class, as soft masks need."""
        listed = sum(0 <= value < _GREY for value in self.map.values)
        return listed == _GREY or (self.map.other is not None and listed >= _MANY)

    def _mapping_of(self, facts: MaskFacts) -> Mapping[int, int]:
        return self.colour_mapping if facts.colours else self.mapping

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The type of the targets: uint8 if it holds every id and `ignore_label`, else int64."""
        small = 0 <= self.ignore_label <= 255 and max(self.num_ids, 2) <= 254
        return np.dtype(np.uint8 if small else np.int64)

    # ------------------------------------------------------------------ from raw values to ids

    def to_ids(
        self,
        raw: NDArray[Any] | Sequence[NDArray[Any]],
        file: str,
        valid: NDArray[np.bool_] | None = None,
    ) -> NDArray[Any]:
        """Return the class ids of a mask as read from disk.

        Args:
            raw: The values in the mask. For multi-label data also a list with a mask per class.
            file: The name of the mask, for error messages.
            valid: The pixels that count; the others become `ignore_label`, whatever their value.
                None: all pixels count.

        Shape:
            - valid: ``(H, W)``.
            - raw: ``(H, W)``, any integer type, or colours ``(H, W, 3)``, uint8. For multi-label
              data ``(H, W, num_classes)``, or a list of ``(H, W)``.
            - output: ``(H, W)`` of `dtype`, in ``[0, num_ids)`` or `ignore_label`. For multi-label
              data ``(H, W, num_classes)``, 0, 1 or `ignore_label`, the latter in all channels.

        Raises:
            DataError: When a value is outside the contract.
        """
        values = stack_channels(raw, file, self.num_classes if self.multi_label else None)
        if values.ndim == 3 and not self.multi_label:
            ids = self._colour_lookup(pack_colours(values))
        else:
            ids = self._lookup(values)
        if valid is not None:
            ids[~valid] = self.ignore_label
        if (ids == self._outside).any():
            facts = self.count(raw, valid)
            raise DataError(self.explain(facts, file) or f"{file}: a value is outside the contract")
        if self.multi_label:
            ids[(ids == self.ignore_label).any(2)] = self.ignore_label
        return ids

    @cached_property
    def _outside(self) -> int:
        """The result for a raw value outside the contract: neither a class id nor ignored."""
        if self.dtype != np.uint8:
            return int(np.iinfo(np.int64).min)
        return 255 if self.ignore_label != 255 else 254

    @cached_property
    def _lookup(self) -> Lookup:
        default = self._outside if self.map.other is None else self.map.other
        return Lookup(self.mapping, default, self.dtype)

    @cached_property
    def _colour_lookup(self) -> Lookup:
        default = self._outside if self.map.other is None else self.map.other
        return Lookup(self.colour_mapping, default, self.dtype, NUM_COLOURS)

    # ------------------------------------------------------------------ counts and problems

    def count(
        self, raw: NDArray[Any] | Sequence[NDArray[Any]], valid: NDArray[np.bool_] | None = None
    ) -> MaskFacts:
        """Count the raw values of a mask, whether they are inside the contract or not.

        Args:
            raw: The values, as for :meth:`to_ids`.
            valid: The pixels that count, ``(H, W)``; None: all pixels.
        """
        return MaskFacts.of_mask(raw, multi_label=self.multi_label, valid=valid)

    def outside(self, facts: MaskFacts) -> dict[int, int]:
        """Return the raw values outside the contract, and the number of pixels of each."""
        if self.map.other is not None:
            return {}
        mapping = self._mapping_of(facts)
        found: dict[int, int] = {}
        for channel in facts.counts:
            for value, number in channel.items():
                if number and value not in mapping:
                    found[value] = found.get(value, 0) + number
        return dict(sorted(found.items()))

    def class_pixels(self, facts: MaskFacts) -> tuple[NDArray[np.int64], int]:
        """Return the pixels of each class ``(num_ids,)``, and the number of pixels without one."""
        pixels = np.zeros(self.num_ids, dtype=np.int64)
        ignored = 0
        mapping = self._mapping_of(facts)
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
        return pixels, ignored + facts.invalid

    def explain(
        self, facts: MaskFacts, file: str, seen: Mapping[int, int] | None = None
    ) -> str | None:
        """Return an error message about the values outside the contract; None: there are none.

        Args:
            facts: The counts of one mask, as from :meth:`count`.
            file: The name of the mask, for the message.
            seen: The values in all masks with their pixels, so that the proposed fix covers them;
                None: only those of this mask.
        """
        outside = self.outside(facts)
        if not outside:
            return None
        counts = facts.totals() if seen is None else seen
        held = list_counts(outside, colours=facts.colours)
        if facts.colours:
            fix = advise_colours(
                counts, self.names, self.colour_mapping, self.map.values, self.ignore_label
            )
        else:
            given = None if self.label_map is None else self.map.values
            fix = advise(counts, self._values_per_channel, self.ignore_label, given)
        return f"{file}: the mask holds {held}, but {self._allowed(facts)}; {fix}"

    def _allowed(self, facts: MaskFacts) -> str:
        if facts.colours and not self.colour_mapping:
            return "dataset.palette, which gives each class its colour, is not set"
        if facts.colours:
            return "dataset.palette and dataset.label_map have no such colour"
        ignored = f"dataset.ignore_label={self.ignore_label}"
        if self.label_map is not None:
            described = describe_map(self.map.values, max_length=_MAX_SHOWN) or "dataset.label_map"
            return f"only the values of {described} and {ignored} are allowed"
        if self.multi_label:
            return f"with dataset.multi_label=true only 0, 1 and {ignored} are allowed"
        one = " (one logit)" if self.is_binary else ""
        return (
            f"with dataset.num_classes={self.num_classes}{one} only 0 to {self.num_ids - 1} and"
            f" {ignored} are allowed"
        )

    def check_ids(self, target: NDArray[Any], name: str) -> None:
        """Check a target that did not come through :meth:`to_ids`.

        Raises:
            DataError: When it holds anything but class ids and `ignore_label`.
        """
        outside = target >= self._values_per_channel
        if target.dtype.kind == "i":
            outside |= target < 0
        if outside.any() and (outside := outside & (target != self.ignore_label)).any():
            allowed = self._allowed(MaskFacts(target.shape, ()))
            raise DataError(
                f"sample {name!r}: its target holds {target[outside][0]}, one of"
                f" {int(outside.sum())} values outside the contract; {allowed}"
            )

    def colorize(self, ids: NDArray[Any]) -> NDArray[np.uint8]:
        """Return class ids as colours; pixels without a class are black.

        Shape:
            - ids: ``(H, W)``, integers. For multi-label data ``(H, W, num_classes)``; where classes
              overlap, the last one is drawn.
            - output: ``(H, W, 3)``, uint8.
        """
        if self.multi_label:
            there = ids == 1
            last = self.num_classes - 1 - there[..., ::-1].argmax(2)
            ids = np.where(there.any(2), last, -1)
        return colorize(ids, self.colours)
