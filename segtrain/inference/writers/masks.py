"""Layers of class ids, of their colours, of overlays and of original label values."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segtrain.data import LabelContract, as_rgb
from segtrain.data.io.writer import LARGEST_ID, LARGEST_PALETTE_ID
from segtrain.data.labels.inverse import RawValues
from segtrain.errors import CheckpointError
from segtrain.inference.writers.base import Band
from segtrain.inference.writers.layers import Layer
from segtrain.inference.writers.pictures import Format

SMALL_IGNORED = 255  # the value of ignored pixels if the ignore label itself does not fit


class MaskFormat:
    """The values of class ids in files.

    All files of a kind have the same format: ids have 8 bits if every id fits, else 16. Colours are
    palette files, which also hold the ids, or RGB files if there are more than 256 ids. For
    multi-label data there is a folder per class with files of 0 and 1, and colours are RGB.

    Args:
        labels: The label contract of the model.
        with_ignored: Whether pixels may have the ignore label. A label that does not fit into a
            file is written as 255 if no class has this id, else as 65535.

    Attributes:
        ignored: The value of ignored pixels.
        largest: The largest value in a file.
        dtype: The type of the values.
        folders: For multi-label data a folder per class, else none.

    Raises:
        CheckpointError: When there are more ids than a file can hold.
    """

    def __init__(self, labels: LabelContract, *, with_ignored: bool) -> None:
        num_values = 2 if labels.multi_label else labels.num_ids
        self.ignored = fitting_ignored(labels.ignore_label, num_values)
        is_taken = with_ignored and self.ignored < num_values  # every value of a file is a class
        if num_values > LARGEST_ID + 1 or is_taken:
            raise CheckpointError(
                f"the model has {num_values} classes, but a PNG file holds ids from 0 to"
                f" {LARGEST_ID}; call segtrain.Predictor in Python, which returns arrays"
            )
        self.labels = labels
        self.largest = max(num_values - 1, self.ignored if with_ignored else 0)
        self.dtype = "uint8" if self.largest <= LARGEST_PALETTE_ID else "uint16"
        self.has_palette = not labels.multi_label and self.largest <= LARGEST_PALETTE_ID
        self.folders = _class_folders(labels) if labels.multi_label else ()

    def values(self, band: Band) -> NDArray[Any]:
        """Return the values of ids in files, of any shape."""
        values = np.where(band.ids == self.labels.ignore_label, self.ignored, band.ids)
        return values.astype(self.dtype)

    def layers(
        self, folder: str, form: Format, draw: Callable[[Band], NDArray[Any]]
    ) -> list[Layer]:
        """Return the layer that `draw` draws, or one per class for multi-label data."""
        if not self.folders:
            return [Layer(folder, form, draw)]
        return [
            Layer(f"{folder}/{name}", form, lambda band, index=index: draw(band)[..., index])  # type: ignore[misc]
            for index, name in enumerate(self.folders)
        ]


def id_layers(masks: MaskFormat) -> list[Layer]:
    """Return the layers of class ids, in ``ids``."""
    return masks.layers("ids", Format(masks.dtype, nodata=masks.ignored), masks.values)


def color_layer(masks: MaskFormat) -> Layer:
    """Return the layer of coloured masks, in ``color``."""
    if masks.has_palette:
        form = Format("uint8", palette=masks.labels.colours, nodata=masks.ignored)
        return Layer("color", form, masks.values)
    return Layer("color", Format("uint8", 3), lambda band: masks.labels.colorize(band.ids))


def overlay_layer(labels: LabelContract, opacity: float) -> Layer:
    """Return the layer of colours over the image, in ``overlay``."""

    def draw(band: Band) -> NDArray[Any]:
        if band.pixels is None:
            raise ValueError("an overlay needs the pixels of the image")
        return draw_overlay(labels, band.pixels, band.ids, opacity)

    return Layer("overlay", Format("uint8", 3), draw)


def draw_overlay(
    labels: LabelContract, image: NDArray[Any], ids: NDArray[Any], opacity: float
) -> NDArray[np.uint8]:
    """Draw class ids over an image; pixels with the ignore label stay as they are.

    Shape:
        - image: ``(H, W, channels)``, uint8, or float32 from 0 to 1.
        - output: ``(H, W, 3)``, uint8.
    """
    ignored = ids == labels.ignore_label
    ignored = ignored.any(axis=2) if labels.multi_label else ignored
    share = np.where(ignored, 0, opacity).astype(np.float32)[..., None]
    mixed = (1 - share) * as_rgb(image) + share * labels.colorize(ids)
    drawn: NDArray[np.uint8] = mixed.round().astype(np.uint8)
    return drawn


def label_layers(masks: MaskFormat, raws: RawValues) -> list[Layer]:
    """Return the layers of original label values, in ``labels``; colours are RGB files."""
    labels = masks.labels
    ignored = raws.ignored
    if not raws.are_colours:
        ignored = fitting_ignored(ignored, max(raws.values) + 1)
    table = np.array([*raws.values, ignored], np.int64)
    last = len(raws.values)

    def values(band: Band) -> NDArray[Any]:
        return table[np.where(band.ids == labels.ignore_label, last, band.ids)]

    def colours(band: Band) -> NDArray[Any]:
        packed = values(band)
        return np.stack([packed >> 16, packed >> 8 & 255, packed & 255], -1).astype(np.uint8)

    if raws.are_colours:
        return masks.layers("labels", Format("uint8", 3), colours)
    dtype = "uint8" if table.max() <= LARGEST_PALETTE_ID else "uint16"
    return masks.layers("labels", Format(dtype, nodata=ignored), values)


def fitting_ignored(label: int, num_values: int) -> int:
    """Return the value of ignored pixels in a file: the ignore label, if a file can hold it."""
    if 0 <= label <= LARGEST_ID:
        return label
    return SMALL_IGNORED if num_values <= SMALL_IGNORED else LARGEST_ID


def _class_folders(labels: LabelContract) -> tuple[str, ...]:
    """A folder per class: its name in letters that every system allows, with its id if needed."""
    plain = [re.sub(r"[^\w\- ]", "_", name) for name in labels.names]
    times = Counter(name.casefold() for name in plain)  # some systems do not tell a from A
    return tuple(
        f"{name}_{index}" if times[name.casefold()] > 1 else name
        for index, name in enumerate(plain)
    )
