"""Folders of images and masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from segtrain.data.dataset import DATASETS, SampleFiles
from segtrain.data.datasets.configured import ConfiguredDataset
from segtrain.data.datasets.found_files import FoundFiles, Location, find_files, list_endings
from segtrain.data.datasets.names import Names
from segtrain.data.datasets.pairing import Pairing, Pairs, pair_files, pair_valid_files
from segtrain.data.sample_table import SampleTable
from segtrain.errors import ConfigError
from segtrain.schema.values import did_you_mean

_KEYS = ("images", "masks", "names", "valid")
_LEAST_ROWS = 1000  # of a table; fewer samples are as well kept as objects
SplitFolders = Mapping[str, str | Sequence[Any] | Mapping[str, str | Sequence[str]]]


@DATASETS.register("folder")
class FolderDataset(ConfiguredDataset):
    """Images and masks in folders.

    Args:
        train: ``images`` and ``masks`` of the training split. Each is a directory (searched
            recursively), a glob, or a list of these, absolute or relative to `root`, on disk or in
            an archive. For multi-label data `masks` may be a mapping from class name to the
            directory or glob of the masks of that class; an image without a mask of a class has no
            pixel of it. For other data a mapping has several sets of masks of the same images, from
            which `labels` chooses. See :mod:`segtrain.data.datasets.pairing` for how files pair.
            ``names``, a list or a text file with one name per line, keeps only these samples. The
            name of a sample is what its files pair by. ``valid`` is a directory or a glob of files
            that are not 0 at the pixels of an image that count; the other pixels are ignored.
        val: The same for the validation split; None if the split is not used.
        test: The same for the test split; None: there is no test split.
        labels: The set of masks, if there are several of the same images.
        unpaired: What happens to images without a mask and masks without an image: ``error``, or
            ``skip``, which leaves them out and logs their number.
        pairing: Regular expressions for ``images``, ``masks`` and, if it is set, ``valid``, which
            are searched for in the path below `root`. Files pair if the groups are equal, or the
            whole match if there are no groups. Files without a match are left out. None: files pair
            by name.
        **common: See :class:`~segtrain.data.datasets.configured.ConfiguredDataset`.

    Raises:
        ConfigError: When the split is not configured, or the labels contradict each other.
        DataError: When files are missing or do not pair.
    """

    def __init__(
        self,
        *,
        train: SplitFolders | None = None,
        val: SplitFolders | None = None,
        test: SplitFolders | None = None,
        labels: str | None = None,
        unpaired: Literal["error", "skip"] = "error",
        pairing: Mapping[str, str] | None = None,
        **common: Any,
    ) -> None:
        self.sections = {"train": train, "val": val, "test": test}
        self.pairing = Pairing(pairing)
        self.mask_set, self.unpaired = labels, unpaired
        if labels is not None:
            self._check_set(labels, multi_label=bool(common.get("multi_label")))
        super().__init__(**common)

    def find(self) -> Sequence[SampleFiles]:
        samples = self._find()
        if len(samples) < _LEAST_ROWS or any(len(one.masks) != 1 for one in samples):
            return samples
        return SampleTable.of(samples, self.root)

    def _find(self) -> list[SampleFiles]:
        where = f"dataset.{self.split}"
        section = self.check_section(
            self.sections[self.split], _KEYS, "a directory or a glob", needed=2
        )
        names = self.chosen_names(section)
        images = self._find_in(section["images"], f"{where}.images")
        masks = section["masks"]
        if isinstance(masks, Mapping) and self.mask_set is not None:
            masks = masks[self.mask_set]
        if isinstance(masks, Mapping):
            samples = self._find_per_class(images, masks, where, names)
        else:
            pairs = self._pair(images, self._find_in(masks, f"{where}.masks"), names)
            samples = [SampleFiles(image, (mask,), name) for image, mask, name in pairs]
        if section.get("valid") is None:
            return samples
        valid = self._find_in(section["valid"], f"{where}.valid")
        return self._with_valid(samples, images, valid, only=names is not None)

    def _check_set(self, chosen: str, *, multi_label: bool) -> None:
        """Check that the sets of masks have the chosen one.

        Raises:
            ConfigError: When they do not, or there are no sets.
        """
        given = [section.get("masks") for section in self.sections.values() if section]
        sets = [masks for masks in given if isinstance(masks, Mapping)]
        if multi_label or not sets:
            raise ConfigError(
                f"dataset.labels={chosen} chooses one of several sets of masks, but"
                + (
                    " with dataset.multi_label=true masks are"
                    if multi_label
                    else " dataset.train.masks is"
                )
                + " not a mapping of sets; leave it out"
            )
        for masks in sets:
            if chosen not in masks:
                raise ConfigError(f"dataset.labels: no set {chosen!r}{did_you_mean(chosen, masks)}")

    def _find_per_class(
        self,
        images: FoundFiles,
        masks: Mapping[str, Location],
        where: str,
        chosen: Names | None,
    ) -> list[SampleFiles]:
        names = self.labels.names
        if not self.labels.multi_label:
            raise ConfigError(
                f"{where}.masks is a mapping; if it has masks for each class, set"
                " dataset.multi_label=true, and if it has several sets of masks, set dataset.labels"
                f" to one of {', '.join(masks)}"
            )
        for name in names:
            if name not in masks:
                raise ConfigError(f"{where}.masks has no directory or glob for the class {name!r}")
        for name in masks:
            if name not in names:
                raise ConfigError(f"{where}.masks: no class {name!r}{did_you_mean(name, names)}")
        columns, any_class = [], dict[str, Any]()
        for name in names:
            found = self._find_in(masks[name], f"{where}.masks.{name}")
            pairs = self._pair(images, found, chosen, partial=True)
            columns.append({key: mask for _, mask, key in pairs})
            any_class.update({key: image for image, _, key in pairs})
        if chosen is None:
            without = [str(image) for image in sorted(set(images) - set(any_class.values()))]
        else:
            without = sorted(chosen.chosen - any_class.keys())
        self.left_out += [f"{image}: the image has no mask of any class" for image in without]
        return [
            SampleFiles(any_class[key], tuple(column.get(key) for column in columns), key)
            for key in sorted(any_class)
        ]

    def _with_valid(
        self, samples: Sequence[SampleFiles], images: FoundFiles, valid: FoundFiles, *, only: bool
    ) -> list[SampleFiles]:
        """Return the samples with their valid files; `only` these samples need one."""
        wanted = {sample.image for sample in samples} if only else None
        where = f"dataset.{self.split}"
        pairs = pair_valid_files(images, valid, where, self.pairing, wanted)
        self._settle(pairs, where)
        files = {image: file for image, file, _ in pairs.triples}
        return [
            sample._replace(valid=files[sample.image])
            for sample in samples
            if sample.image in files
        ]

    def _find_in(self, location: Any, where: str) -> FoundFiles:
        found = find_files(self.root, location, where)
        if found.passed_over:
            held = list_endings(found.passed_over)
            self.notes.append(f"{where}: other files are passed over: {held}")
        return found

    def _pair(
        self, images: FoundFiles, masks: FoundFiles, names: Names | None, *, partial: bool = False
    ) -> list[Any]:
        where = f"dataset.{self.split}"
        pairs = pair_files(images, masks, where, self.pairing, partial=partial, names=names)
        self._settle(pairs, where)
        return pairs.triples

    def _settle(self, pairs: Pairs, where: str) -> None:
        """Refuse, skip or list the files without a partner.

        Raises:
            DataError: When there are any, and neither `unpaired` nor `max_bad` allows them.
        """
        if pairs.rule:
            self.notes.append(pairs.shown(where))
        if pairs.error is None:
            return
        if self.unpaired == "skip" and not pairs.twice:
            first = next(iter(pairs.unpaired))
            self.notes.append(
                f"{where}: {len(pairs.unpaired)} files without a partner are left out, such as"
                f" {first}"
            )
        elif self.max_bad == 0:
            raise pairs.error
        else:
            known = {text.partition(": ")[0] for text in self.left_out}
            self.left_out += [t for t in pairs.left_out if t.partition(": ")[0] not in known]
