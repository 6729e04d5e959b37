"""What all datasets of files have in common: the keys that say how files are to be read."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from segtrain.data.dataset import FileDataset, SampleFiles, check_split
from segtrain.data.datasets.download import SOURCES, Source, download_source
from segtrain.data.io.reader import MAX_PIXELS, Reader
from segtrain.data.labels.contract import LabelContract
from segtrain.errors import ConfigError, DataError, NoFilesError
from segtrain.schema.values import did_you_mean


class DiskDataset(FileDataset):
    """One split of a dataset that a config describes; a subclass finds its files.

    Args:
        num_classes: Number of channels of the logits; 1 tells an object from the background.
        split: ``"train"`` or ``"val"``.
        root: The directory or zip archive that relative paths are relative to.
        title: What the data is called in names and reports.
        class_names: One name per class.
        ignore_label: The value of target pixels without a class.
        label_map: Raw mask value to class, where masks do not hold class ids; see
            :mod:`segtrain.data.labels.label_map`.
        palette: One RGB colour per class: of masks of colours, and of drawn predictions.
        multi_label: Whether a pixel may be of several classes or of none; a mask is then one file
            with a channel per class, or a file per class.
        flip_pairs: Pairs of classes that change places when an image is mirrored.
        channels: Of every image.
        value_range: The pixel values that become 0 and 1; see :class:`~segtrain.data.Reader`.
        exif: Whether an orientation that a file states is applied, to images and masks alike.
        max_pixels: Refuse files with more.
        max_bad: Share of samples that may be left out because a file is missing or unreadable.
        val_share: Share of the training samples that are held back for validation, chosen by a hash
            of their names; what is configured for validation is not read then.
        allow_overlap: Whether an image may be in both splits.
        source: What torchvision calls the dataset, where it knows how to download it.
        download: Whether to download it to `root` when files are missing there.

    Raises:
        ConfigError: When the split is not configured, or the labels contradict each other.
        DataError: When files are missing or do not pair.
    """

    def __init__(  # noqa: PLR0913  one per key of the configuration
        self,
        *,
        num_classes: int,
        split: str = "train",
        root: str = ".",
        title: str | None = None,
        class_names: Sequence[str] | None = None,
        ignore_label: int = 255,
        label_map: Mapping[int | str, int | str] | Sequence[int | str] | None = None,
        palette: Sequence[Sequence[int]] | None = None,
        multi_label: bool = False,
        flip_pairs: Sequence[Sequence[int | str]] = (),
        channels: int = 3,
        value_range: tuple[float, float] | None = None,
        exif: Literal["apply", "ignore"] = "apply",
        max_pixels: int = MAX_PIXELS,
        max_bad: float = 0.0,
        val_share: float = 0.0,
        allow_overlap: bool = False,
        source: Source | None = None,
        download: bool = False,
    ) -> None:
        labels = LabelContract(
            num_classes, ignore_label, label_map, class_names, palette, multi_label, flip_pairs
        )
        reader = Reader(channels, value_range, exif, max_pixels)
        for key, share in (("max_bad", max_bad), ("val_share", val_share)):
            if not 0 <= share <= 1:
                raise ConfigError(f"dataset.{key} is a share from 0 to 1, got {share}")
        if download and source is None:
            raise ConfigError(
                "dataset.download=true needs dataset.source, one of " + ", ".join(SOURCES)
            )
        super().__init__(labels, [], reader, title)
        self.max_bad, self.allow_overlap = max_bad, allow_overlap
        # The split whose files are looked for: with `val_share` both are parts of one.
        self.split = "train" if val_share and check_split(split) else check_split(split)
        self.root = Path(root).expanduser()
        self.files = self._found(source, download)
        if val_share:
            self.keep(_part(self.files, val_share, split))
        self.check_left_out()

    def _found(self, source: str | None, download: bool) -> Sequence[SampleFiles]:
        try:
            return self.find()
        except DataError as error:
            if source is None:
                raise DataError(f"{error}{self._advice(error)}") from None
            if not download:
                raise DataError(f"{error}; dataset.download=true fetches the data") from None
        download_source(source, self.root)
        return self.find()

    def _advice(self, error: DataError) -> str:
        if self.split == "train" or not isinstance(error, NoFilesError):
            return ""
        return "; to hold back some of the training samples instead, set dataset.val_share=0.2"

    def given(
        self, places: Mapping[str, Any] | None, keys: Sequence[str], hint: str, *, needed: int
    ) -> dict[str, Any]:
        """What the config says of the split, by key.

        Args:
            places: Of the split, None where it is not configured.
            keys: What it may hold; the first `needed` of them it must.
            hint: What to give for a key that is missing.
            needed: How many of the keys it must hold.

        Raises:
            ConfigError: When a key is unknown, or a needed one missing.
        """
        where = f"dataset.{self.split}"
        found = dict(places or {})
        for key in found:
            if key not in keys:
                raise ConfigError(f"unknown key {where}.{key}{did_you_mean(key, keys)}")
        for key in keys[:needed]:
            if not found.get(key):
                raise ConfigError(
                    f"{where}.{key} is not set; give {hint}, absolute or relative to"
                    f" dataset.root={self.root}"
                )
        return found

    @abstractmethod
    def find(self) -> Sequence[SampleFiles]:
        """The files of the split; what is wrong with single samples goes to `left_out`.

        Raises:
            DataError: When files are missing or do not pair.
        """


def _part(files: Sequence[SampleFiles], val_share: float, split: str) -> list[int]:
    """Which samples a split has; where a sample belongs follows from its name alone.

    Raises:
        DataError: When it has none.
    """
    first = val_share * 2**32
    chosen = [
        index
        for index, sample in enumerate(files)
        if (zlib.crc32(sample.name.encode()) < first) == (split == "val")
    ]
    if not chosen:
        raise DataError(
            f"dataset.val_share={val_share:g} leaves no sample of {len(files)} for the {split}"
            " split"
        )
    return chosen
