"""What a dataset is: indexed samples under one label contract."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segtrain.data.images import read_image, read_mask
from segtrain.data.labels import LabelContract
from segtrain.errors import ConfigError, DataError
from segtrain.registry import Registry

SPLITS = ("train", "val")


class Sample(NamedTuple):
    """One image with its target.

    Shape:
        - image: ``(H, W, 3)``, uint8, RGB.
        - target: ``(H, W)``, int64 class ids or `ignore_label`.
    """

    image: NDArray[np.uint8]
    target: NDArray[np.int64]
    name: str


class SegmentationDataset(ABC):
    """Samples by index, and the contract that their targets keep.

    A subclass calls ``super().__init__(labels)`` and gives ``__len__`` and ``__getitem__``.
    """

    def __init__(self, labels: LabelContract) -> None:
        self.labels = labels

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.labels.num_classes

    @property
    def ignore_label(self) -> int:
        """The value of target pixels without a class."""
        return self.labels.ignore_label

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class."""
        return self.labels.names

    @property
    def palette(self) -> tuple[tuple[int, ...], ...]:
        """One RGB colour per class."""
        return self.labels.colours

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """The sample at `index`, the same at every call."""


class FileDataset(SegmentationDataset):
    """Images and masks in files.

    Args:
        labels: The contract of the masks.
        pairs: Image file and mask file of each sample.
        names: A name for each sample; the stem of the image file by default.
    """

    def __init__(
        self,
        labels: LabelContract,
        pairs: Sequence[tuple[Path, Path]],
        names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(labels)
        self.pairs = [(Path(image), Path(mask)) for image, mask in pairs]
        self.names = [image.stem for image, _ in self.pairs] if names is None else list(names)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        image_file, mask_file = self.pairs[index]
        image, raw = read_image(image_file), read_mask(mask_file)
        problem = explain_shapes(image.shape[:2], raw.shape, image_file, mask_file)
        if problem is not None:
            raise DataError(problem)
        return Sample(image, self.labels.to_ids(raw, str(mask_file)), self.names[index])


def explain_shapes(
    image_shape: Sequence[int], mask_shape: Sequence[int], image_file: Path, mask_file: Path
) -> str | None:
    """One sentence when an image and its mask differ in size, else None."""
    (height, width), (mask_height, mask_width) = image_shape, mask_shape
    if (height, width) == (mask_height, mask_width):
        return None
    turned = (height, width) == (mask_width, mask_height)
    cause = "turn the mask by 90 degrees" if turned else "resize or replace one of them"
    return (
        f"{mask_file}: the mask is {mask_height} x {mask_width} (height x width), but its image "
        f"{image_file} is {height} x {width}; {cause}"
    )


def check_split(split: str) -> str:
    """`split`, when it is one.

    Raises:
        ConfigError: When it is not.
    """
    if split not in SPLITS:
        raise ConfigError(f"split must be {' or '.join(map(repr, SPLITS))}, got {split!r}")
    return split


DATASETS: Registry[SegmentationDataset] = Registry("dataset")
