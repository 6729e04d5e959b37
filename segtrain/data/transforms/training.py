"""From a training sample to augmented tensors.

Scale, crop, rotation, flips and colours are implemented here
(:mod:`segtrain.data.transforms.crop`, :mod:`segtrain.data.transforms.colour`). Any transform of
albumentations can follow, by name (:mod:`segtrain.data.transforms.albumentations`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from segtrain.data.io.missing import fill_missing
from segtrain.data.labels.contract import LabelContract
from segtrain.data.transforms.albumentations import AlbumentationsTransforms
from segtrain.data.transforms.colour import Jitter, draw_jitter, shift_colours
from segtrain.data.transforms.crop import Crop, cut, draw_span
from segtrain.data.transforms.tensors import RGB, Normalization, channels_first, planes
from segtrain.errors import ConfigError
from segtrain.schema.sections import AugmentationConfig

_WANTED_SHARE = 0.00075  # half of the share that an image needs to be drawn for a class
_MAX_CROPS = 11  # one, and up to ten more, as in mmsegmentation


class TrainTransform:
    """Random scale, crop, rotation, flips and colours; a pure function of the sample and the seed.

    The result is not normalised: bytes travel to the device, where `normalization` is applied.

    Args:
        labels: The contract of the targets. Pixels without a source get its `ignore_label`.
        augmentation: What to do to a sample. Its `mix` concerns batches and is not applied here.
        channels: Number of channels of the images.

    Attributes:
        normalization: What the images are normalised with.

    Raises:
        ConfigError: When a setting does not fit `channels`, or a transform of albumentations does
            not exist, does not take a parameter, changes the size or invents labels.
    """

    def __init__(
        self, labels: LabelContract, augmentation: AugmentationConfig, channels: int = RGB
    ) -> None:
        self.normalization = Normalization(augmentation.mean, augmentation.std, channels)
        _check_colours(augmentation, channels)
        self.labels, self.augmentation = labels, augmentation
        # Bytes where they hold every id; OpenCV and albumentations carry no negative label.
        self._carrier = np.dtype(np.uint8 if labels.dtype == np.uint8 else np.uint16)
        self._void = labels.ignore_label if self._carrier == np.uint8 else 65535
        self._swaps = _swaps(labels)
        self._albumentations: AlbumentationsTransforms | None = None
        if augmentation.transforms:
            self._albumentations = AlbumentationsTransforms(
                augmentation.transforms,
                self._void,
                channels,
                augmentation.crop_size,
                has_pairs=bool(labels.flip_pairs),
            )

    def __call__(
        self, image: NDArray[Any], target: NDArray[Any], seed: int, wanted: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return an augmented sample as tensors.

        Args:
            image: The image.
            target: Its target.
            seed: Determines the augmentation.
            wanted: A class of which the crop should hold some pixels; up to ten more crops are
                drawn until it does. None: any crop will do.

        Shape:
            - image: ``(H, W, C)``, uint8, or float32 from 0 to 1. target: ``(H, W)``, or
              ``(H, W, K)`` for multi-label data, integers.
            - output: ``(C, h, w)``, the image's type, and ``(h, w)`` or ``(K, h, w)``, the target's
              type, with ``(h, w) = crop_size``.
        """
        rng = np.random.default_rng(seed)
        image = fill_missing(image, self.normalization.mean)
        carried = self._carried(target)
        crop, mask = self._draw_crop(rng, carried, wanted)
        pixels = cut(image, crop, self._padding(image.dtype))
        # Both flips together are half a turn, after which a left arm is still a left arm.
        if crop.mirrored != crop.upside_down and self._swaps is not None:
            mask = self._swapped(mask)
        pixels = shift_colours(pixels, self._draw_jitter(rng))
        if self._albumentations is not None:
            pixels, mask = self._albumentations(pixels, mask, rng)
        return planes(pixels), self._restored(mask, target.dtype)

    def _draw_crop(
        self, rng: np.random.Generator, mask: NDArray[Any], wanted: int | None = None
    ) -> tuple[Crop, NDArray[Any]]:
        """Return a random crop, and the mask cropped by it."""
        height, width = mask.shape[:2]
        given = self.augmentation
        size = given.crop_size or (height, width)
        factor = float(rng.uniform(*given.scale))
        angle = float(rng.uniform(-given.rotate, given.rotate)) if given.rotate else 0.0
        mirrored = bool(rng.random() < given.flip)
        upside_down = bool(rng.random() < given.vertical_flip)
        needed = 0 if wanted is None else self._needed_pixels(mask, wanted)
        for _ in range(_MAX_CROPS if given.cat_max_ratio < 1 or needed else 1):
            # Only the position is drawn again, so that no scale becomes rarer than another.
            rows, columns = (
                draw_span(rng, source, wanted, factor)
                for source, wanted in zip((height, width), size, strict=True)
            )
            crop = Crop(rows, columns, size, angle, mirrored, upside_down)
            found = cut(mask, crop, self._void, nearest=True)
            varied = given.cat_max_ratio == 1 or self._largest_share(found) <= given.cat_max_ratio
            if varied and (not needed or self._pixels_of(found, wanted) >= needed):
                break
        return crop, found

    def _needed_pixels(self, mask: NDArray[Any], wanted: int | None) -> int:
        """The pixels of a class that a crop should hold: half of what makes it drawn for it."""
        there = self._pixels_of(mask, wanted)
        enough = _WANTED_SHARE * mask.shape[0] * mask.shape[1]
        return min(there, max(1, int(min(enough, there / 2))))

    def _pixels_of(self, mask: NDArray[Any], wanted: int | None) -> int:
        if mask.ndim == 3:
            return int(np.count_nonzero(mask[..., wanted] == 1))
        return int(np.count_nonzero(mask == wanted))

    def _draw_jitter(self, rng: np.random.Generator) -> Jitter:
        given = self.augmentation
        return draw_jitter(rng, given.brightness, given.contrast, given.saturation, given.hue)

    def _largest_share(self, mask: NDArray[Any]) -> float:
        """Return the share of the largest class in the valid pixels of a crop."""
        if mask.ndim == 3:  # a pixel without a class is void in every channel
            return float((mask == 1).sum((0, 1)).max() / max((mask[..., 0] != self._void).sum(), 1))
        valid = mask[mask != self._void]
        return float(np.bincount(valid).max() / valid.size) if valid.size else 1.0

    def _padding(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        mean = np.array(self.normalization.mean)
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
    """Return the class that each class becomes in a mirrored image; None: all stay the same."""
    if not labels.flip_pairs:
        return None
    swaps = np.arange(labels.num_ids)
    for one, two in labels.flip_pairs:
        swaps[[int(one), int(two)]] = int(two), int(one)
    return swaps


def _check_colours(augmentation: AugmentationConfig, channels: int) -> None:
    for name in ("saturation", "hue"):
        value = getattr(augmentation, name)
        if value and channels != RGB:
            raise ConfigError(
                f"augmentation.{name}={value} needs images of three channels, and these have"
                f" {channels}; set it to 0"
            )
