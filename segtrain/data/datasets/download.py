"""Datasets that torchvision downloads; what it unpacks is then read like any other files."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Literal, get_args

from segtrain.errors import DataError, one_line

Source = Literal["voc2012", "sbd", "oxford_pet"]
SOURCES: tuple[str, ...] = get_args(Source)


def download_source(source: str, root: Path) -> None:
    """Let torchvision put a dataset below `root`, in the layout that its own classes have.

    Raises:
        DataError: When it cannot.
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
            f" ({reason}); fetch it by hand, or try again"
        ) from error
