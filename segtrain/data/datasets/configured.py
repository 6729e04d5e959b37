"""The base of the datasets that a config describes, with the keys that they share."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from segtrain.data.dataset import FileDataset, SampleFiles, check_split
from segtrain.data.datasets.download import SOURCES, Source, download_source
from segtrain.data.datasets.folds import Folds
from segtrain.data.datasets.names import Names
from segtrain.data.datasets.recognise import hint
from segtrain.data.datasets.slices import cut_into_slices
from segtrain.data.io.nifti import VOLUME_ENDINGS
from segtrain.data.io.reader import Reader
from segtrain.data.labels.contract import LabelContract
from segtrain.data.sample_table import SampleTable
from segtrain.errors import ConfigError, DataError, NoFilesError
from segtrain.schema.values import check_value, did_you_mean, forwards_to, parameters

_TEST = "test"
_NAMES = "names"


class ConfiguredDataset(FileDataset):
    """One split of a dataset that a config describes; a subclass finds its files.

    The parameters of :class:`~segtrain.data.LabelContract` (``num_classes``, ``label_map``, ...),
    of :class:`~segtrain.data.Reader` (``channels``, ``value_range``, ...) and of
    :class:`~segtrain.data.datasets.folds.Folds` (``folds``, ``fold``, ``fold_groups``) are keys of
    every such dataset. They are documented there.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
        root: Directory or archive that relative paths start from.
        title: Name of the data in file names and reports.
        max_bad: Largest share of the samples that may be left out because a file is missing or
            unreadable, from 0 to 1.
        val_share: Share of the training samples that is held back for validation, from 0 to 1. A
            hash of a sample's name decides, or of the name of its volume. The paths configured for
            validation are then not used; the test split stays as it is configured.
        allow_overlap: Whether an image may be in two splits.
        source: Name of the dataset in torchvision, if torchvision can download it.
        download: Whether to download the data to `root` when files are missing there.
        **rules: Parameters of :class:`~segtrain.data.LabelContract`,
            :class:`~segtrain.data.Reader` and :class:`~segtrain.data.datasets.folds.Folds`.

    Raises:
        ConfigError: When the split is not configured, or the labels contradict each other.
        DataError: When files are missing or do not pair.
    """

    @forwards_to(LabelContract, Reader, Folds)
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
        reading, cut = (
            {key: rules.pop(key) for key in parameters(part) if key in rules}
            for part in (Reader, Folds)
        )
        labels, reader, folds = LabelContract(**rules), Reader(**reading), Folds(**cut)
        for key, share in (("max_bad", max_bad), ("val_share", val_share)):
            if not 0 <= share <= 1:
                raise ConfigError(f"dataset.{key} must be a share from 0 to 1, got {share}")
        if folds and val_share:
            raise ConfigError(
                f"dataset.folds={folds.folds} and dataset.val_share={val_share:g} both choose the"
                " validation samples; leave one of them out"
            )
        if download and source is None:
            raise ConfigError(
                "dataset.download=true needs dataset.source, one of " + ", ".join(SOURCES)
            )
        super().__init__(labels, [], reader, title)
        self.max_bad, self.allow_overlap = max_bad, allow_overlap
        # With `folds` or `val_share` both splits are parts of the files configured for training.
        is_part = bool(folds or val_share) and check_split(split) != _TEST
        self.split = "train" if is_part else check_split(split)
        self.root = Path(root).expanduser()
        self.files = self._find_or_download(source, download)
        self.check_left_out()
        if is_part:
            part = folds.part if folds else partial(_split_by_name, val_share=val_share)
            self.keep(part(self.files, split=split))
            self.left_out = self.left_out if split == "train" else []  # one part lists them
        if split != "train":
            self.score_once()
        else:
            self._note_repetitions("they are drawn as often as they are listed")
        # After the split, so that the slices of a volume are all in one part.
        self._cut_volumes()

    def keep(self, indices: Sequence[int]) -> None:
        if isinstance(self.files, SampleTable):
            self.files = self.files.chosen(indices)
        else:
            super().keep(indices)

    def score_once(self) -> None:
        """Reduce samples that a list repeats to one, since a score counts each image once."""
        fewer = self._note_repetitions("each sample is scored once")
        if fewer is not None:
            self.files = fewer

    def _note_repetitions(self, effect: str) -> SampleTable | None:
        """Note that samples are repeated, and return each once; None: none is repeated."""
        fewer = self.files.once() if isinstance(self.files, SampleTable) else self.files
        if not isinstance(fewer, SampleTable) or len(fewer) == len(self):
            return None
        self.notes.append(
            f"dataset.{self.split}: {len(self) - len(fewer)} of {len(self)} samples are"
            f" repetitions; {effect}"
        )
        return fewer

    def _cut_volumes(self) -> None:
        """Replace samples that are volumes by their slices; bad ones may be left out."""
        if isinstance(self.files, SampleTable) and not self.files.holds(VOLUME_ENDINGS):
            return
        found: list[SampleFiles] = []
        bad: list[str] = []
        for sample in self.files:
            try:
                found += cut_into_slices(sample)
            except DataError as error:
                if self.max_bad == 0:
                    raise
                bad.append(str(error))
        self.files = found
        if bad:
            self.left_out += bad
            self.check_left_out()

    def _find_or_download(self, source: str | None, download: bool) -> Sequence[SampleFiles]:
        try:
            return self.find()
        except DataError as error:
            if source is None and isinstance(error, NoFilesError):
                tool = self.export_hint()
                raise NoFilesError(f"{error}{tool}", "" if tool else self._advice()) from None
            if source is None:
                raise
            if not download:
                raise DataError(f"{error}; dataset.download=true fetches the data") from None
        download_source(source, self.root)
        return self.find()

    def export_hint(self) -> str:
        """Return the end of an error message that names the tool which wrote `root`, if known."""
        return hint(self.root)

    def _advice(self) -> str:
        advice = {
            "val": "; to hold back some of the training samples instead, set dataset.val_share=0.2",
            _TEST: "; to go without a test split, set dataset.test=null",
        }
        return advice.get(self.split, "")

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
            ConfigError: When a key is unknown, a required key is missing, or the test split is not
                configured.
        """
        where = f"dataset.{self.split}"
        if self.split == _TEST and not section:
            raise ConfigError(
                f"{where} is not set, so there is no test split; set {where}.{keys[0]} to"
                f" {hint}, absolute or relative to dataset.root={self.root}, or choose another"
                " split"
            )
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
        for key, value in found.items():
            if key != _NAMES and isinstance(value, list):
                check_value(value, list[str], f"{where}.{key}")
        return found

    def chosen_names(self, section: Mapping[str, Any]) -> Names | None:
        """Return the names of the samples that the split keeps; None: all of them.

        Args:
            section: The section of the split, as from :meth:`check_section`.

        Raises:
            SegtrainError: As :class:`~segtrain.data.datasets.names.Names`.
        """
        given = section.get(_NAMES)
        return None if given is None else Names(given, self.root, f"dataset.{self.split}.{_NAMES}")

    @abstractmethod
    def find(self) -> Sequence[SampleFiles]:
        """Return the files of the samples of the split.

        A problem with a single sample may be added to `left_out` instead of being raised, if
        `max_bad` is above 0.

        Raises:
            DataError: When files are missing or do not pair.
        """


def _split_by_name(files: Sequence[SampleFiles], split: str, val_share: float) -> list[int]:
    """Return the indices of the samples of a split, which a hash of their names decides.

    Raises:
        DataError: When there are none.
    """
    limit = val_share * 2**32
    hashes = [zlib.crc32(sample.name.encode(errors="surrogateescape")) for sample in files]
    # Of a few samples none may be below the limit; then the lowest one is held back.
    limit = max(limit, min(hashes, default=0) + 1)
    chosen = [index for index, found in enumerate(hashes) if (found < limit) == (split == "val")]
    if not chosen:
        raise DataError(
            f"dataset.val_share={val_share:g} leaves no sample of {len(files)} for the {split}"
            " split"
        )
    return chosen
