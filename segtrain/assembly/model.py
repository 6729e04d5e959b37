"""The model that a run starts with, and the weights that it starts from."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from segtrain.assembly.trial import check_channels
from segtrain.data import LabelContract
from segtrain.engine.checkpoint import State
from segtrain.engine.distributed import Processes
from segtrain.models import MODELS, Segmentor
from segtrain.models.weights import LoadReport, WeightsError
from segtrain.models.weights.sources import HUB, IMAGENET
from segtrain.schema.sections import Spec
from segtrain.terminal import console, logger


def build_model(
    spec: Spec,
    labels: LabelContract,
    state: State | None,
    processes: Processes,
    *,
    channels: int = 3,
) -> Segmentor:
    """The model that `spec` describes, with its weights; every process loads the same.

    A table on the main process says what became of the weights, whether they fit or not.

    Args:
        spec: The section ``model`` of the configuration.
        labels: Of the training split.
        state: The checkpoint that the run goes on from: it holds the weights, so those that
            `spec` names are not needed any more. None for a new run.
        processes: Who prints.
        channels: Of the images of the dataset; the model takes as many unless it says otherwise.

    Raises:
        SegtrainError: When the model cannot be built, or its weights do not fit.
    """
    if state is not None and spec.get("align_corners") is None:
        spec = {**spec, "align_corners": state["metadata"].get("align_corners")}
    default = MODELS.schema(spec["name"]).get("in_channels")
    if default is not None and spec.get("in_channels", default.default) == default.default:
        spec = {**spec, "in_channels": channels}
    weights = str(spec.get("weights"))
    if state is None and processes.is_main and (weights == IMAGENET or weights.startswith(HUB)):
        logger.info("looking for model.weights=%s in the cache, then on the network", weights)
    try:
        model = MODELS.build(spec, num_classes=labels.num_classes, load=state is None)
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
    """Warn of a head that was trained for classes of other names, as many as the dataset has."""
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
    """What became of the weights that a model starts from."""
    title = escape(report.title)
    table = Table("weights", "count", "modules", title=title, title_justify="left")
    table.columns[1].justify = "right"
    table.columns[2].overflow = "fold"  # a list to be copied is of no use in part
    for row in report.rows():
        table.add_row(*map(escape, row))
    return table
