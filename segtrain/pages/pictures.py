"""Pictures of a page: images, targets in the colours of their classes, and overlays."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segtrain.data import LabelContract

LONGEST = 360  # pixels of the longer side of a picture
_OPACITY = 0.45
_STRIPE = 4  # width in pixels of the stripes on ignored pixels
_GREYS = ((120, 120, 120), (165, 165, 165))
Pixels = NDArray[np.uint8]


def draw_target(target: NDArray[Any], labels: LabelContract) -> Pixels:
    """Draw class ids in the colours of their classes, with grey stripes on ignored pixels.

    In multi-label data, a pixel of several classes has the mean of their colours, and a pixel of no
    class is black.
    """
    if labels.multi_label:
        present = (target == 1).astype(np.float32)
        colours = np.array(labels.colours, dtype=np.float32)
        mean = (present @ colours) / np.maximum(present.sum(2, keepdims=True), 1)
        drawn = mean.astype(np.uint8)
        ignored = (target == labels.ignore_label).any(2)
    else:
        drawn, ignored = labels.colorize(target), target == labels.ignore_label
    rows, columns = np.indices(ignored.shape, sparse=True)
    stripes = np.array(_GREYS, dtype=np.uint8)[(rows + columns) // _STRIPE % 2]
    shown: Pixels = np.where(ignored[..., None], stripes, drawn)
    return shown


def draw_overlay(image: Pixels, target: NDArray[Any], labels: LabelContract) -> Pixels:
    """Draw a target over its image; binary background and pixels of no class stay clear.

    Shape:
        - image: ``(H, W, 3)``, uint8. target: ``(H, W)``, or ``(H, W, C)`` for multi-label data.
    """
    if labels.multi_label:
        opaque = (target != 0).any(2)
    else:
        opaque = target != 0 if labels.is_binary else np.ones(target.shape, dtype=bool)
    weight = _OPACITY * opaque[..., None]
    mixed = (1 - weight) * image + weight * draw_target(target, labels)
    shown: Pixels = mixed.round().astype(np.uint8)
    return shown


def data_uri(pixels: Pixels, kind: str = "JPEG") -> str:
    """Return pixels as a data URI, which embeds them in a page."""
    stream = io.BytesIO()
    options = {"quality": 82} if kind == "JPEG" else {"optimize": True}
    Image.fromarray(pixels).save(stream, format=kind, **options)
    text = base64.b64encode(stream.getvalue()).decode("ascii")
    return f"data:image/{kind.lower()};base64,{text}"


def shrunk(
    image: Pixels, target: NDArray[Any], longest: int = LONGEST
) -> tuple[Pixels, NDArray[Any]]:
    """Return an image and its target, reduced so that the longer side has at most `longest` pixels.

    Shape:
        - image: ``(H, W, 3)``. target: ``(H, W)``, or ``(H, W, C)`` for multi-label data.
    """
    height, width = image.shape[:2]
    factor = longest / max(height, width)
    if factor >= 1:
        return image, target
    size = max(round(height * factor), 1), max(round(width * factor), 1)
    small = Image.fromarray(image).resize(size[::-1], Image.Resampling.BOX)
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64)
        for new, old in zip(size, (height, width), strict=True)
    )
    return np.array(small), target[rows][:, columns]
