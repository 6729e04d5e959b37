"""Any folders of images and masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from segtrain.data.base import DATASETS, FileDataset, check_split
from segtrain.data.labels import LabelContract
from segtrain.data.pairing import find_files, pair_files
from segtrain.errors import ConfigError
from segtrain.schema import did_you_mean

_KEYS = ("images", "masks")


@DATASETS.register("folder")
class FolderDataset(FileDataset):
    """Images and masks in folders of your own.

    Args:
        num_classes: Number of classes.
        split: ``"train"`` or ``"val"``.
        root: What relative paths below are relative to.
        train: ``images`` and ``masks`` of the training split: a directory (searched through) or a
            glob each. See :mod:`segtrain.data.pairing` for how they pair.
        val: The same for the validation split. A split that is not asked for may be None.
        class_names: One name per class.
        ignore_label: The value of pixels without a class.
        label_map: Raw mask value to class id, where masks do not hold class ids.
        palette: One RGB colour per class, for drawing.

    Raises:
        ConfigError: When the split is not configured, or the labels contradict each other.
        DataError: When files are missing or do not pair.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        split: str = "train",
        root: str = ".",
        train: Mapping[str, str] | None = None,
        val: Mapping[str, str] | None = None,
        class_names: Sequence[str] | None = None,
        ignore_label: int = 255,
        label_map: dict[int, int] | None = None,
        palette: Sequence[Sequence[int]] | None = None,
    ) -> None:
        labels = LabelContract(num_classes, ignore_label, label_map, class_names, palette)
        places = train if check_split(split) == "train" else val
        samples = find_pairs(Path(root), places, f"dataset.{split}")
        super().__init__(labels, [sample[:2] for sample in samples], [name for *_, name in samples])


def find_pairs(
    root: Path, places: Mapping[str, str] | None, where: str
) -> list[tuple[Path, Path, str]]:
    """Image file, mask file and name of each sample of one split.

    Args:
        root: What relative places are relative to.
        places: A directory or a glob for ``images`` and for ``masks``.
        where: The config key of `places`, for messages.

    Raises:
        ConfigError: When a place is not given.
        DataError: When files are missing or do not pair.
    """
    given = dict(places or {})
    for key in given:
        if key not in _KEYS:
            raise ConfigError(f"unknown key {where}.{key}{did_you_mean(key, _KEYS)}")
    for key in _KEYS:
        if not given.get(key):
            raise ConfigError(
                f"{where}.{key} is not set; give a directory or a glob, absolute or relative to "
                f"dataset.root={root}"
            )
    images, masks = (find_files(root, given[key], f"{where}.{key}") for key in _KEYS)
    return pair_files(images, masks, where)
