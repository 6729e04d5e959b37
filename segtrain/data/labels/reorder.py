"""The classes of a dataset in the order of another list of names, as overrides to paste."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from segtrain.data.labels.contract import LabelContract
from segtrain.data.labels.label_map import OTHER, compact_map
from segtrain.data.labels.wording import override


class Match(NamedTuple):
    """Which class of one list each class of another list is.

    Attributes:
        ids: The position in the wanted list of each of the given names.
        guessed: Pairs of a given and a wanted name that only their order relates.
    """

    ids: tuple[int, ...]
    guessed: tuple[tuple[str, str], ...]

    @property
    def in_order(self) -> bool:
        """Whether the classes have the same order in both lists."""
        return self.ids == tuple(range(len(self.ids)))


def match_names(given: Sequence[str], wanted: Sequence[str]) -> Match:
    """Find each of the `given` names in the `wanted` ones; both lists have the same length.

    Names are the same if they differ in case or punctuation only. The names without a partner are
    related in their order.

    Example:
        >>> match_names(["Car", "bike", "traffic light"], ["traffic_light", "car", "bicycle"])
        Match(ids=(1, 2, 0), guessed=(('bike', 'bicycle'),))
    """
    found: dict[int, int] = {}
    same: tuple[Callable[[str], str], ...] = (str, letters)
    for key in same:
        free = {key(name): i for i, name in enumerate(wanted) if i not in found.values()}
        for index, name in enumerate(given):
            if index not in found and key(name) in free:
                found[index] = free.pop(key(name))
    left = [index for index in range(len(given)) if index not in found]
    free_ids = [index for index in range(len(wanted)) if index not in found.values()]
    guessed = dict(zip(left, free_ids, strict=True))
    ids = found | guessed
    pairs = tuple((given[one], wanted[other]) for one, other in guessed.items())
    return Match(tuple(ids[index] for index in range(len(given))), pairs)


def reordering(
    labels: LabelContract, ids: Sequence[int], names: Sequence[str], *, colours: bool
) -> dict[str, str]:
    """Return the overrides, by key, that give every class another id.

    Args:
        labels: The contract of masks whose values or colours mean class ids; not multi-label.
        ids: The new id of each class id.
        names: The name of each new id.
        colours: Whether the masks hold colours.
    """
    found = {"class_names": override("class_names", names)}
    if colours and labels.palette is not None:
        palette = dict(zip(ids, labels.colours, strict=True))
        found["palette"] = override("palette", [palette[index] for index in range(len(ids))])
    raw: Mapping[int, int] = labels.map.values
    if labels.label_map is None and not colours:
        raw = {value: value for value in range(labels.num_ids)}
    new = {**dict(enumerate(ids)), labels.ignore_label: labels.ignore_label}
    values = {value: new[class_id] for value, class_id in raw.items()}
    entries = compact_map(values, colours=colours)
    if labels.map.other is not None:
        entries[OTHER] = new[labels.map.other]
    if entries:
        found["label_map"] = override("label_map", entries)
    return found


def letters(name: str) -> str:
    """The letters and digits of a name, in lower case; names that share them are the same."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())
