"""Samples as small pictures: the image, its mask in colours, and an overlay of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segtrain.data import LabelContract, Sample, as_rgb
from segtrain.pages.pictures import Pixels, draw_overlay, draw_target, shrunk


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
    image, target = shrunk(as_rgb(sample.image), sample.target)
    names = tuple(
        name
        for class_id, name in enumerate(labels.names)
        if (
            sample.target[..., class_id] == 1 if labels.multi_label else sample.target == class_id
        ).any()
    )
    mask = draw_target(target, labels)
    return Example(sample.name, image, mask, draw_overlay(image, target, labels), names)
