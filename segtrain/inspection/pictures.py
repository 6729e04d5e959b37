"""Samples as small pictures: the image, its mask in colours, and an overlay of both."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segtrain.data import LabelContract, Sample, as_rgb

_MOST_PIXELS = 360  # the longer side of a picture
_OPACITY = 0.45
_STRIPE = 4  # width in pixels of the stripes on ignored pixels
_GREYS = ((120, 120, 120), (165, 165, 165))
Pixels = NDArray[np.uint8]


class Example(NamedTuple):
    """A sample as three pictures.

    Shape:
        - image, mask, overlay: ``(h, w, 3)``, uint8.
    """

    name: str
    image: Pixels
    mask: Pixels
    overlay: Pixels
    class_names: tuple[str, ...]


def choose_examples(
    image_pixels: NDArray[np.int64], count: int, without: Sequence[int] = ()
) -> list[int]:
    """Choose samples that together show every class, as far as `count` samples can.

    The next sample is the one with the most classes that are not shown yet; rare classes count
    more. Among equal samples it is the one farthest in the list from those already chosen, because
    neighbours may be frames of one video. Once all classes are shown, the choice starts over with
    the remaining samples.

    Args:
        image_pixels: Pixels of each class in each image, ``(N, C)``.
        count: Number of samples to choose.
        without: Indices of samples to leave out.

    Returns:
        Indices in the order in which they were chosen.

    Example:
        >>> choose_examples(np.array([[9, 0, 0], [5, 4, 0], [0, 0, 9]]), 2)
        [1, 2]
    """
    present = image_pixels > 0
    left = [index for index in range(len(present)) if index not in set(without)]
    worth = 1 / np.maximum(present.sum(0), 1)
    chosen: list[int] = []
    shown = np.zeros(present.shape[1], dtype=bool)
    while left and len(chosen) < count:
        gains = (present[left] & ~shown) @ worth
        if not gains.any() and shown.any():
            shown[:] = False
            continue
        candidates = np.flatnonzero(gains >= 0.999 * gains.max())
        best = left.pop(max(candidates, key=lambda place: _distance(left[place], chosen)))
        chosen.append(best)
        shown |= present[best]
    return chosen


def _distance(index: int, chosen: Sequence[int]) -> int:
    return min((abs(index - other) for other in chosen), default=0)


def draw_example(sample: Sample, labels: LabelContract) -> Example:
    """Draw a sample at a size that fits the page."""
    image, target = _shrunk(as_rgb(sample.image), sample.target)
    names = tuple(
        name
        for class_id, name in enumerate(labels.names)
        if (
            sample.target[..., class_id] == 1 if labels.multi_label else sample.target == class_id
        ).any()
    )
    mask = draw_target(target, labels)
    return Example(sample.name, image, mask, draw_overlay(image, target, labels), names)


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


def _shrunk(image: Pixels, target: NDArray[Any]) -> tuple[Pixels, NDArray[Any]]:
    height, width = image.shape[:2]
    factor = _MOST_PIXELS / max(height, width)
    if factor >= 1:
        return image, target
    size = max(round(height * factor), 1), max(round(width * factor), 1)
    small = Image.fromarray(image).resize(size[::-1], Image.Resampling.BOX)
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64)
        for new, old in zip(size, (height, width), strict=True)
    )
    return np.array(small), target[rows][:, columns]
