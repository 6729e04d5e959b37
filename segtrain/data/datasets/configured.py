"""The base of the datasets that a config describes, with the keys that they share."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segtrain.data.dataset import FileDataset, SampleFiles, check_split
from segtrain.data.datasets.download import SOURCES, Source, download_source
from segtrain.data.io.reader import Reader
from segtrain.data.labels.contract import LabelContract
from segtrain.errors import ConfigError, DataError, NoFilesError
from segtrain.schema.values import did_you_mean, forwards_to, parameters


class ConfiguredDataset(FileDataset):
    """One split of a dataset that a config describes; a subclass finds its files.

    The parameters of :class:`~segtrain.data.LabelContract` (``num_classes``, ``label_map``, ...)
    and of :class:`~segtrain.data.Reader` (``channels``, ``value_range``, ...) are keys of every
    such dataset. They are documented there.

    Args:
        split: ``"train"`` or ``"val"``.
        root: Directory or archive that relative paths start from.
        title: Name of the data in file names and reports.
        max_bad: Largest share of the samples that may be left out because a file is missing or
            unreadable, from 0 to 1.
        val_share: Share of the training samples that is held back for validation, from 0 to 1. A
            hash of a sample's name decides. The paths configured for validation are then not used.
        allow_overlap: Whether an image may be in both splits.
        source: Name of the dataset in torchvision, if torchvision can download it.
        download: Whether to download the data to `root` when files are missing there.
        **rules: Parameters of :class:`~segtrain.data.LabelContract` and
            :class:`~segtrain.data.Reader`.

    Raises:
        ConfigError: When the split is not configured, or the labels contradict each other.
        DataError: When files are missing or do not pair.
    """

    @forwards_to(LabelContract, Reader)
    def __init__(
        self,
        *,
        split: str = "train",
        root: str = ".",
        title: str | None = None,
        max_bad: float = 0.0,
        val_share: float = 0.0,
        allow_overlap: bool = False,
        source: Source | None = None,
        download: bool = False,
        **rules: Any,
    ) -> None:
        reading = {key: rules.pop(key) for key in parameters(Reader) if key in rules}
        labels, reader = LabelContract(**rules), Reader(**reading)
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
