"""Metrics of boundaries: overlap near them, and distances between them, in pixels.

The boundary of a mask is its pixels with one of the four neighbours outside the mask or the image.
If a class is in the prediction or in the target only, its overlap is 0 and its distance is the
diagonal of the image, the largest distance there is.
"""

from __future__ import annotations

import importlib
import math
from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from segtrain.errors import ConfigError
from segtrain.metrics.base import METRICS, MaskMetric
from segtrain.schema.arguments import check_not_negative, check_positive

Mask = NDArray[np.bool_]
Distances = NDArray[np.float64]


class _SurfaceMetric(MaskMetric):
    """A metric of two masks that are cut to the box around both; NaN if both are empty."""

    def image_value(self, prediction: Mask, target: Mask) -> float:
        diagonal = math.hypot(*target.shape)
        both = prediction | target
        if not both.any():
            return math.nan
        if not prediction.any() or not target.any():
            return 0.0 if self.larger_is_better else diagonal
        box = tuple(
            slice(int(side[0]), int(side[-1]) + 1)
            for side in (np.flatnonzero(both.any(1)), np.flatnonzero(both.any(0)))
        )
        return self.boxed_value(prediction[box], target[box], diagonal)

    @abstractmethod
    def boxed_value(self, prediction: Mask, target: Mask, diagonal: float) -> float:
        """Compute the value of two masks that are not empty."""


@METRICS.register("boundary_iou")
class BoundaryIoU(_SurfaceMetric):
    """IoU of the bands inside the masks that are near their boundaries.

    Args:
        width: Width of a band as a share of the diagonal of the image.

    References:
        Cheng et al., Boundary IoU: Improving Object-Centric Image Segmentation Evaluation, CVPR
        2021, with the published width of 2 %.
    """

    def __init__(self, *, width: float = 0.02) -> None:
        self.width = check_positive("width", width)

    def boxed_value(self, prediction: Mask, target: Mask, diagonal: float) -> float:
        pixels = max(round(self.width * diagonal), 1)
        one, two = (_band(mask, pixels) for mask in (prediction, target))
        return float((one & two).sum() / (one | two).sum())


@METRICS.register("boundary_f")
class BoundaryF(_SurfaceMetric):
    """F score of the boundary pixels that are near the other boundary.

    Args:
        tolerance: Largest distance as a share of the diagonal of the image, rounded up to pixels.

    References:
        Csurka et al., What is a good evaluation measure for semantic segmentation?, BMVC 2013;
        tolerance of Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object
        Segmentation, CVPR 2016.
    """

    def __init__(self, *, tolerance: float = 0.0075) -> None:
        self.tolerance = check_positive("tolerance", tolerance)

    def boxed_value(self, prediction: Mask, target: Mask, diagonal: float) -> float:
        limit = math.ceil(self.tolerance * diagonal)
        precision, recall = (
            float((side <= limit).mean()) for side in surface_distances(prediction, target)
        )
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@METRICS.register("nsd")
class NormalizedSurfaceDice(_SurfaceMetric):
    """Share of the pixels of both boundaries that are near the other boundary.

    Args:
        tolerance: Largest distance in pixels.

    References:
        Nikolov et al., Clinically Applicable Segmentation of Head and Neck Anatomy for
        Radiotherapy, JMIR 2021; here the share of boundary pixels.
    """

    def __init__(self, *, tolerance: float = 1.0) -> None:
        self.tolerance = check_not_negative("tolerance", tolerance)

    def boxed_value(self, prediction: Mask, target: Mask, diagonal: float) -> float:
        del diagonal
        return float(
            (np.concatenate(surface_distances(prediction, target)) <= self.tolerance).mean()
        )


class _Distance(_SurfaceMetric):
    larger_is_better = False
    is_share = False


@METRICS.register("hd95")
class HausdorffDistance(_Distance):
    """Percentile of the distances from each boundary to the other, the larger of the two.

    Args:
        percentile: From 0 to 100; 100 is the Hausdorff distance itself.
    """

    def __init__(self, *, percentile: float = 95.0) -> None:
        if not 0 <= percentile <= 100:
            raise ConfigError(f"percentile must be from 0 to 100, got {percentile}")
        self.percentile = percentile

    def boxed_value(self, prediction: Mask, target: Mask, diagonal: float) -> float:
        del diagonal
        sides = surface_distances(prediction, target)
        return max(float(np.percentile(side, self.percentile)) for side in sides)


@METRICS.register("assd")
class AverageSurfaceDistance(_Distance):
    """Mean distance from the pixels of both boundaries to the other boundary."""

    def boxed_value(self, prediction: Mask, target: Mask, diagonal: float) -> float:
        del diagonal
        return float(np.concatenate(surface_distances(prediction, target)).mean())


def surface_distances(one: Mask, two: Mask) -> tuple[Distances, Distances]:
    """The distance of each boundary pixel of `one` to the boundary of `two`, and the reverse."""
    tree = importlib.import_module("scipy.spatial").KDTree
    points = [np.argwhere(_border(mask)) for mask in (one, two)]
    # A search among the border pixels is twice as fast as a distance transform of all pixels.
    return tree(points[1]).query(points[0])[0], tree(points[0]).query(points[1])[0]


def _border(mask: Mask) -> Mask:
    """The pixels of `mask` with one of the four neighbours outside it or outside the image."""
    padded = np.pad(mask, 1)
    inside: Mask = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inside


def _band(mask: Mask, pixels: int) -> Mask:
    """The pixels of `mask` within `pixels` rows or columns of its outside or of the image's."""
    cv2 = importlib.import_module("cv2")
    padded = np.pad(mask.astype(np.uint8), 1)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=pixels)[1:-1, 1:-1]
    band: Mask = mask & (eroded == 0)
    return band
