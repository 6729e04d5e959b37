"""Colour jitter in as few passes over the pixels as possible."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_HUES = {np.dtype(np.uint8): 180, np.dtype(np.float32): 360}  # of the colour circle in OpenCV
_GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


class Jitter(NamedTuple):
    """The change of the colours of one sample.

    Attributes:
        brightness: Factor; 1 changes nothing.
        contrast: Likewise.
        saturation: Likewise.
        hue: Shift, as a fraction of the colour circle; 0 changes nothing.
    """

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0


def draw_jitter(
    rng: np.random.Generator, brightness: float, contrast: float, saturation: float, hue: float
) -> Jitter:
    """Draw factors from ``max(0, 1 - strength)`` to ``1 + strength``, and a shift of the hue.

    Nothing is drawn for a strength of 0.

    Args:
        rng: The source of randomness.
        brightness: Largest relative change.
        contrast: Likewise.
        saturation: Likewise.
        hue: Largest shift, in both directions.
    """
    return Jitter(
        _draw_factor(rng, brightness),
        _draw_factor(rng, contrast),
        _draw_factor(rng, saturation),
        float(rng.uniform(-hue, hue)) if hue else 0.0,
    )


def _draw_factor(rng: np.random.Generator, strength: float) -> float:
    return float(rng.uniform(max(0.0, 1 - strength), 1 + strength)) if strength else 1.0


def shift_colours(image: NDArray[Any], jitter: Jitter) -> NDArray[Any]:
    """Change the colours of an image: first the hue, then saturation, brightness and contrast.

    The last three are one affine map of the channels, so they take one pass, and values are clipped
    at black and white only once.

    Args:
        image: ``(H, W, C)``, uint8, or float32 from 0 to 1; three channels for saturation and hue.
        jitter: The changes.

    Example:
        >>> image = np.array([[[100, 100, 100], [200, 100, 100]]], np.uint8)
        >>> shift_colours(image, Jitter(brightness=2.0)).tolist()
        [[[200, 200, 200], [255, 200, 200]]]
        >>> shift_colours(image, Jitter(saturation=0.0)).tolist()
        [[[100, 100, 100], [130, 130, 130]]]
    """
    if jitter.hue:
        image = _shift_hue(image, jitter.hue)
    if (jitter.brightness, jitter.contrast, jitter.saturation) == (1, 1, 1):
        return image
    cv2 = importlib.import_module("cv2")
    gain = jitter.brightness * jitter.contrast
    offset = 0.0
    if jitter.contrast != 1:
        offset = jitter.brightness * (1 - jitter.contrast) * _mean_grey(image)
    is_bytes = image.dtype == np.uint8
    if jitter.saturation != 1:
        mixed = jitter.saturation * np.eye(3) + (1 - jitter.saturation) * _GREY
        line = np.column_stack([gain * mixed, np.full(3, offset)])
        changed: NDArray[Any] = cv2.transform(image, line)
    elif is_bytes:
        table = np.clip(np.rint(np.arange(256) * gain + offset), 0, 255).astype(np.uint8)
        changed = cv2.LUT(image, table).reshape(image.shape)
    else:
        changed = image * np.float32(gain) + np.float32(offset)
    return changed if is_bytes else np.clip(changed, 0, 1, out=changed)


def _shift_hue(image: NDArray[Any], fraction: float) -> NDArray[Any]:
    cv2 = importlib.import_module("cv2")
    hues = _HUES[image.dtype]
    hsv: NDArray[Any] = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    shift = fraction * hues
    if image.dtype == np.uint8:
        table = ((np.arange(256) + round(shift)) % hues).astype(np.uint8)
        hsv[..., 0] = cv2.LUT(cv2.extractChannel(hsv, 0), table)
    else:
        hsv[..., 0] = (hsv[..., 0] + np.float32(shift)) % hues
    turned: NDArray[Any] = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return turned


def _mean_grey(image: NDArray[Any]) -> float:
    cv2 = importlib.import_module("cv2")
    channels = image.shape[2]
    if channels > 4:  # cv2.mean takes at most four
        return float(image.mean())
    means = np.array(cv2.mean(image)[:channels])
    return float(means @ _GREY) if channels == 3 else float(means.mean())
