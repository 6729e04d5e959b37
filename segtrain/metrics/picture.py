"""The confusion matrix as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_MAX_WITH_TEXT = 24  # classes; more cells than that are too small for numbers
_CELL, _SMALL_CELL = 44, 8  # pixels
_DARK = np.array([8, 48, 107])


def confusion_picture(confusion: Tensor, class_names: Sequence[str]) -> Tensor:
    """Draw a confusion matrix whose rows are divided by their sums.

    Rows are the target classes and columns the predicted classes. A number is the percentage of the
    pixels of a target class; beyond 24 classes there are no numbers and names.

    Args:
        confusion: ``(C, C)``, int64.
        class_names: One name per class.

    Returns:
        The picture ``(3, H, W)``, uint8.
    """
    counts = confusion.double().numpy()
    sums = counts.sum(1, keepdims=True)
    shares = np.divide(counts, sums, out=np.zeros_like(counts), where=sums > 0)
    has_text = len(counts) <= _MAX_WITH_TEXT
    cell = _CELL if has_text else _SMALL_CELL
    colours = 255 - (shares[..., None] * (255 - _DARK))
    cells = np.repeat(np.repeat(colours, cell, axis=0), cell, axis=1).astype(np.uint8)
    if not has_text:
        return torch.from_numpy(np.ascontiguousarray(cells.transpose(2, 0, 1)))
    return _with_text(cells, shares, sums[:, 0] > 0, [str(name)[:18] for name in class_names])


def _with_text(
    cells: np.ndarray, shares: np.ndarray, has_pixels: np.ndarray, names: Sequence[str]
) -> Tensor:
    """Put the names of the classes around the cells, and percentages into them."""
    font = ImageFont.load_default(12)
    margin = 12 + int(max(font.getlength(name) for name in names))
    size = len(cells) + margin
    picture = Image.new("RGB", (size, size), "white")
    picture.paste(Image.fromarray(cells), (margin, margin))
    draw = ImageDraw.Draw(picture)
    for index, name in enumerate(names):
        middle = margin + index * _CELL + _CELL // 2
        draw.text((margin - 6, middle), name, "black", font, anchor="rm")
        label = Image.new("RGB", (margin, 16), "white")
        ImageDraw.Draw(label).text((4, 8), name, "black", font, anchor="lm")
        picture.paste(label.rotate(90, expand=True), (middle - 8, 0))
    for row, column in np.ndindex(shares.shape):
        if has_pixels[row]:
            share = shares[row, column]
            x, y = (margin + place * _CELL + _CELL // 2 for place in (column, row))
            colour = "white" if share > 0.5 else "black"
            draw.text((x, y), f"{100 * share:.0f}", colour, font, anchor="mm")
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
