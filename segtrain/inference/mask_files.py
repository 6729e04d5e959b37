"""Write predictions as files of class ids and of colours."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segtrain.data import LabelContract, write_mask, write_palette_mask
from segtrain.data.io.writer import LARGEST_ID, LARGEST_PALETTE_ID
from segtrain.errors import CheckpointError

SMALL_IGNORED = 255  # the value of ignored pixels if the ignore label itself does not fit


class MaskFiles:
    """Writes the class ids of images to ``ids/`` and their colours to ``color/``.

    All files of a kind have the same format: ids have 8 bits if every id fits, else 16. Colours are
    palette files, which also hold the ids, or RGB files if there are more than 256 ids. For
    multi-label data ``ids/`` has a folder per class with files of 0 and 1, and colours are RGB.

    Args:
        output: The folder to write to.
        labels: The label contract of the model.
        with_ignored: Whether pixels may have the ignore label. A label that does not fit into a
            file is written as 255 if no class has this id, else as 65535.

    Raises:
        CheckpointError: When there are more ids than a file can hold; nothing is written then.
    """

    def __init__(self, output: Path, labels: LabelContract, *, with_ignored: bool) -> None:
        num_values = 2 if labels.multi_label else labels.num_ids
        self.ignored = labels.ignore_label
        if not 0 <= self.ignored <= LARGEST_ID:
            self.ignored = SMALL_IGNORED if num_values <= SMALL_IGNORED else LARGEST_ID
        is_taken = with_ignored and self.ignored < num_values  # every value of a file is a class
        if num_values > LARGEST_ID + 1 or is_taken:
            raise CheckpointError(
                f"the model has {num_values} classes, but a PNG file holds ids from 0 to"
                f" {LARGEST_ID}; call segtrain.Predictor in Python, which returns arrays"
            )
        self.largest = max(num_values - 1, self.ignored if with_ignored else 0)
        self.output, self.labels, self.with_ignored = output, labels, with_ignored
        self.has_palette = not labels.multi_label and self.largest <= LARGEST_PALETTE_ID
        self.folders = _class_folders(labels) if labels.multi_label else ()

    def create_folders(self) -> None:
        """Create the folders to write to."""
        for folder in (".", *self.folders):
            (self.output / "ids" / folder).mkdir(parents=True, exist_ok=True)
        (self.output / "color").mkdir(parents=True, exist_ok=True)

    def write(self, stem: str, ids: NDArray[Any]) -> None:
        """Write the files of one image.

        Args:
            stem: The name of the files, without ending.
            ids: The prediction, as :class:`~segtrain.inference.Predictor` returns it.
        """
        name, labels, values = f"{stem}.png", self.labels, ids
        if self.with_ignored:
            values = np.where(ids == labels.ignore_label, self.ignored, ids)
        if labels.multi_label:
            for index, folder in enumerate(self.folders):
                path = self.output / "ids" / folder / name
                write_mask(path, values[..., index], largest=self.largest)
        else:
            write_mask(self.output / "ids" / name, values, largest=self.largest)
        if self.has_palette:
            write_palette_mask(self.output / "color" / name, values, labels.colours)
        else:
            Image.fromarray(labels.colorize(ids)).save(self.output / "color" / name)


def _class_folders(labels: LabelContract) -> tuple[str, ...]:
    """A folder per class: its name in letters that every system allows, with its id if needed."""
    plain = [re.sub(r"[^\w\- ]", "_", name) for name in labels.names]
    times = Counter(name.casefold() for name in plain)  # some systems do not tell a from A
    return tuple(
        f"{name}_{index}" if times[name.casefold()] > 1 else name
        for index, name in enumerate(plain)
    )
