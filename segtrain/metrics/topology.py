"""Metrics of topology: connected parts, holes and centre lines."""

from __future__ import annotations

import importlib
import math

import numpy as np
from numpy.typing import NDArray

from segtrain.errors import ConfigError
from segtrain.metrics.base import METRICS, MaskMetric

Mask = NDArray[np.bool_]
_EIGHT = np.ones((3, 3), bool)  # neighbours in rows, columns and diagonals


def betti_numbers(mask: NDArray[np.generic]) -> tuple[int, int]:
    """Count the connected parts of a mask, and its holes.

    The parts are 8-connected. The holes are the 4-connected parts of the background that do not
    reach the border of the image.

    Args:
        mask: ``(H, W)``; nonzero pixels are the foreground.

    Returns:
        The Betti numbers b0 and b1.

    Example:
        >>> ring = np.ones((3, 3), bool)
        >>> ring[1, 1] = False
        >>> betti_numbers(ring)
        (1, 1)
        >>> betti_numbers(np.eye(3))  # diagonal neighbours are connected
        (1, 0)
    """
    label = importlib.import_module("scipy.ndimage").label
    foreground = np.pad(np.asarray(mask) != 0, 1)
    _, parts = label(foreground, structure=_EIGHT)
    _, background = label(~foreground)
    return int(parts), int(background) - 1


class _BettiError(MaskMetric):
    """The difference between a Betti number of the prediction and of the target; from 0."""

    larger_is_better = False
    is_share = False
    number: int

    def image_value(self, prediction: Mask, target: Mask) -> float:
        if not prediction.any() and not target.any():
            return math.nan
        return float(
            abs(betti_numbers(prediction)[self.number] - betti_numbers(target)[self.number])
        )


@METRICS.register("betti0_error")
class Betti0Error(_BettiError):
    """Difference between the numbers of connected parts of prediction and target."""

    number = 0


@METRICS.register("betti1_error")
class Betti1Error(_BettiError):
    """Difference between the numbers of holes of prediction and target."""

    number = 1


@METRICS.register("cldice")
class CenterlineDice(MaskMetric):
    """Dice of centre lines: how much of each mask's skeleton lies in the other mask.

    It is 0 if a class is in the prediction or in the target only.

    References:
        Shit et al., clDice: a Novel Topology-Preserving Loss Function for Tubular Structure
        Segmentation, CVPR 2021, eq. 1 and 2.
    """

    def __init__(self) -> None:
        try:
            self._skeletonize = importlib.import_module("skimage.morphology").skeletonize
        except ModuleNotFoundError as error:
            raise ConfigError(
                "metric 'cldice' needs scikit-image: pip install 'segtrain[metrics]'"
            ) from error

    def image_value(self, prediction: Mask, target: Mask) -> float:
        if not prediction.any() and not target.any():
            return math.nan
        if not prediction.any() or not target.any():
            return 0.0
        precision = float(target[self._skeletonize(prediction)].mean())
        recall = float(prediction[self._skeletonize(target)].mean())
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
