"""Base classes of datasets: indexed samples under one label contract."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from segtrain.data.io.reader import Reader
from segtrain.data.labels.contract import LabelContract
from segtrain.data.labels.mask_facts import MaskFacts
from segtrain.errors import ConfigError, DataError, SizeError
from segtrain.schema.registry import Registry

SPLITS = ("train", "val", "test")
SampleFacts = tuple[tuple[int, int], MaskFacts]
"""Height and width of an image, and the content of its mask."""

_Mask = TypeVar("_Mask")


class Sample(NamedTuple):
    """One image with its target.

    Shape:
        - image: ``(H, W, channels)``, uint8, or float32 in [0, 1]; three channels are RGB. NaN
          marks pixels without data.
        - target: ``(H, W)``, integers: class ids or `ignore_label`. For multi-label data
          ``(H, W, num_classes)``: 0, 1 or `ignore_label`.
    """

    image: NDArray[Any]
    target: NDArray[Any]
    name: str


class SegmentationDataset(ABC):
    """Base class of datasets: samples by index, whose targets follow one label contract.

    A subclass calls ``super().__init__(labels)`` and implements ``__len__`` and ``__getitem__``.

    Args:
        labels: The label contract of the targets.
        channels: Number of channels of each image.
        title: Name of the data in file names and reports. None: the name of the dataset in the
            registry.
    """

    def __init__(self, labels: LabelContract, channels: int = 3, title: str | None = None) -> None:
        self.labels = labels
        self.channels = channels
        self.title = title

    @property
    def num_classes(self) -> int:
        """Number of channels of the logits."""
        return self.labels.num_classes

    @property
    def ignore_label(self) -> int:
        """The value of target pixels without a class."""
        return self.labels.ignore_label

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class id."""
        return self.labels.names

    @property
    def palette(self) -> tuple[tuple[int, ...], ...]:
        """One RGB colour per class id."""
        return self.labels.colours

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Return the sample at `index`, the same at every call."""

    def evaluation_part(self, length: int, rank: int, nodes: Sequence[int]) -> Sequence[int]:
        """Return the indices of the samples that one process evaluates.

        Args:
            length: Number of samples that all processes evaluate, the first ones of the dataset.
            rank: The process.
            nodes: The number of the machine of each process.
        """
        return range(rank, length, len(nodes))


class SampleFiles(NamedTuple):
    """The files of one sample.

    Attributes:
        image: The image file.
        masks: The mask file. For multi-label data there may be one per class, with None for a class
            that has no pixel in the image.
        name: Name of the sample, unique in its split.
        valid: The file whose pixels that are not 0 count; None: all pixels of the image count.
    """

    image: Path
    masks: tuple[Path | None, ...]
    name: str
    valid: Path | None = None

    @property
    def mask(self) -> Path:
        """The mask file, or the first of several, for messages."""
        return next((mask for mask in self.masks if mask is not None), self.image)


class FileDataset(SegmentationDataset):
    """A dataset of image and mask files.

    Args:
        labels: The label contract of the masks.
        files: The files of each sample.
        reader: The rules for reading them; the default rules if None.
        title: As in :class:`SegmentationDataset`.

    Attributes:
        left_out: A message for each sample that was left out of the dataset.
        notes: What was decided about the files, for the log.
        max_bad: Largest share of the samples that may be left out because a file is missing or
            unreadable.
        allow_overlap: Whether an image may be in two splits.
        masks_have_sizes: Whether masks have a size of their own, which shows if they follow the
            EXIF orientation of the images.
    """

    masks_have_sizes = True

    def __init__(
        self,
        labels: LabelContract,
        files: Sequence[SampleFiles],
        reader: Reader | None = None,
        title: str | None = None,
    ) -> None:
        reader = reader or Reader()
        super().__init__(labels, reader.channels, title)
        self.files: Sequence[SampleFiles] = list(files)
        self.reader = reader.with_soft_masks(labels.reads_ranges)
        self.left_out: list[str] = []
        self.notes: list[str] = []
        self.max_bad = 0.0
        self.allow_overlap = False

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        files = self.files[index]
        image, raw = self.read_image(index), self.read_mask(index)
        valid = self.read_valid(index)
        problem = explain_shapes(image.shape, mask_shape(raw), files, self.reader.turns, valid)
        if problem is not None:
            raise SizeError(problem)
        target = self.labels.to_ids(raw, str(files.mask), valid)
        if self.reader.ignore_nodata and image.dtype.kind == "f":
            target[np.isnan(image).any(2)] = self.labels.ignore_label
        return Sample(image, target, files.name)

    @property
    def reads_whole_files(self) -> bool:
        """Whether every image is a whole file that the base class reads."""
        own = type(self).read_image is FileDataset.read_image
        return own and type(self.reader) is Reader

    def read_image(self, index: int) -> NDArray[Any]:
        """Return the image of a sample."""
        return self.reader.image(self.files[index].image)

    def read_mask(self, index: int) -> NDArray[Any] | list[NDArray[Any]]:
        """Return the raw values of a sample's mask; a list if each class has a mask of its own."""
        files = self.files[index]
        return read_masks(
            files.masks,
            self.reader.mask,
            lambda: self.reader.size(files.image),
            multi_label=self.labels.multi_label,
        )

    def read_valid(self, index: int) -> NDArray[np.bool_] | None:
        """Return the pixels of a sample that count, ``(H, W)``; None: all of them."""
        file = self.files[index].valid
        return None if file is None else self.reader.valid(file)

    def count_mask(self, index: int) -> MaskFacts:
        """Count the raw values of a sample's mask at the pixels that count.

        Raises:
            SizeError: When mask and valid file differ in size.
            DataError: When one of them cannot be read.
        """
        raw, valid = self.read_mask(index), self.read_valid(index)
        return self.count_valid(raw, valid, self.files[index], lambda: self.read_image(index).shape)

    def count_valid(
        self,
        raw: NDArray[Any] | list[NDArray[Any]],
        valid: NDArray[np.bool_] | None,
        files: SampleFiles,
        image_shape: Callable[[], Sequence[int]],
    ) -> MaskFacts:
        """Count the raw values of a mask at the pixels that count.

        Args:
            raw: The mask, as from :meth:`read_mask`.
            valid: The pixels that count, as from :meth:`read_valid`.
            files: The files of the sample, for messages.
            image_shape: Returns height and width of the image, for messages.

        Raises:
            SizeError: When `raw` and `valid` differ in size.
        """
        for mask in [raw] if isinstance(raw, np.ndarray) else raw:
            if valid is not None and mask.shape[:2] != valid.shape:
                shapes = image_shape(), mask.shape
                raise SizeError(str(explain_shapes(*shapes, files, self.reader.turns, valid)))
        return self.labels.count(raw) if valid is None else self.labels.count(raw, valid)

    def mask_kind(self, index: int) -> str:
        """Return a key of what, besides its file, decides the raw values of a mask.

        The scan stores its results under this key.
        """
        del index
        return f"{self.labels.multi_label} {self.reader}"

    def known_facts(self, index: int) -> SampleFacts | None:
        """Return the facts of a sample if they are known without reading its files, else None."""
        del index
        return None

    def known_hashes(self) -> list[str] | None:
        """Return a text per sample that changes with its files, if it is known without reading."""
        return None

    def without(self, indices: Collection[int], reasons: Sequence[str]) -> FileDataset:
        """Return a copy of the dataset without some samples.

        Args:
            indices: The samples to leave out.
            reasons: A message for each of them.

        Raises:
            DataError: When more than the share `max_bad` is left out.
        """
        fewer = copy.copy(self)
        fewer.keep([index for index in range(len(self)) if index not in indices])
        fewer.left_out = [*self.left_out, *reasons]
        fewer.check_left_out()
        return fewer

    def keep(self, indices: Sequence[int]) -> None:
        """Reduce the dataset to these samples."""
        self.files = [self.files[index] for index in indices]

    def check_left_out(self) -> None:
        """Check that no more than the share `max_bad` of the samples was left out.

        Raises:
            DataError: When more was left out.
        """
        total = len(self.files) + len(self.left_out)
        if len(self.left_out) > self.max_bad * total:
            raise DataError(
                f"{self.left_out[0]} ({len(self.left_out)} of {total} samples have missing or"
                f" unreadable files, more than dataset.max_bad={self.max_bad:g} allows)"
            )


def read_masks(
    masks: Sequence[_Mask | None],
    read: Callable[..., NDArray[Any]],
    image_size: Callable[[], tuple[int, int]],
    *,
    multi_label: bool,
) -> NDArray[Any] | list[NDArray[Any]]:
    """Read the one mask of a sample, or its list of masks with one per class.

    Args:
        masks: The mask, or one per class; a class with None has no pixel in the image.
        read: Reads one of `masks`, with the arguments of :meth:`~segtrain.data.Reader.mask`.
        image_size: Returns height and width, for the case that no class has a mask.
        multi_label: Whether the channels of a single mask are classes.
    """
    if len(masks) == 1 and masks[0] is not None:
        return read(masks[0], all_channels=multi_label)
    found = [None if mask is None else read(mask) for mask in masks]
    shape = next((values.shape for values in found if values is not None), None)
    shape = image_size() if shape is None else shape
    return [np.zeros(shape, np.uint8) if values is None else values for values in found]


def mask_shape(raw: NDArray[Any] | Sequence[NDArray[Any]]) -> tuple[int, int]:
    """Return height and width of a mask, or of the first of several."""
    height, width = (raw if isinstance(raw, np.ndarray) else raw[0]).shape[:2]
    return int(height), int(width)


def explain_shapes(
    image: Sequence[int],
    mask: Sequence[int],
    files: SampleFiles,
    turns: bool,
    valid: NDArray[np.bool_] | None = None,
) -> str | None:
    """Return a message if an image and its mask or its valid file differ in size, else None.

    Args:
        image: Height and width of the image.
        mask: Height and width of the mask.
        files: The files of the sample.
        turns: Whether the EXIF orientation is applied.
        valid: The pixels that count, ``(H, W)``; None: all pixels.
    """
    others = [("mask", files.mask, mask)]
    if valid is not None and files.valid is not None:
        others.append(("valid file", files.valid, valid.shape))
    height, width = image[:2]
    for what, file, shape in others:
        if (height, width) == (*shape[:2],):
            continue
        advice = "resize or replace one of them"
        if (width, height) == (*shape[:2],):
            other, state = ("ignore", "wrong") if turns else ("apply", "needed")
            advice = (
                f"turn the {what} by 90 degrees, or set dataset.exif={other} if the EXIF"
                f" orientation of a file is {state}"
            )
        return (
            f"{file}: the {what} is {shape[0]} x {shape[1]} (height x width), but its image"
            f" {files.image} is {height} x {width}; {advice}"
        )
    return None


def check_split(split: str) -> str:
    """Return `split` if it is the name of a split.

    Raises:
        ConfigError: When it is not.
    """
    if split not in SPLITS:
        raise ConfigError(f"split must be 'train', 'val' or 'test', got {split!r}")
    return split


DATASETS: Registry[SegmentationDataset] = Registry("dataset")
