"""Any folders of images and masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segtrain.data.dataset import DATASETS, SampleFiles
from segtrain.data.datasets.configured import ConfiguredDataset
from segtrain.data.datasets.pairing import Pairing, Place, PlacedFiles, find_files, pair_files
from segtrain.errors import ConfigError
from segtrain.schema.values import did_you_mean

_KEYS = ("images", "masks")
Places = Mapping[str, str | Sequence[str] | Mapping[str, str | Sequence[str]]]


@DATASETS.register("folder")
class FolderDataset(ConfiguredDataset):
    """Images and masks in folders of your own.

    Args:
        train: ``images`` and ``masks`` of the training split: a directory (searched through), a
            glob, or a list of them, each; in `root` or absolute, in a zip archive too. For
            multi-label data `masks` may be a mapping from class name to where that class's masks
            are; an image without a mask of a class has none of that class. See
            :mod:`segtrain.data.datasets.pairing` for how files pair.
        val: The same for the validation split. A split that is not asked for may be None.
        pairing: A regular expression for ``images`` and one for ``masks``, searched for in the path
            below `root`: files pair when its groups (or the whole of what it matches, where there
            are no groups) are the same. Files that it does not match are left out. None: by name.
        **common: See :class:`~segtrain.data.datasets.configured.ConfiguredDataset`.

    Raises:
        ConfigError: When the split is not configured, or the labels contradict each other.
        DataError: When files are missing or do not pair.
    """

    def __init__(
        self,
        *,
        train: Places | None = None,
        val: Places | None = None,
        pairing: Mapping[str, str] | None = None,
        **common: Any,
    ) -> None:
        self.places = {"train": train, "val": val}
        self.pairing = Pairing(pairing)
        super().__init__(**common)

    def find(self) -> list[SampleFiles]:
        where = f"dataset.{self.split}"
        places = self.given(self.places[self.split], _KEYS, "a directory or a glob", needed=2)
        images = self._look(places["images"], f"{where}.images")
        masks = places["masks"]
        if not isinstance(masks, Mapping):
            pairs = self._pair(images, self._look(masks, f"{where}.masks"))
            return [SampleFiles(image, (mask,), name) for image, mask, name in pairs]
        return self._find_per_class(images, masks, where)

    def _find_per_class(
        self, images: PlacedFiles, masks: Mapping[str, Place], where: str
    ) -> list[SampleFiles]:
        names = self.labels.names
        if not self.labels.multi_label:
            raise ConfigError(
                f"{where}.masks is a mapping, a place for each class; that needs"
                " dataset.multi_label=true"
            )
        for name in names:
            if name not in masks:
                raise ConfigError(f"{where}.masks has no place for the class {name!r}")
        for name in masks:
            if name not in names:
                raise ConfigError(f"{where}.masks: no class {name!r}{did_you_mean(name, names)}")
        columns, any_of = [], dict[str, Any]()
        for name in names:
            found = self._look(masks[name], f"{where}.masks.{name}")
            pairs = self._pair(images, found, partial=True)
            columns.append({key: mask for _, mask, key in pairs})
            any_of.update({key: image for image, _, key in pairs})
        lonely = sorted(set(images) - set(any_of.values()))
        self.left_out += [f"{image}: the image has no mask of any class" for image in lonely]
        return [
            SampleFiles(any_of[key], tuple(column.get(key) for column in columns), key)
            for key in sorted(any_of)
        ]

    def _look(self, place: Any, where: str) -> PlacedFiles:
        return find_files(self.root, place, where)

    def _pair(self, images: PlacedFiles, masks: PlacedFiles, *, partial: bool = False) -> list[Any]:
        pairs, problem, left_out = pair_files(
            images, masks, f"dataset.{self.split}", self.pairing, partial=partial
        )
        if problem and self.max_bad == 0:
            raise problem
        self.left_out += left_out
        return pairs
