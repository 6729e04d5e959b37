"""Open the splits of a dataset in one or several processes."""

from __future__ import annotations

from collections.abc import Sequence

from segtrain.data import DATASETS, SegmentationDataset
from segtrain.data.datasets.list_store import files_are_checked
from segtrain.data.datasets.lists import LISTS
from segtrain.engine.distributed import Processes
from segtrain.errors import DataError, SegtrainError
from segtrain.schema.sections import Config, Spec
from segtrain.terminal import logger


def dataset_title(config: Config) -> str:
    """The name of a run's dataset: its title, or the name of its class."""
    return str(config.dataset.get("title") or config.dataset["name"])


def download_once(spec: Spec, processes: Processes) -> None:
    """Download the dataset in the main process, before the others open it."""
    problem = None
    if spec.get("download") and processes.world_size > 1 and processes.is_main:
        try:
            DATASETS.build(spec, split="train")
        except SegtrainError as error:
            problem = error
    if processes.any(int(problem is not None)):
        raise problem or DataError("the main process could not download the data, see its message")


def build_splits(
    spec: Spec, names: Sequence[str], processes: Processes
) -> list[SegmentationDataset]:
    """Build splits; of a list, the first process of a machine looks for the files, for the others.

    Raises:
        SegtrainError: When a split cannot be opened, in every process.
    """

    def build() -> list[SegmentationDataset]:
        return [DATASETS.build(spec, split=name) for name in names]

    if processes.world_size == 1 or spec["name"] != LISTS:
        return build()
    built, problem = None, None
    if processes.is_first_on_node:
        try:
            built = build()
        except SegtrainError as error:
            problem = error
    problems = [found for found in processes.gather(problem) if found is not None]
    if problems:
        raise problem or problems[0]
    if built is None:
        with files_are_checked():
            built = build()
    return built


def log_fold(spec: Spec) -> None:
    """Log which fold is the validation split, if `dataset.folds` is set."""
    if spec.get("folds") is None:
        return
    unused = "; dataset.val is not used" if spec.get("val") else ""
    logger.info(
        "dataset.folds=%d: the val split is fold %d of the training files, and the train split is"
        " the other folds%s",
        spec["folds"],
        spec["fold"],
        unused,
    )
