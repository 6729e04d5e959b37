"""Open the split that a checkpoint is scored on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segtrain.assembly.class_names import check_class_names
from segtrain.assembly.opening import build_splits, download_once, log_fold
from segtrain.assembly.trial import check_channels
from segtrain.data import SegmentationDataset
from segtrain.data.datasets.configured import ConfiguredDataset
from segtrain.data.io.remote import is_url, shown
from segtrain.data.io.storage import is_directory
from segtrain.data.labels.scored_classes import ScoredClasses, map_classes
from segtrain.engine.checkpoint import State
from segtrain.engine.distributed import Processes
from segtrain.errors import CheckpointError, ConfigError, DataError, NoFilesError
from segtrain.models import Segmentor
from segtrain.schema.sections import EvaluateConfig, Spec


def open_scored_split(
    config: EvaluateConfig,
    trained: Spec,
    model: Segmentor,
    metadata: State,
    path: Path,
    processes: Processes,
) -> tuple[SegmentationDataset, Spec]:
    """Open the split to score, and check that the model fits it.

    Args:
        config: The configuration of the evaluation.
        trained: The section ``dataset`` in the checkpoint.
        model: The model of the checkpoint.
        metadata: The entry ``metadata`` of the checkpoint.
        path: The checkpoint, for messages.
        processes: The processes that share the work.

    Returns:
        The split, which is not scanned yet, and the section ``dataset`` that describes it.

    Raises:
        SegtrainError: When the split cannot be opened, or its classes or channels are not those of
            the model.
    """
    given = config.dataset or {}
    spec = given if "name" in given else _changed(trained, given)
    check_addresses(spec, given, path)
    download_once(spec, processes)
    try:
        (dataset,) = build_splits(spec, [config.split], processes)
    except DataError as error:
        is_own_root = "name" not in given and "root" not in given
        raise _explain(error, spec, path if is_own_root else None) from None
    if isinstance(dataset, ConfiguredDataset):
        dataset.score_once()
    if processes.is_main and config.split != "test":
        log_fold(spec)
    _check_multi_label(dataset, metadata)
    if config.class_map is None:
        _check_num_classes(dataset, model)
        check_class_names(dataset, spec, config.split, metadata["class_names"], path)
    check_channels(model, dataset.channels)
    return dataset, spec


def check_addresses(spec: Spec, given: Spec, path: Path) -> None:
    """Refuse to connect to an address that only the checkpoint names.

    Args:
        spec: The section ``dataset``.
        given: The keys of it that the user gave.
        path: The checkpoint, for messages.

    Raises:
        CheckpointError: When `spec` has an address that `given` does not have.
    """
    known = set(_texts(given))
    for key, text in _texts_by_key(spec):
        if is_url(text) and text not in known:
            raise CheckpointError(
                f"{path} names data at {shown(text)}, which nobody asked to connect to; add"
                f" dataset.{key}={shown(text)} to do so, or set dataset.{key} to a copy of the data"
            )


def _texts(value: Any) -> list[str]:
    return [text for _, text in _texts_by_key(value)]


def _texts_by_key(value: Any, key: str = "") -> list[tuple[str, str]]:
    """Every text in nested values, with its dotted key."""
    if isinstance(value, Mapping):
        return [
            found
            for name, item in value.items()
            for found in _texts_by_key(item, f"{key}.{name}" if key else str(name))
        ]
    if isinstance(value, (list, tuple)):
        return [found for item in value for found in _texts_by_key(item, key)]
    return [(key, value)] if isinstance(value, str) else []


def _changed(trained: Spec, given: Spec) -> Spec:
    """Return the section of the training with the given keys, also inside of mappings."""
    found = dict(trained)
    for key, value in given.items():
        known = trained.get(key)
        merges = isinstance(value, dict) and isinstance(known, dict) and key != "label_map"
        found[key] = _changed(known, value) if merges and known is not None else value
    return found


def _explain(error: DataError, spec: Mapping[str, Any], checkpoint: Path | None) -> DataError:
    """Return an error without the advice for training; it names a root that does not exist.

    Args:
        error: The error of a dataset that cannot be opened.
        spec: The section ``dataset``.
        checkpoint: The checkpoint, if it decides the root; None: the user's words do.
    """
    root = str(spec.get("root") or ".")
    if is_url(root) or is_directory(Path(root).expanduser()):
        return DataError(error.found) if isinstance(error, NoFilesError) else error
    origin = "" if checkpoint is None else f", the root in {checkpoint},"
    download = ", or dataset.download=true to fetch the data" if spec.get("source") else ""
    return DataError(
        f"dataset.root={root}{origin} does not exist; set dataset.root= to the directory or the zip"
        f" or tar archive that holds the data now{download}"
    )


def scored_classes(
    config: EvaluateConfig, dataset: SegmentationDataset, metadata: State
) -> ScoredClasses | None:
    """Build the classes that `class_map` says; None without it.

    Raises:
        ConfigError: When `class_map` does not fit the classes of the model and the dataset.
    """
    if config.class_map is None:
        return None
    if dataset.labels.multi_label:
        raise ConfigError(
            "class_map merges classes that exclude each other, but dataset.multi_label=true; leave"
            " class_map out, and name the classes to score in evaluation.classes"
        )
    names, colours = metadata["class_names"], metadata["palette"]
    return map_classes(config.class_map, dataset.labels, names, colours)


def _check_num_classes(dataset: SegmentationDataset, model: Segmentor) -> None:
    if dataset.num_classes != model.num_classes:
        raise ConfigError(
            f"the model of the checkpoint has {model.num_classes} classes, but the dataset has"
            f" {dataset.num_classes}; to score those that both have, map their names with class_map"
        )


def _check_multi_label(dataset: SegmentationDataset, metadata: State) -> None:
    if dataset.labels.multi_label != bool(metadata.get("multi_label")):
        raise ConfigError(
            f"dataset.multi_label={str(dataset.labels.multi_label).lower()}, but the checkpoint was"
            " trained with the other value"
        )
