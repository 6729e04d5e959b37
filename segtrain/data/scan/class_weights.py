"""Class weights from pixel counts: four published formulas, on one scale.

Every method computes one number per class id from the pixels of each class in each image. The
numbers are scaled so that the classes that occur have the mean weight 1, as in a loss without
weights; a class that does not occur gets the weight 1. So no weight is above the number of classes.
A class with few pixels can leave weights near 0 for the others, except with :func:`inverse_log`.

In multi-label data the pixels of a class are those with the value 1, and an image counts with its
whole area.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segtrain.errors import ConfigError
from segtrain.schema.sections import AUTO
from segtrain.schema.values import did_you_mean

Weights = NDArray[np.float64]
Pixels = NDArray[np.int64]
Method = Callable[[Pixels, Pixels], Weights]

AUTO_METHOD = "inverse_log"
"""The method ``auto``: a weight is at most 35.5 times as large as another."""
_ENET = 1.02
_BETA = 0.999


def class_weights(
    method: str, image_pixels: Pixels, areas: Pixels | None = None
) -> NDArray[np.float64]:
    """Return one weight per class, with the mean 1 over the classes that occur.

    Args:
        method: A key of :data:`METHODS`, or ``auto``, which is :data:`AUTO_METHOD`.
        image_pixels: Pixels of each class in each image, ``(N, C)``.
        areas: Valid pixels of each image, ``(N,)``. None: every pixel has one class, so they are
            the sum over the classes.

    Returns:
        ``(C,)``, float64, finite and above 0; 1 for a class without a pixel.

    Raises:
        ConfigError: When the method does not exist.

    Example:
        >>> pixels = np.array([[60, 40], [100, 0]])
        >>> class_weights("inverse_frequency", pixels)  # 1 / 0.8 and 1 / 0.2, divided by their mean
        array([0.4, 1.6])
    """
    name = AUTO_METHOD if method == AUTO else method
    if name not in METHODS:
        raise ConfigError(
            f"class_weights: unknown method {method!r}{did_you_mean(method, [AUTO, *METHODS])}"
        )
    image_pixels = np.asarray(image_pixels, dtype=np.int64)
    areas = image_pixels.sum(1) if areas is None else np.asarray(areas, dtype=np.int64)
    present = image_pixels.any(0)
    weights = np.ones(image_pixels.shape[1])
    if present.any():
        found = METHODS[name](image_pixels[:, present], areas)
        weights[present] = found / found.mean()
    return weights


def pixel_share(image_pixels: Pixels, areas: Pixels | None = None) -> NDArray[np.float64]:
    """Return the share of each class in all valid pixels, ``(C,)``; 0 without valid pixels.

    Args:
        image_pixels: Pixels of each class in each image, ``(N, C)``.
        areas: As in :func:`class_weights`.
    """
    whole = int(image_pixels.sum() if areas is None else areas.sum())
    share: NDArray[np.float64] = image_pixels.sum(0) / max(whole, 1)
    return share


def inverse_frequency(image_pixels: Pixels, areas: Pixels) -> Weights:
    r""":math:`1 / p_c`, with the share :math:`p_c` of the class in all pixels.

    In a sum over pixels all classes then have the same total weight, however rare they are. The
    range is unbounded: the weight of a class with one pixel in a million is a million times that of
    a class that fills the rest.

    Args:
        image_pixels: ``(N, C)``, no class without a pixel.
        areas: ``(N,)``.
    """
    return 1 / pixel_share(image_pixels, areas)


def median_frequency(image_pixels: Pixels, areas: Pixels) -> Weights:
    r""":math:`m / f_c`, where :math:`f_c` is the share of the class in the images that hold it.

    :math:`m` is the median of :math:`f_c` over the classes. A class that is small where it occurs
    gets a large weight; one that is rare, but large where it occurs, does not. The range is
    unbounded.

    Args:
        image_pixels: ``(N, C)``, no class without a pixel.
        areas: ``(N,)``.

    References:
        Eigen, Fergus: Predicting Depth, Surface Normals and Semantic Labels with a Common
        Multi-Scale Convolutional Architecture. ICCV 2015, section 6.3.
    """
    around = ((image_pixels > 0) * areas[:, None]).sum(0)
    frequency = image_pixels.sum(0) / around
    weights: Weights = np.median(frequency) / frequency
    return weights


def inverse_log(image_pixels: Pixels, areas: Pixels) -> Weights:
    r""":math:`1 / \ln(1.02 + p_c)`, with the share :math:`p_c` of the class in all pixels.

    Before scaling, the values run from 1.42 (a class of every pixel) to 50.5 (of almost no pixel),
    so the ratio of two weights is at most 35.5.

    Args:
        image_pixels: ``(N, C)``, no class without a pixel.
        areas: ``(N,)``.

    References:
        Paszke, Chaurasia, Kim, Culurciello: ENet: A Deep Neural Network Architecture for Real-Time
        Semantic Segmentation. arXiv:1606.02147, section 5.2.
    """
    return 1 / np.log(_ENET + pixel_share(image_pixels, areas))


def effective_number(image_pixels: Pixels, areas: Pixels, beta: float = _BETA) -> Weights:
    r""":math:`(1 - \beta) / (1 - \beta^{n_c})`, with the number :math:`n_c` of images of the class.

    Images are counted instead of pixels, because the pixels of one object are nearly the same, and
    because with so many pixels all weights would be equal. The effective number of a class is at
    most :math:`1 / (1 - \beta)`, 1000 by default, so the ratio of two weights is at most that. If
    nearly every image holds every class, as in street scenes, the weights are nearly equal.

    Args:
        image_pixels: ``(N, C)``, no class without a pixel.
        areas: Not used.
        beta: From 0, where all weights are equal, to just below 1, where they are proportional to
            :math:`1 / n_c`.

    References:
        Cui, Jia, Lin, Song, Belongie: Class-Balanced Loss Based on Effective Number of Samples.
        CVPR 2019, section 4.
    """
    del areas
    images = (image_pixels > 0).sum(0)
    weights: Weights = (1 - beta) / (1 - beta**images)
    return weights


def describe_weights(
    method: str,
    names: Sequence[str],
    weights: Sequence[float],
    share: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Return class weights as plain values, the content of a file for ``class_weights=FILE``.

    Args:
        method: The name of the formula.
        names: The names of the classes.
        weights: The weight of each class.
        share: The share of each class in all pixels, for readers of the file.

    Example:
        >>> describe_weights("inverse_log", ["road", "car"], [0.5, 1.5])
        {'method': 'inverse_log', 'class_weights': {'road': 0.5, 'car': 1.5}}
    """
    found: dict[str, Any] = {
        "method": method,
        "class_weights": dict(zip(names, map(float, weights), strict=True)),
    }
    if share is not None:
        found["pixel_share"] = dict(zip(names, map(float, share), strict=True))
    return found


METHODS: dict[str, Method] = {
    "inverse_frequency": inverse_frequency,
    "median_frequency": median_frequency,
    "inverse_log": inverse_log,
    "effective_number": effective_number,
}
