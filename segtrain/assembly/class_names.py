"""Compare the classes of a checkpoint with those of the dataset that it is scored on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from segtrain.data import DATASETS, ExportDataset, FileDataset, LabelContract, SegmentationDataset
from segtrain.data.labels.reorder import Match, match_names, reordering
from segtrain.data.labels.wording import in_words, override
from segtrain.errors import ConfigError, DataError, SegtrainError

_MAX_LISTED = 5


class _Opened(NamedTuple):
    """A split, and how it was opened."""

    dataset: SegmentationDataset
    spec: Mapping[str, Any]
    split: str


def check_class_names(
    dataset: SegmentationDataset,
    spec: Mapping[str, Any],
    split: str,
    trained: Sequence[str],
    path: Path,
) -> None:
    """Check that a dataset has the classes of a checkpoint, in the same order.

    Names that nobody chose (``class_0``, ...) are not compared.

    Args:
        dataset: The split to score; it has as many classes as the checkpoint.
        spec: The section ``dataset`` that describes it.
        split: The name of the split.
        trained: The class names of the checkpoint.
        path: The checkpoint, for messages.

    Raises:
        ConfigError: When names or order differ, with the words that make them the same.
    """
    labels = dataset.labels
    unnamed = LabelContract(
        labels.num_classes, labels.ignore_label, multi_label=labels.multi_label
    ).names
    if unnamed in (labels.names, tuple(trained)):
        return
    match = match_names(labels.names, trained)
    if match.in_order and not match.guessed:
        return
    opened = _Opened(dataset, spec, split)
    problem, condition = _differing_names(match) if match.guessed else _moved(labels.names, match)
    raise ConfigError(
        f"the class names of the dataset and of {path} differ: {problem}, so scores would have"
        f" wrong names; {condition}{_remedy(opened, match, trained)}, or map them with class_map"
    )


def _moved(names: Sequence[str], match: Match) -> tuple[str, str]:
    moved = [
        f"{name!r} is class {index} of the dataset and class {match.ids[index]} of the checkpoint"
        for index, name in enumerate(names)
        if index != match.ids[index]
    ]
    return f"{moved[0]}, and so on", "to score the dataset in the order of the checkpoint, "


def _differing_names(match: Match) -> tuple[str, str]:
    pairs = match.guessed[:_MAX_LISTED]
    more = f" and {len(match.guessed) - len(pairs)} more" if match.guessed[_MAX_LISTED:] else ""
    ours, theirs = (in_words(repr(pair[side]) for pair in pairs) + more for side in (0, 1))
    meant = in_words(f"{one!r} means {other!r}" for one, other in pairs)
    return f"only the dataset has {ours}, only the checkpoint has {theirs}", f"if {meant}, "


def _remedy(opened: _Opened, match: Match, trained: Sequence[str]) -> str:
    """Return what to do, so that the dataset has the classes of the checkpoint."""
    words = _words(opened, match, trained)
    name = str(opened.spec["name"])
    if words is None or not words.keys() <= DATASETS.schema(name).keys():
        return (
            f"change dataset {name!r} so that its classes are {', '.join(trained)}, in this order"
        )
    return f"add {' '.join(words.values())}"


def _words(opened: _Opened, match: Match, trained: Sequence[str]) -> dict[str, str] | None:
    """Return the overrides to paste, by key; None: no override moves the classes."""
    labels = opened.dataset.labels
    names = {"class_names": override("class_names", trained)}
    if isinstance(opened.dataset, ExportDataset):  # its masks are read by name
        renamed = dict(match.guessed)
        given = dict(opened.spec.get("label_map") or {})
        chosen = {key: renamed.get(name, name) for key, name in given.items()} | renamed
        return names | ({"label_map": override("label_map", chosen)} if chosen else {})
    if labels.multi_label:
        return names if _masks_follow(opened, match, trained) else None
    if match.in_order:
        return names
    return reordering(labels, match.ids, trained, colours=_holds_colours(opened.dataset))


def _holds_colours(dataset: SegmentationDataset) -> bool:
    """Whether the first readable mask holds colours."""
    if not isinstance(dataset, FileDataset):
        return False
    for index in range(len(dataset)):
        try:
            return dataset.count_mask(index).colours
        except DataError:  # the scan reports it, or leaves the sample out
            continue
    return False


def _masks_follow(opened: _Opened, match: Match, trained: Sequence[str]) -> bool:
    """Whether new class names alone give each mask of a multi-label dataset its new class."""
    try:
        renamed = DATASETS.build({**opened.spec, "class_names": [*trained]}, split=opened.split)
    except SegtrainError:  # such as masks that the configuration lists by the old names
        return False
    if match.in_order:
        return True
    assert isinstance(opened.dataset, FileDataset)
    assert isinstance(renamed, FileDataset)
    before, after = opened.dataset.files[0].masks, renamed.files[0].masks
    return len(before) == len(match.ids) and all(
        after[new] == before[old] for old, new in enumerate(match.ids)
    )
