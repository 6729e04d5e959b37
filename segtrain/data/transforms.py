"""Images and targets as tensors, with and without augmentation.

The only file that knows albumentations, which is no longer maintained. Four of its habits are
guarded here: padding paints class 0 into masks unless told otherwise, unknown arguments are only
warned about, importing it asks the network for a newer version, and `Compose.set_random_seed`
gives every transform the same stream, so that scale, crop and flip come out correlated.
"""

from __future__ import annotations

import importlib
import os
import random
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from segtrain.data.labels import LabelContract
from segtrain.errors import ConfigError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class EvalTransform:
    """An image as the model wants it, without augmentation.

    Args:
        mean: Mean of each colour channel, for images from 0 to 1.
        std: Standard deviation of each colour channel.
        labels: The contract of the targets; unused pixels keep its `ignore_label`.
        size: Height and width that images are resized to, or None. Targets keep their size:
            predictions are compared with the labels as they were drawn.

    Raises:
        ConfigError: When a value is out of range.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        labels: LabelContract,
        size: tuple[int, int] | None = None,
    ) -> None:
        _check_statistics(mean, std)
        _check_size("size", size)
        self.mean, self.std, self.labels, self.size = tuple(mean), tuple(std), labels, size

    def __call__(
        self, image: NDArray[np.uint8], target: NDArray[np.int64], seed: int = 0
    ) -> tuple[Tensor, Tensor]:
        """The tensors of one sample; `seed` is there for the sake of :class:`TrainTransform`.

        Shape:
            - image: ``(H, W, 3)``, uint8. target: ``(H, W)``, int64.
            - output: ``(3, h, w)``, float32, and ``(H, W)``, int64.
        """
        del seed
        if self.size is not None and image.shape[:2] != self.size:
            resized = Image.fromarray(image).resize(self.size[::-1], Image.Resampling.BILINEAR)
            image = np.array(resized)
        return normalize(image, self.mean, self.std), torch.from_numpy(target.astype(np.int64))


class TrainTransform:
    """Random scale, crop, flip and colours; a pure function of the sample and the seed.

    Args:
        scale: Range of the factor that image and target are resized by.
        crop_size: Height and width of the result, padded where the sample is smaller; None keeps
            the size that the image came with.
        flip: Probability of a horizontal flip.
        brightness: Largest relative change of the brightness; 0 leaves it alone.
        contrast: Likewise for the contrast.
        saturation: Likewise for the saturation.
        hue: Largest shift of the hue, as a part of the colour circle (0 to 0.5).
        mean: Mean of each colour channel, for images from 0 to 1; also the colour of the padding.
        std: Standard deviation of each colour channel.
        labels: The contract of the targets; the padding gets its `ignore_label`.

    Raises:
        ConfigError: When a value is out of range.
    """

    def __init__(
        self,
        *,
        labels: LabelContract,
        scale: tuple[float, float] = (0.5, 2.0),
        crop_size: tuple[int, int] | None = None,
        flip: float = 0.5,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        _check_statistics(mean, std)
        _check_size("crop_size", crop_size)
        _check_range("flip", flip, 0, 1)
        _check_range("hue", hue, 0, 0.5)
        if not 0 < scale[0] <= scale[1]:
            raise ConfigError(
                f"augmentation.scale must be two positive numbers in rising order, got {scale}"
            )
        self.colours = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
        for name, value in self.colours.items():
            _check_range(name, value, 0, float("inf"))
        self.colours["hue"] = hue
        self.labels, self.mean, self.std = labels, tuple(mean), tuple(std)
        self.scale, self.crop_size, self.flip = scale, crop_size, flip
        # albumentations works on bytes where it can, and cannot carry a negative ignore label.
        self._carrier = np.uint8 if labels.num_classes < 256 else np.uint16
        self._void = int(np.iinfo(self._carrier).max)
        self._pipelines: dict[tuple[int, int], Any] = {}

    def __call__(
        self, image: NDArray[np.uint8], target: NDArray[np.int64], seed: int
    ) -> tuple[Tensor, Tensor]:
        """The tensors of one augmented sample.

        Shape:
            - image: ``(H, W, 3)``, uint8. target: ``(H, W)``, int64.
            - output: ``(3, h, w)``, float32, and ``(h, w)``, int64, with ``(h, w) = crop_size``.
        """
        pipeline = self._pipeline(self.crop_size or (image.shape[0], image.shape[1]))
        # One pair of streams for the whole chain: set_random_seed would start each one anew.
        pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
        ignored = target == self.labels.ignore_label
        mask = np.where(ignored, self._void, target).astype(self._carrier)
        result = pipeline(image=image, mask=mask)
        ids = result["mask"].astype(np.int64)
        ids[ids == self._void] = self.labels.ignore_label
        return normalize(result["image"], self.mean, self.std), torch.from_numpy(ids)

    def _pipeline(self, size: tuple[int, int]) -> Any:
        if size not in self._pipelines:
            self._pipelines[size] = self._build(size)
        return self._pipelines[size]

    def _build(self, size: tuple[int, int]) -> Any:
        """The chain for one output size.

        Raises:
            ConfigError: When albumentations does not take an argument.
        """
        library = _albumentations()
        height, width = size
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # its way to refuse an argument
            try:
                steps = self._resizing(library, height, width)
                if self.flip > 0:
                    steps.append(library.HorizontalFlip(p=self.flip))
                if any(self.colours.values()):
                    steps.append(library.ColorJitter(**self.colours, p=1.0))
                return library.Compose(steps)
            except (UserWarning, ValueError) as error:
                raise ConfigError(f"augmentation: albumentations refuses it ({error})") from None

    def _resizing(self, library: Any, height: int, width: int) -> list[Any]:
        cv2 = importlib.import_module("cv2")
        low, high = self.scale
        steps = []
        if (low, high) != (1.0, 1.0):
            steps.append(
                library.RandomScale(
                    (low - 1, high - 1),
                    interpolation=cv2.INTER_LINEAR,
                    # Plain INTER_NEAREST rounds down, half a pixel off from what bilinear does.
                    mask_interpolation=cv2.INTER_NEAREST_EXACT,
                    p=1.0,
                )
            )
        padding = library.PadIfNeeded(
            min_height=height,
            min_width=width,
            position="random",
            border_mode=cv2.BORDER_CONSTANT,
            fill=tuple(round(255 * value) for value in self.mean),
            fill_mask=self._void,
        )
        return [*steps, padding, library.RandomCrop(height, width)]


def normalize(image: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """An image as a tensor of zero mean and unit deviation.

    Shape:
        - image: ``(H, W, 3)``, uint8.
        - output: ``(3, H, W)``, float32.

    Example:
        >>> normalize(np.full((1, 1, 3), 255, np.uint8), (0.5,) * 3, (0.5,) * 3).flatten()
        tensor([1., 1., 1.])
    """
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    shape = (3, 1, 1)
    offset = 255 * torch.tensor(mean, dtype=torch.float32).view(shape)
    scale = 255 * torch.tensor(std, dtype=torch.float32).view(shape)
    return pixels.float().sub_(offset).div_(scale)


def limit_opencv_threads() -> None:
    """Keep OpenCV to the calling thread; for worker processes, which share the cores already."""
    importlib.import_module("cv2").setNumThreads(0)


def _albumentations() -> Any:
    # Without this variable the import asks PyPI for a newer version; offline, that takes seconds.
    # The import itself takes seconds too, hence not at the top of the file.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    return importlib.import_module("albumentations")


def _check_statistics(mean: Sequence[float], std: Sequence[float]) -> None:
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != 3:
            raise ConfigError(
                f"augmentation.{name} must have one number per colour channel (3), got "
                f"{list(values)}"
            )
    if min(std) <= 0:
        raise ConfigError(f"augmentation.std must be positive, got {list(std)}")


def _check_size(name: str, size: Sequence[int] | None) -> None:
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ConfigError(
            f"augmentation.{name} must be a positive height and width, got {list(size)}"
        )


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        limit = f"from {low} to {high}" if high < float("inf") else f"at least {low}"
        raise ConfigError(f"augmentation.{name} must be {limit}, got {value}")
