"""Build the model of a run, with the weights that it starts from."""

from __future__ import annotations

from rich.table import Table
from torch import Tensor

from segtrain.assembly.trial import check_channels, try_model
from segtrain.data import LabelContract, SegmentationDataset
from segtrain.engine.checkpoint import State
from segtrain.engine.distributed import Processes
from segtrain.models import MODELS, Segmentor
from segtrain.models.weights import LoadReport, WeightsError
from segtrain.models.weights.sources import HUB, IMAGENET
from segtrain.schema.sections import Config, Spec
from segtrain.terminal import cell, console, logger


def starting_model(
    config: Config, train: SegmentationDataset, state: State, processes: Processes
) -> tuple[Segmentor, dict[str, Tensor]]:
    """Build the model that a run starts from; also return its outputs for one trial image.

    Args:
        config: The configuration of the run.
        train: The training split.
        state: The checkpoint to resume, empty for a new run.
        processes: The processes of the run.

    Raises:
        SegtrainError: When the model cannot be built, its weights do not fit, it fails on a trial
            image, or the batches are too small for its batch norms.
    """
    channels = train.channels
    model = load_model(config.model, train.labels, processes, channels=channels, state=state)
    outputs = try_model(model, config.model["name"])
    crop_size = config.augmentation.crop_size
    if crop_size is not None and processes.world_size == 1:
        model.check_norms((config.trainer.batch_size, model.in_channels, *crop_size))
    return model, outputs


def load_model(
    spec: Spec,
    labels: LabelContract,
    processes: Processes,
    *,
    channels: int = 3,
    state: State | None = None,
) -> Segmentor:
    """Build the model that `spec` describes and load its weights, the same in every process.

    The main process prints a table of the weights: which were loaded, and which were not.

    Args:
        spec: The section ``model`` of the configuration.
        labels: The label contract of the training split.
        processes: The processes of the run.
        channels: Channels of the dataset's images, unless `spec` has `in_channels`.
        state: The checkpoint to resume. It holds the weights, so the weights that `spec` names are
            not loaded. None or empty: a new run.

    Raises:
        SegtrainError: When the model cannot be built, or its weights do not fit.
    """
    if state and spec.get("align_corners") is None:
        spec = {**spec, "align_corners": state["metadata"].get("align_corners")}
    default = MODELS.schema(spec["name"]).get("in_channels")
    if default is not None and spec.get("in_channels", default.default) == default.default:
        spec = {**spec, "in_channels": channels}
    weights = str(spec.get("weights"))
    if not state and processes.is_main and (weights == IMAGENET or weights.startswith(HUB)):
        logger.info("looking for model.weights=%s in the cache, then on the network", weights)
    try:
        model = MODELS.build(spec, num_classes=labels.num_classes, load=not state)
    except WeightsError as error:
        if processes.is_main:
            console.print(weights_table(error.report))
        raise
    check_channels(model, channels)
    if model.load_report is not None and processes.is_main:
        console.print(weights_table(model.load_report))
        _compare_classes(model.load_report, labels)
    return model


def _compare_classes(report: LoadReport, labels: LabelContract) -> None:
    """Warn when the head was trained for the same number of classes under other names."""
    has_head = not report.new and not report.reinitialised
    if has_head and report.class_names and report.class_names != labels.names:
        logger.warning(
            "%s was trained for the classes %s, the dataset has %s; add model.reinit=[head] unless"
            " they mean the same",
            report.source,
            ", ".join(report.class_names),
            ", ".join(labels.names),
        )


def weights_table(report: LoadReport) -> Table:
    """Return a table of the weights that were loaded, and of those that were not."""
    title = cell(report.title)
    table = Table("weights", "count", "modules", title=title, title_justify="left")
    table.columns[1].justify = "right"
    table.columns[2].overflow = "fold"  # a list that is cut off cannot be copied
    for row in report.rows():
        table.add_row(*map(cell, row))
    return table
