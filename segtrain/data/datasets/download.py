"""Download datasets with torchvision; the unpacked files are then read like any others."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Literal, get_args

from segtrain.errors import DataError, one_line

Source = Literal["voc2012", "sbd", "oxford_pet"]
SOURCES: tuple[str, ...] = get_args(Source)


def download_source(source: str, root: Path) -> None:
    """Download a dataset to `root`, in the folder layout of torchvision.

    Raises:
        DataError: When the download fails.
    """
    datasets = importlib.import_module("torchvision.datasets")
    where = str(root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        if source == "voc2012":
            datasets.VOCSegmentation(where, year="2012", image_set="trainval", download=True)
        elif source == "sbd":
            datasets.SBDataset(where, image_set="train", mode="segmentation", download=True)
        else:
            datasets.OxfordIIITPet(where, target_types="segmentation", download=True)
    except (OSError, RuntimeError, ImportError) as error:
        reason = one_line(error)
        raise DataError(
            f"dataset.source={source}: torchvision could not download it to dataset.root={root}"
            f" ({reason}); download it by hand, or try again"
        ) from error
