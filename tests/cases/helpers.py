"""Folders of awkward files, tried as a user does: by words of a command line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segtrain.assembly.check import check_config
from segtrain.cli.compose import compose_config
from segtrain.data import DATASETS, FileDataset, check_report, scan_dataset
from segtrain.errors import SegtrainError

_OVERRIDE = re.compile(r"'dataset\.[^']+'|dataset\.\w+=(?:\[[^\]]*\]|[^\s,;]+)")


def write_images(root: Path, masks: Sequence[Any], ending: str = "png") -> Path:
    """Write an image beside each mask; `masks` are arrays, or images of Pillow."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for index, mask in enumerate(masks):
        picture = mask if isinstance(mask, Image.Image) else Image.fromarray(np.asarray(mask))
        rng = np.random.default_rng(index)
        pixels = rng.integers(0, 256, (picture.height, picture.width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"images/{index:03d}.png")
        picture.save(root / f"masks/{index:03d}.{ending}")
    return root


def open_folder(root: Path, *words: str, split: str = "train") -> FileDataset:
    """Open a folder with ``images`` and ``masks`` by the words of a command line."""
    given = [
        *("dataset=folder", f"dataset.root={root}", "dataset.train.images=images"),
        *("dataset.train.masks=masks", "dataset.val_share=0.2", *words),
    ]
    config = check_config(compose_config(given))
    spec = {key: value for key, value in config.dataset.items() if key != "val_share"}
    dataset = DATASETS.build(spec, split=split)
    assert isinstance(dataset, FileDataset)
    return dataset


def problem(root: Path, *words: str) -> str | None:
    """The message that training would end with; None: it would start."""
    try:
        check_report(scan_dataset(open_folder(root, *words)))
    except SegtrainError as error:
        return str(error)
    return None


def advised(message: str | None, number: int = -1) -> list[str]:
    """The words to paste, as a shell would split them."""
    assert message is not None
    return [shlex.split(word)[0] for word in _OVERRIDE.findall(message)][number:]


def targets(root: Path, *words: str) -> list[np.ndarray]:
    """The targets that training would see."""
    dataset = open_folder(root, *words)
    check_report(scan_dataset(dataset))
    return [dataset[index].target for index in range(len(dataset))]
