"""The base of the datasets that a config describes, with the keys that they share."""

from __future__ import annotations

import difflib
import zlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segtrain.data.dataset import FileDataset, SampleFiles, check_split
from segtrain.data.datasets.download import SOURCES, Source, download_source
from segtrain.data.io.reader import Reader
from segtrain.data.io.storage import read_bytes
from segtrain.data.labels.contract import LabelContract
from segtrain.errors import ConfigError, DataError, NoFilesError, one_line
from segtrain.schema.values import did_you_mean, forwards_to, parameters


class ConfiguredDataset(FileDataset):
    """One split of a dataset that a config describes; a subclass finds its files.

    The parameters of :class:`~segtrain.data.LabelContract` (``num_classes``, ``label_map``, ...)
    and of :class:`~segtrain.data.Reader` (``channels``, ``value_range``, ...) are keys of every
    such dataset. They are documented there.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
        root: Directory or archive that relative paths start from.
        title: Name of the data in file names and reports.
        max_bad: Largest share of the samples that may be left out because a file is missing or
            unreadable, from 0 to 1.
        val_share: Share of the training samples that is held back for validation, from 0 to 1. A
            hash of a sample's name decides. The paths configured for validation are then not used;
            the test split is not changed.
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
                raise ConfigError(f"dataset.{key} must be a share from 0 to 1, got {share}")
        if download and source is None:
            raise ConfigError(
                "dataset.download=true needs dataset.source, one of " + ", ".join(SOURCES)
            )
        super().__init__(labels, [], reader, title)
        self.max_bad, self.allow_overlap = max_bad, allow_overlap
        # With `val_share`, train and val are parts of the files configured for training.
        is_part = val_share > 0 and check_split(split) != "test"
        self.split = "train" if is_part else check_split(split)
        self.root = Path(root).expanduser()
        self.files = self._find_or_download(source, download)
        if is_part:
            self.keep(_split_by_name(self.files, val_share, split))
        self.check_left_out()

    def _find_or_download(self, source: str | None, download: bool) -> Sequence[SampleFiles]:
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

    def check_section(
        self, section: Mapping[str, Any] | None, keys: Sequence[str], hint: str, *, needed: int
    ) -> dict[str, Any]:
        """Check the keys of the split's section in the config.

        Args:
            section: The section, or None if the split is not configured.
            keys: The allowed keys; the first `needed` of them are required.
            hint: What to set a missing key to, for the message.
            needed: Number of required keys.

        Returns:
            The section as a new mapping.

        Raises:
            ConfigError: When a key is unknown, or a required key is missing.
        """
        where = f"dataset.{self.split}"
        found = dict(section or {})
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

    def keep_names(
        self, files: Sequence[SampleFiles], names: str | Sequence[str | int] | None
    ) -> list[SampleFiles]:
        """Keep the samples that the key ``names`` of the split lists.

        Args:
            files: The files of all samples.
            names: Names of samples, or a text file with a name per line; None: all samples.

        Raises:
            DataError: When the file cannot be read, or a sample does not exist.
        """
        if names is None:
            return list(files)
        where = f"dataset.{self.split}.names"
        if isinstance(names, str):
            path = self.root / Path(names).expanduser()
            try:
                lines = read_bytes(path).decode("utf-8-sig").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"{where}: {path} cannot be read ({one_line(error)})") from None
            names = [line.strip() for line in lines if line.strip()]
        wanted = [str(name) for name in names]
        known = {sample.name: sample for sample in files}
        missing = [name for name in wanted if name not in known]
        if missing or not wanted:
            what = f"there is no sample {missing[0]!r}" if missing else "it lists no sample"
            others = f" ({len(missing) - 1} more are missing)" if len(missing) > 1 else ""
            close = difflib.get_close_matches((missing or [""])[0], known, n=1, cutoff=0.5)
            hint = f"; did you mean {close[0]!r}?" if close else f", such as {next(iter(known))!r}"
            raise DataError(f"{where}: {what}{others}{hint} The split has {len(known)} samples")
        return [known[name] for name in sorted(set(wanted))]

    @abstractmethod
    def find(self) -> Sequence[SampleFiles]:
        """Return the files of the samples of the split.

        A problem with a single sample may be added to `left_out` instead of being raised, if
        `max_bad` is above 0.

        Raises:
            DataError: When files are missing or do not pair.
        """


def _split_by_name(files: Sequence[SampleFiles], val_share: float, split: str) -> list[int]:
    """Return the indices of the samples of a split, which a hash of their names decides.

    Raises:
        DataError: When there are none.
    """
    limit = val_share * 2**32
    chosen = [
        index
        for index, sample in enumerate(files)
        if (zlib.crc32(sample.name.encode()) < limit) == (split == "val")
    ]
    if not chosen:
        raise DataError(
            f"dataset.val_share={val_share:g} leaves no sample of {len(files)} for the {split}"
            " split"
        )
    return chosen
