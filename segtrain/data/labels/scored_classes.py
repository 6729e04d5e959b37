"""The classes that are scored when a model and a dataset name theirs differently."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segtrain.data.labels.contract import LabelContract
from segtrain.data.labels.reorder import letters
from segtrain.data.labels.wording import in_words
from segtrain.errors import ConfigError
from segtrain.schema.values import did_you_mean

ClassMap = Mapping[str, str | None]
Colours = Sequence[Sequence[int]]


@dataclass(frozen=True)
class ScoredClasses:
    """The classes that are scored, and the one that each class of model and dataset becomes.

    Scored ids come first. The ids after them are predictions that are never right: classes of the
    model that the dataset lacks, or that are mapped to null.

    Attributes:
        labels: Names and colours of all ids.
        num_scored: The number of scored ids.
        of_model: The id of each class id of the model.
        of_dataset: The id of each class id of the dataset, or the ignore label of `labels`.
    """

    labels: LabelContract
    num_scored: int
    of_model: tuple[int, ...]
    of_dataset: tuple[int, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the scored classes."""
        return self.labels.names[: self.num_scored]

    @property
    def predicted_only(self) -> tuple[str, ...]:
        """The names of the predictions that are never right."""
        return self.labels.names[self.num_scored :]


def map_classes(
    class_map: ClassMap,
    dataset: LabelContract,
    model_names: Sequence[str],
    model_colours: Colours,
) -> ScoredClasses:
    """Map the classes of a model and of a dataset to common names.

    Args:
        class_map: The common name of a class of the model or of the dataset; None: the class is not
            scored, and its pixels in the target are ignored. A class that is not named keeps its
            name. Entries do not follow each other.
        dataset: The contract of the dataset; each pixel has one class.
        model_names: One name per class id of the model.
        model_colours: One RGB colour per class id of the model.

    Returns:
        The scored classes, in the order of the dataset. A name of the model is that of the dataset
        if it differs in case or punctuation only.

    Raises:
        ConfigError: When `class_map` names an unknown class, the model lacks a class of the
            dataset, or fewer than two classes are left.

    Example:
        >>> street = LabelContract(3, class_names=["road", "car", "bus"])
        >>> found = map_classes({"bus": "car"}, street, ["Car", "road", "pole"], [(0, 0, 0)] * 3)
        >>> found.names, found.predicted_only, found.of_model, found.of_dataset
        (('road', 'car'), ('pole',), (1, 0, 2), (0, 1, 1))
    """
    _check_keys(class_map, dataset.names, model_names)
    common = _Common()
    ids = [
        None if name is None else common.id_of(name, colour)
        for name, colour in zip(_mapped(dataset.names, class_map), dataset.colours, strict=True)
    ]
    common.num_scored = len(common.names)
    mapped = zip(_mapped(model_names, class_map), model_names, model_colours, strict=True)
    of_model = tuple(
        common.new(raw, colour) if name is None else common.like(name, colour)
        for name, raw, colour in mapped
    )
    _check_known(set(of_model), ids, dataset.names, model_names)
    if common.num_scored == 0 or len(common.names) < 2:
        left = f"one class, {common.names[0]!r}" if common.num_scored else "no class to score"
        raise ConfigError(f"class_map leaves {left}; it must leave classes to tell apart")
    labels = LabelContract(
        len(common.names),
        255 if len(common.names) <= 255 else -1,
        class_names=common.names,
        palette=common.colours,
    )
    of_dataset = tuple(labels.ignore_label if index is None else index for index in ids)
    return ScoredClasses(labels, common.num_scored, of_model, of_dataset)


def _mapped(names: Sequence[str], class_map: ClassMap) -> list[str | None]:
    return [class_map.get(name, name) for name in names]


class _Common:
    """The common names: first those of the dataset, which are scored, then those of the model."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.colours: Colours = []
        self.num_scored = 0

    def id_of(self, name: str, colour: Sequence[int]) -> int:
        """The id of a name, which is added if it is new."""
        return self.names.index(name) if name in self.names else self.new(name, colour)

    def like(self, name: str, colour: Sequence[int]) -> int:
        """The id of a name; one that differs in case or punctuation only is the same."""
        if name not in self.names and letters(name):
            for index, scored in enumerate(self.names[: self.num_scored]):
                if letters(scored) == letters(name):
                    return index
        return self.id_of(name, colour)

    def new(self, name: str, colour: Sequence[int]) -> int:
        """Add a name, and return its id."""
        self.names.append(f"{name} (model)" if name in self.names else name)
        self.colours = [*self.colours, colour]
        return len(self.names) - 1


def _check_keys(class_map: ClassMap, dataset: Sequence[str], model: Sequence[str]) -> None:
    for name in class_map:
        if name not in dataset and name not in model:
            known = dict.fromkeys([*dataset, *model])
            raise ConfigError(
                f"class_map.{name}: neither the dataset nor the model has a class"
                f" {name!r}{did_you_mean(name, known)}"
            )


def _check_known(
    predicted: set[int],
    ids: Sequence[int | None],
    dataset: Sequence[str],
    model: Sequence[str],
) -> None:
    """Check that the model has each class of the dataset."""
    missing = [
        raw
        for raw, index in zip(dataset, ids, strict=True)
        if index is not None and index not in predicted
    ]
    if not missing:
        return
    close = difflib.get_close_matches(missing[0], model, n=1, cutoff=0.4)
    example = close[0] if close else model[0]
    raise ConfigError(
        f"the model has no class for {in_words(map(repr, missing))} of the dataset; map each in"
        f" class_map to a class of the model, as in {missing[0]}: {example}, or to null, which"
        f" ignores its pixels; the classes of the model are {', '.join(model)}"
    )
