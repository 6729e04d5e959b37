"""Mean and standard deviation of the channels, of one image and of all images of a split."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAX_CHANNELS = 4  # of OpenCV's meanStdDev


def image_mean_std(image: NDArray[Any]) -> NDArray[np.float64]:
    """Return mean and standard deviation of each channel, for pixels from 0 to 1.

    Pixels without data, which are NaN, are left out. The third row is the share of the others.

    Shape:
        - image: ``(H, W, C)``, uint8, or floats from 0 to 1.
        - output: ``(3, C)``.

    Example:
        >>> image_mean_std(np.array([[[0], [255]]], np.uint8)).tolist()
        [[0.5], [0.5], [1.0]]
    """
    channels = image.shape[2]
    if image.dtype.kind == "f" and np.isnan(image).any():
        known = image[~np.isnan(image).any(2)].astype(np.float64)
        share = np.full(channels, len(known) / (image.shape[0] * image.shape[1]))
        if not len(known):
            return np.zeros((3, channels))
        return np.stack([known.mean(0), known.std(0), share])
    if channels <= _MAX_CHANNELS:  # several times as fast as NumPy, and without a copy
        cv2 = importlib.import_module("cv2")
        found = np.stack([part[:channels, 0] for part in cv2.meanStdDev(image)])
    else:
        pixels = image.reshape(-1, channels)
        found = np.stack([pixels.mean(0, dtype=np.float64), pixels.std(0, dtype=np.float64)])
    found = found / 255 if image.dtype == np.uint8 else found
    return np.concatenate([found, np.ones((1, channels))])


def total_mean_std(
    mean_std: NDArray[np.float64], sizes: NDArray[np.int64]
) -> tuple[list[float], list[float]] | None:
    """Return mean and standard deviation over all pixels that have data, of all images.

    Returns:
        Two lists with a number per channel. None when an image that counts was not decoded.

    Shape:
        - mean_std: ``(N, 3, C)``, from :func:`image_mean_std`; NaN where an image was not decoded.
        - sizes: ``(N, 2)``, height and width; 0 for an image that does not count.

    Example:
        >>> black_and_white = np.array([[[0.0], [0.0], [1.0]], [[1.0], [0.0], [1.0]]])
        >>> total_mean_std(black_and_white, np.array([[2, 2], [2, 2]]))
        ([0.5], [0.5])
    """
    known = sizes.all(1)
    if not known.any() or not np.isfinite(mean_std[known]).all():
        return None
    means, deviations, shares = mean_std[known].transpose(1, 0, 2)
    weights = sizes[known].prod(1)[:, None] * shares
    if not weights.any():
        return None
    mean = np.average(means, axis=0, weights=weights)
    # Deviations from the total mean are summed; a difference of squares would lose digits.
    spread = np.average(deviations**2 + (means - mean) ** 2, axis=0, weights=weights)
    return mean.tolist(), np.sqrt(spread).tolist()
