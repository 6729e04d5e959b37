"""Weights of other code as a checkpoint of segtrain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segtrain.assembly.metadata import checkpoint_metadata
from segtrain.assembly.model import load_model
from segtrain.assembly.trial import try_model
from segtrain.data import DATASETS, LabelContract
from segtrain.engine.checkpoint import save_checkpoint
from segtrain.engine.distributed import Processes, processes
from segtrain.errors import CheckpointError, ConfigError, DataError
from segtrain.models.weights import LoadReport, WeightFile, recognise
from segtrain.models.weights.files import read_weights
from segtrain.models.weights.sources import IMAGENET, find_file
from segtrain.schema.sections import Config, ImportConfig
from segtrain.terminal import logger


def complete(raw: dict[str, Any], weights: str, *, model_given: bool) -> dict[str, Any]:
    """The composed configuration `raw`, with what the file itself can tell.

    Args:
        raw: Nested plain values.
        weights: The file.
        model_given: Whether the user named a model.

    Raises:
        ConfigError: When a model must be named.
        CheckpointError: When the file cannot be read, or is one of a backbone.
    """
    if (raw.get("model") or {}).get("weights") is not None:
        raise ConfigError("model.weights is not set here: the file is weights=...")
    file = _open(weights)
    if not model_given:
        fits = "" if file.fits is None else f"; the file fits model={file.fits}"
        raise ConfigError(f"model=NAME is needed, the model that the weights are of{fits}")
    dataset = dict(raw.get("dataset") or {})
    if (
        dataset.get("name") in ("folder", "list", "coco", "webdataset")
        and file.num_classes is not None
    ):
        dataset.setdefault("num_classes", file.num_classes)
        if file.class_names and dataset.get("class_names") is None:
            dataset["class_names"] = list(file.class_names)
    return {**raw, "dataset": dataset, "model": {**raw["model"], "weights": weights}}


def _open(weights: str) -> WeightFile:
    if weights == IMAGENET:
        raise ConfigError("weights=imagenet is a backbone and no model; train with model.weights")
    file = recognise(read_weights(find_file(weights, "weights")), weights)
    if file.fits is not None and not file.has_heads:  # an HRNet: of others only the model can tell
        raise CheckpointError(
            f"{weights} ({file.kind}) is a backbone without a head, so there is nothing to evaluate"
            " or predict with; train with model.weights"
        )
    return file


def import_checkpoint(given: ImportConfig, config: Config, processes: Processes) -> LoadReport:
    """Write the weights that `config` names as a checkpoint; says what became of them.

    Args:
        given: Where to write.
        config: The model, the labels and the normalisation; what concerns training is kept for
            whoever evaluates.
        processes: One process.

    Raises:
        SegtrainError: When the weights do not fit, or part of the model would not come from them.
    """
    if config.model["reinit"]:
        raise ConfigError(
            "model.reinit leaves part of the model untrained, and an imported checkpoint is to be"
            " used as it is; give model.reinit when training"
        )
    labels = labels_of(config)
    channels = int(config.dataset.get("channels") or 3)
    model = load_model(config.model, labels, processes, channels=channels)
    report = model.load_report
    assert report is not None
    if report.new:
        raise CheckpointError(
            f"{report.source} ({report.kind}) has no head, so there is nothing to evaluate or"
            " predict with; train with model.weights"
        )
    try_model(model, config.model["name"])
    metadata = checkpoint_metadata(config, labels, model)
    state = {
        "model": model.state_dict(),
        "ema": None,
        "step": 0,
        "best": {},
        "config": {**config.to_dict(), "model": metadata["model"]},
        "metadata": metadata,
    }
    save_checkpoint(Path(given.output), state)
    return report


def labels_of(config: Config) -> LabelContract:
    """The classes of ``config.dataset``; from its keys alone where its files are not at hand.

    Raises:
        DataError: When they are not, and the keys do not tell the classes.
    """
    try:
        return DATASETS.build(config.dataset, split="val").labels
    except (ConfigError, DataError):
        given = config.dataset
        if "num_classes" not in given:
            raise
        names = (
            "num_classes", "ignore_label", "label_map", "class_names", "palette", "multi_label"
        )  # fmt: skip
        return LabelContract(**{key: given[key] for key in names if key in given})


def import_weights(given: ImportConfig, config: Config) -> LoadReport:
    """Write weights of other code as a checkpoint; prints what became of them."""
    with processes("cpu") as here:
        report = import_checkpoint(given, config, here)
        logger.info("%s written, for evaluate, predict and model.weights", given.output)
        return report
