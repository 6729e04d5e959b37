"""The full ADE20K, whose masks hold the numbers of about 3,000 names in two channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segtrain.data.dataset import DATASETS, SampleFiles
from segtrain.data.datasets.exports.base import ExportDataset, Section, read_json
from segtrain.data.datasets.exports.classes import BACKGROUND
from segtrain.data.io.storage import is_directory, is_file, walk
from segtrain.errors import ConfigError, DataError
from segtrain.terminal import progress

_ENDING = "_seg.png"
_FORMAT = "an annotation of ADE20K"


@DATASETS.register("ade20k_full")
class Ade20kFullDataset(ExportDataset):
    """The full ADE20K of 2021: ``*_seg.png`` beside each image, with the names in a JSON file.

    The number of a name is ``red // 10 * 256 + green``; parts of objects are not read. The names
    come from the JSON files of the training split. Choose some of the 3,000 by `class_names` and
    `label_map`, such as ``{"wall": wall, "door": wall, other: ignore}``. Pixels without an object
    have the number 0, ``background``.

    Args:
        train: ``folder``, searched recursively; None: ``images/ADE/training``.
        val: The same for the validation split; None: ``images/ADE/validation``.
        test: The same for the test split; None: there is no test split.
        **common: See :class:`~segtrain.data.datasets.exports.base.ExportDataset`.

    Raises:
        ConfigError: When no classes are chosen, or a name does not occur.
        DataError: When files are missing or damaged.

    References:
        Zhou et al.: Semantic Understanding of Scenes through the ADE20K Dataset. IJCV 2019.
        https://github.com/CSAILVision/ADE20K
    """

    tool = "the full ADE20K"
    keys = ("folder",)
    layout = "it has no folder images/ADE/training or images/ADE/validation"

    def read_values(self) -> dict[int, str]:
        if not (self.given_names or self.given_map):
            raise ConfigError(
                "dataset=ade20k_full has about 3,000 names; choose some, such as"
                " 'dataset.class_names=[wall,sky]' 'dataset.label_map={other: ignore}'"
            )
        section = self.class_section()
        paths = [path for path in self._masks(section) if is_file(_json(path))]
        values = {0: BACKGROUND}
        with progress("read the names of ADE20K", len(paths)) as bar:
            for path in paths:
                values |= _names(_json(path))
                bar.advance()
        return values

    def find_section(self, split: str) -> dict[str, Any] | None:
        bases = [("images", "ADE"), ("ADE",), ()]
        folders = [self.split_folder(split, *base) for base in bases]
        found = next((folder for folder in folders if folder is not None), None)
        return None if found is None else {"folder": found}

    def _masks(self, section: Section) -> list[Path]:
        folder = self.root / section["folder"]
        if not is_directory(folder):
            raise DataError(f"dataset.{self.split}.folder={section['folder']}: no folder {folder}")
        return sorted(path for path in walk(folder) if path.name.endswith(_ENDING))

    def find(self) -> list[SampleFiles]:
        found, missing = [], []
        for mask in self._masks(self.section()):
            image = mask.with_name(mask.name.removesuffix(_ENDING) + ".jpg")
            if is_file(image):
                found.append(SampleFiles(image, (mask,), image.stem))
            else:
                missing.append(f"{image}: the image of {mask} does not exist")
        self.keep_existing(found, missing)
        return found

    def mask_kind(self, index: int) -> str:
        return f"ade20k_full {super().mask_kind(index)}"

    def read_mask(self, index: int) -> NDArray[Any]:
        mask = self.files[index].mask
        pixels = self.reader.mask(mask)
        if pixels.ndim != 3:
            raise DataError(f"{mask}: a mask of the full ADE20K has red, green and blue channels")
        numbers = pixels[..., 0].astype(np.int32) // 10 * 256 + pixels[..., 1]
        known: NDArray[Any] = numbers
        return known


def _json(mask: Path) -> Path:
    return mask.with_name(mask.name.removesuffix(_ENDING) + ".json")


def _names(path: Path) -> dict[int, str]:
    content = read_json(path, _FORMAT)
    try:
        return {
            int(item["name_ndx"]): str(item["name"]) for item in content["annotation"]["object"]
        }
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is not {_FORMAT}: {error!r}") from None
