"""Images and targets as tensors, with and without augmentation.

Scale, crop, rotation, flips and colours are our own (:mod:`segtrain.data.transforms.crop`,
:mod:`segtrain.data.transforms.colour`); any transform of albumentations may follow by name
(:mod:`segtrain.data.transforms.albumentations`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from segtrain.data.labels.contract import LabelContract
from segtrain.data.transforms.albumentations import NamedTransforms
from segtrain.data.transforms.colour import draw_jitter, shift_colours
from segtrain.data.transforms.crop import Crop, cut, draw_span
from segtrain.data.transforms.tensors import RGB, Statistics, channels_first, normalize
from segtrain.errors import ConfigError

_CROPS_TRIED = 10  # as in DeepLab and mmsegmentation


class TrainTransform:
    """Random scale, crop, rotation, flips and colours; a pure function of the sample and the seed.

    Args:
        labels: The contract of the targets; what has no source gets its `ignore_label`.
        scale: Range of the factor that image and target are resized by.
        crop_size: Height and width of the result, padded where the sample is smaller; None keeps
            the size that the image came with.
        cat_max_ratio: Draw another crop, up to ten times, when a class fills more than this share
            of its valid pixels; 1 takes any.
        flip: Probability that left and right change places; classes of ``labels.flip_pairs`` do
            too.
        vertical_flip: Probability that top and bottom change places, likewise.
        rotate: Largest angle of a rotation about the middle of the crop, in degrees.
        brightness: Largest relative change of the brightness; 0 leaves it alone.
        contrast: Likewise for the contrast.
        saturation: Likewise for the saturation, of images of three channels.
        hue: Largest shift of the hue, as a part of the colour circle (0 to 0.5), likewise.
        transforms: Transforms of albumentations that follow, in this order: each a mapping with
            ``name`` and parameters.
        mean: Mean of each channel, for images from 0 to 1; also the colour of the padding.
        std: Standard deviation of each channel.
        channels: Of the images.

    Raises:
        ConfigError: When a value is out of range, or a transform does not exist, does not take a
            parameter, changes the size or makes labels of its own.
    """

    def __init__(  # noqa: PLR0913  one per key of the configuration
        self,
        *,
        labels: LabelContract,
        scale: tuple[float, float] = (0.5, 2.0),
        crop_size: tuple[int, int] | None = None,
        cat_max_ratio: float = 1.0,
        flip: float = 0.5,
        vertical_flip: float = 0.0,
        rotate: float = 0.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        transforms: Sequence[Mapping[str, Any]] = (),
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        channels: int = RGB,
    ) -> None:
        statistics = Statistics(mean, std, channels)
        self.mean, self.std = statistics.mean, statistics.std
        check_size("crop_size", crop_size)
        for name, value, high in (
            ("flip", flip, 1.0), ("vertical_flip", vertical_flip, 1.0), ("hue", hue, 0.5),
            ("rotate", rotate, 180.0), ("brightness", brightness, np.inf),
            ("contrast", contrast, np.inf), ("saturation", saturation, np.inf),
        ):  # fmt: skip
            _check_range(name, value, high)
        if not 0 < scale[0] <= scale[1]:
            raise ConfigError(
                f"augmentation.scale must be two positive numbers in rising order, got {scale}"
            )
        if not 0 < cat_max_ratio <= 1:
            raise ConfigError(
                f"augmentation.cat_max_ratio must be above 0 and at most 1, got {cat_max_ratio}"
            )
        self.strengths = {
            "brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue
        }  # fmt: skip
        _check_colours(self.strengths, channels)
        self.labels, self.scale, self.crop_size = labels, scale, crop_size
        self.cat_max_ratio = cat_max_ratio
        self.flips, self.rotate = (flip, vertical_flip), rotate
        # Bytes where they hold every id; OpenCV and albumentations carry no negative label.
        self._carrier = np.dtype(np.uint8 if labels.dtype == np.uint8 else np.uint16)
        self._void = labels.ignore_label if self._carrier == np.uint8 else 65535
        self._swaps = _swaps(labels)
        self.named = (
            NamedTransforms(
                transforms, self._void, channels, crop_size, has_pairs=bool(labels.flip_pairs)
            )
            if transforms
            else None
        )

    def __call__(
        self, image: NDArray[Any], target: NDArray[Any], seed: int
    ) -> tuple[Tensor, Tensor]:
        """The tensors of one augmented sample.

        Shape:
            - image: ``(H, W, C)``, uint8, or float32 from 0 to 1. target: ``(H, W)``, or
              ``(H, W, K)`` for multi-label data, integers.
            - output: ``(C, h, w)``, float32, and ``(h, w)`` or ``(K, h, w)``, the target's type,
              with ``(h, w) = crop_size``.
        """
        rng = np.random.default_rng(seed)
        carried = self._carried(target)
        crop, mask = self._draw_crop(rng, carried)
        pixels = cut(image, crop, self._padding(image.dtype))
        # Both flips together are half a turn, after which the left arm is the left arm still.
        if crop.mirrored != crop.upside_down and self._swaps is not None:
            mask = self._swapped(mask)
        pixels = shift_colours(pixels, draw_jitter(rng, self.strengths))
        if self.named is not None:
            pixels, mask = self.named(pixels, mask, rng)
        return normalize(pixels, self.mean, self.std), self._restored(mask, target.dtype)

    def _draw_crop(self, rng: np.random.Generator, mask: NDArray[Any]) -> tuple[Crop, NDArray[Any]]:
        """A crop, and what it makes of the mask."""
        height, width = mask.shape[:2]
        size = self.crop_size or (height, width)
        factor = float(rng.uniform(*self.scale))
        angle = float(rng.uniform(-self.rotate, self.rotate)) if self.rotate else 0.0
        mirrored, upside_down = (bool(rng.random() < chance) for chance in self.flips)
        for _ in range(_CROPS_TRIED if self.cat_max_ratio < 1 else 1):
            # The place alone is drawn again, so that no scale becomes rarer than another.
            rows, columns = (
                draw_span(rng, source, wanted, factor)
                for source, wanted in zip((height, width), size, strict=True)
            )
            crop = Crop(rows, columns, size, angle, mirrored, upside_down)
            found = cut(mask, crop, self._void, nearest=True)
            if self.cat_max_ratio == 1 or self._largest_share(found) <= self.cat_max_ratio:
                break
        return crop, found

    def _largest_share(self, mask: NDArray[Any]) -> float:
        """How much of the valid pixels of a crop the largest class has."""
        if mask.ndim == 3:  # a pixel without a class is void in all channels
            return float((mask == 1).sum((0, 1)).max() / max((mask[..., 0] != self._void).sum(), 1))
        valid = mask[mask != self._void]
        return float(np.bincount(valid).max() / valid.size) if valid.size else 1.0

    def _padding(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        mean = np.array(self.mean)
        return np.rint(255 * mean) if dtype == np.uint8 else mean.astype(np.float32)

    def _carried(self, target: NDArray[Any]) -> NDArray[Any]:
        if target.dtype == self._carrier and self._void == self.labels.ignore_label:
            return target
        ignored = target == self.labels.ignore_label
        return np.where(ignored, self._void, target).astype(self._carrier)

    def _restored(self, mask: NDArray[Any], dtype: np.dtype[Any]) -> Tensor:
        if mask.dtype != dtype:
            ids = mask.astype(dtype)
            ids[mask == self._void] = self.labels.ignore_label
            mask = ids
        return channels_first(mask)

    def _swapped(self, mask: NDArray[Any]) -> NDArray[Any]:
        assert self._swaps is not None
        if mask.ndim == 3:
            return mask[..., self._swaps]
        table = np.arange(max(self._void + 1, 256)).astype(self._carrier)
        table[: len(self._swaps)] = self._swaps
        return np.take(table, mask)


def _swaps(labels: LabelContract) -> NDArray[np.int64] | None:
    """Which class each becomes in the mirror; None where all stay what they are."""
    if not labels.flip_pairs:
        return None
    swaps = np.arange(labels.num_ids)
    for one, two in labels.flip_pairs:
        swaps[[int(one), int(two)]] = int(two), int(one)
    return swaps


def _check_colours(strengths: Mapping[str, float], channels: int) -> None:
    for name in ("saturation", "hue"):
        if strengths[name] and channels != RGB:
            raise ConfigError(
                f"augmentation.{name}={strengths[name]} is for images of three channels, and these"
                f" have {channels}; set it to 0"
            )


def check_size(name: str, size: Sequence[int] | None) -> None:
    """Refuse a size that is not a positive height and width."""
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ConfigError(
            f"augmentation.{name} must be a positive height and width, got {list(size)}"
        )


def _check_range(name: str, value: float, high: float) -> None:
    if not 0 <= value <= high:
        limit = f"from 0 to {high:g}" if high < float("inf") else "at least 0"
        raise ConfigError(f"augmentation.{name} must be {limit}, got {value}")
