"""The command ``segtrain import``: weights of other code become a checkpoint of segtrain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segtrain.assembly.metadata import checkpoint_metadata
from segtrain.assembly.model import load_model
from segtrain.assembly.trial import try_model
from segtrain.data import DATASETS, LabelContract
from segtrain.engine.checkpoint import save_checkpoint
from segtrain.engine.distributed import processes
from segtrain.errors import CheckpointError, ConfigError, DataError
from segtrain.models.weights import LoadReport, WeightFile, recognise
from segtrain.models.weights.files import read_weights
from segtrain.models.weights.sources import IMAGENET, find_file
from segtrain.schema.sections import Config, ImportConfig
from segtrain.terminal import logger

_DATASETS_WITHOUT_CLASSES = ("folder", "list", "coco", "webdataset")  # the user names the classes
_LABEL_KEYS = (
    "num_classes", "ignore_label", "label_map", "class_names", "palette", "multi_label"
)  # fmt: skip


def complete(raw: dict[str, Any], weights: str, *, model_given: bool) -> dict[str, Any]:
    """Return the composed configuration with what the file of weights determines filled in.

    Args:
        raw: The composed configuration, nested plain values.
        weights: The file.
        model_given: Whether the user named a model.

    Raises:
        ConfigError: If the model is missing, or ``model.weights`` is set.
        CheckpointError: If the file cannot be read, or holds a backbone only.
    """
    if (raw.get("model") or {}).get("weights") is not None:
        raise ConfigError("model.weights is not set here: the file is weights=...")
    file = _open(weights)
    if not model_given:
        fits = "" if file.fits is None else f"; the file fits model={file.fits}"
        raise ConfigError(f"model=NAME is needed, the model of the weights{fits}")
    dataset = dict(raw.get("dataset") or {})
    if dataset.get("name") in _DATASETS_WITHOUT_CLASSES and file.num_classes is not None:
        dataset.setdefault("num_classes", file.num_classes)
        if file.class_names and dataset.get("class_names") is None:
            dataset["class_names"] = list(file.class_names)
    return {**raw, "dataset": dataset, "model": {**raw["model"], "weights": weights}}


def import_weights(given: ImportConfig, config: Config) -> LoadReport:
    """Write the weights that `config` names as a checkpoint, and print which ones were loaded.

    Args:
        given: The keys of the command itself: where to write.
        config: The model, the classes and the normalization. Its training keys are stored in the
            checkpoint as they are.

    Raises:
        SegtrainError: If the weights do not fit, or do not cover the whole model.
    """
    if config.model["reinit"]:
        raise ConfigError(
            "model.reinit leaves part of the model untrained, but an imported checkpoint must be"
            " usable as it is; set model.reinit when training instead"
        )
    labels = _labels(config)
    channels = int(config.dataset.get("channels") or 3)
    with processes("cpu") as here:
        model = load_model(config.model, labels, here, channels=channels)
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
    logger.info("%s written, for evaluate, predict and model.weights", given.output)
    return report


def _open(weights: str) -> WeightFile:
    """Return the file of weights, if it has a head.

    A backbone is recognised here only in HRNet files; for other files, building the model tells.
    """
    if weights == IMAGENET:
        raise ConfigError(
            "weights=imagenet names a backbone, not a whole model; train with"
            " model.weights=imagenet instead"
        )
    file = recognise(read_weights(find_file(weights, "weights")), weights)
    if file.fits is not None and not file.has_heads:
        raise CheckpointError(
            f"{weights} ({file.kind}) is a backbone without a head, so there is nothing to evaluate"
            " or predict with; train with model.weights"
        )
    return file


def _labels(config: Config) -> LabelContract:
    """Return the classes of ``config.dataset``, from its keys alone if its files are not there.

    Raises:
        DataError: If the files are not there and the keys do not name the classes.
    """
    try:
        return DATASETS.build(config.dataset, split="val").labels
    except (ConfigError, DataError):
        keys = config.dataset
        if "num_classes" not in keys:
            raise
        return LabelContract(**{key: keys[key] for key in _LABEL_KEYS if key in keys})
