"""Colour jitter and normalisation in as few passes over the pixels as they need."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_HUES = 180  # of OpenCV's colour circle
_GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


class Jitter(NamedTuple):
    """The colours of one sample: factors, 1 leaves alone; `hue` is a part of the colour circle."""

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0


def draw_jitter(rng: np.random.Generator, strengths: Mapping[str, float]) -> Jitter:
    """Factors from ``max(0, 1 - strength)`` to ``1 + strength``, and a shift up to the hue's."""
    factors = {
        name: float(rng.uniform(max(0.0, 1 - strength), 1 + strength))
        for name, strength in strengths.items()
        if name != "hue" and strength
    }
    hue = strengths.get("hue", 0.0)
    return Jitter(**factors, hue=float(rng.uniform(-hue, hue)) if hue else 0.0)


def shift_colours(image: NDArray[np.uint8], jitter: Jitter) -> NDArray[np.uint8]:
    """Hue and saturation of an RGB image of bytes; the rest is :func:`brightness_line`'s."""
    cv2 = importlib.import_module("cv2")
    if jitter.hue:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        shift = round(jitter.hue * _HUES)
        table = ((np.arange(256) + shift) % _HUES).astype(np.uint8)
        hsv[..., 0] = cv2.LUT(np.ascontiguousarray(hsv[..., 0]), table)
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if jitter.saturation != 1:
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        image = cv2.addWeighted(image, jitter.saturation, grey, 1 - jitter.saturation, 0)
    return image


def brightness_line(image: NDArray[Any], jitter: Jitter) -> tuple[float, float]:
    """Factor and offset that give brightness first and contrast about the mean grey then.

    Example:
        >>> brightness_line(np.full((1, 1, 3), 100, np.uint8), Jitter(brightness=2.0, contrast=0.5))
        (1.0, 100.0)
    """
    cv2 = importlib.import_module("cv2")
    if jitter.contrast == 1:
        return jitter.brightness, 0.0
    channels = image.shape[2]
    means = np.array(cv2.mean(image)[:channels]) if channels <= 4 else image.mean((0, 1))
    mean = float(means @ _GREY) if len(means) == 3 else float(means.mean())
    return jitter.brightness * jitter.contrast, jitter.brightness * mean * (1 - jitter.contrast)


def normalize(
    image: NDArray[Any],
    mean: Sequence[float],
    std: Sequence[float],
    line: tuple[float, float] = (1.0, 0.0),
) -> Tensor:
    """An image as a tensor of zero mean and unit deviation.

    Args:
        image: The pixels.
        mean: Of each channel, for values from 0 to 1.
        std: Likewise.
        line: Factor and offset by which the pixels change first, within their range.

    Shape:
        - image: ``(H, W, C)``, uint8, or float32 from 0 to 1.
        - output: ``(C, H, W)``, float32.

    Example:
        >>> normalize(np.full((1, 1, 3), 255, np.uint8), (0.5,) * 3, (0.5,) * 3).flatten()
        tensor([1., 1., 1.])
    """
    height, width, channels = image.shape
    planes = np.empty((channels, height, width), dtype=np.float32)
    if image.dtype == np.uint8:
        cv2 = importlib.import_module("cv2")
        values = np.clip(np.arange(256) * line[0] + line[1], 0, 255) / 255
        for index, (middle, width_of) in enumerate(zip(mean, std, strict=True)):
            table = ((values - middle) / width_of).astype(np.float32)
            plane = cv2.extractChannel(image, index) if channels > 1 else image[..., 0].copy()
            # Indexing with a table is one pass, where subtracting and dividing are three.
            cv2.LUT(plane, table, planes[index])
        return torch.from_numpy(planes)
    for index, (middle, width_of) in enumerate(zip(mean, std, strict=True)):
        plane = image[..., index]
        if line != (1.0, 0.0):
            plane = np.clip(plane * np.float32(line[0]) + np.float32(line[1]), 0, 1)
        planes[index] = (plane - np.float32(middle)) / np.float32(width_of)
    return torch.from_numpy(planes)
