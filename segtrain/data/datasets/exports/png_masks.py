"""Exports that already are masks: CVAT's and Roboflow's, with their lists of classes."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segtrain.data.dataset import DATASETS, SampleFiles
from segtrain.data.datasets.exports.base import SPLIT_NAMES, ExportDataset
from segtrain.data.datasets.found_files import IMAGE_SUFFIXES
from segtrain.data.io.storage import is_directory, is_file, list_names, read_bytes
from segtrain.data.labels.mask_facts import pack, pack_colours
from segtrain.errors import DataError, NoFilesError

_LINE = re.compile(r"(?P<name>.+?):(?P<r>\d+),(?P<g>\d+),(?P<b>\d+)(:.*)?")
_MASK_ENDING = "_mask"
RGB = 3


@DATASETS.register("cvat")
class CvatDataset(ExportDataset):
    """CVAT's export "Segmentation mask 1.1", or any folder in the layout of Pascal VOC.

    ``labelmap.txt`` names the colour of each class, ``SegmentationClass`` holds the masks and
    ``ImageSets/Segmentation`` the names of the samples of each split. The images are in
    ``JPEGImages`` if the export was made with "Save images".

    Args:
        train: ``list``, the text file of names; ``images``, the folder of the images; None: as
            CVAT writes them.
        val: The same for the validation split.
        test: The same for the test split; None: there is no test split.
        **common: See :class:`~segtrain.data.datasets.exports.base.ExportDataset`.

    Raises:
        ConfigError: When the classes contradict ``labelmap.txt``.
        DataError: When files are missing, or a line of ``labelmap.txt`` is not valid.

    References:
        https://docs.cvat.ai/docs/dataset_management/formats/format-smask
    """

    tool = "an export of CVAT as Segmentation mask 1.1"
    keys = ("list", "images")
    layout = "it has no list of names in ImageSets/Segmentation"

    def read_values(self) -> dict[int, str]:
        path = self.root / "labelmap.txt"
        try:
            lines = read_bytes(path).decode("utf-8-sig").splitlines()
        except OSError:
            raise NoFilesError(
                f"{path} does not exist; an export of CVAT as Segmentation mask 1.1 has it"
            ) from None
        values: dict[int, str] = {}
        for number, line in enumerate(lines, start=1):
            if not line.strip() or line.startswith("#"):
                continue
            match = _LINE.fullmatch(line.strip())
            colour = tuple(int(match[key]) for key in "rgb") if match else (256,)
            if match is None or max(colour) > 255:
                raise DataError(f"{path}, line {number}: {line!r} is not label:red,green,blue::")
            if pack(colour) in values:
                raise DataError(
                    f"{path}, line {number}: {match['name']!r} has the colour of"
                    f" {values[pack(colour)]!r}; give each label its own in CVAT, and export again"
                )
            values[pack(colour)] = match["name"]
        return values

    def read_colours(self) -> dict[int, tuple[int, int, int]]:
        return {raw: (raw >> 16, raw >> 8 & 255, raw & 255) for raw in self.values}

    def find_section(self, split: str) -> dict[str, Any] | None:
        folder = "ImageSets/Segmentation"
        lists = [name for name in list_names(self.root / folder) if name.endswith(".txt")]
        found = [name for name in lists if Path(name).stem.lower() in SPLIT_NAMES[split]]
        named = {name for names in SPLIT_NAMES.values() for name in names}
        others = [name for name in lists if Path(name).stem.lower() not in named]
        if not found and split == "train" and len(others) == 1:  # default.txt
            found = others
        return {"list": f"{folder}/{found[0]}"} if found else None

    def missing_section(self) -> str:
        folder = "ImageSets/Segmentation"
        lists = [name for name in list_names(self.root / folder) if name.endswith(".txt")]
        if not lists:
            return self.layout
        return f"set dataset.{self.split}.list to {folder}/NAME; there are {', '.join(lists)}"

    def find(self) -> list[SampleFiles]:
        section = self.section()
        path = self.root / section["list"]
        try:
            names = read_bytes(path).decode("utf-8-sig").splitlines()
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror or error})") from None
        folder = self.root / section.get("images", "JPEGImages")
        if not is_directory(folder):
            raise NoFilesError(
                f"{folder} does not exist: the export has no images; export it again with Save"
                f" images, or set dataset.{self.split}.images to their folder and"
                f" dataset.{self.split}.list={section['list']}"
            )
        found, missing = [], []
        for name in (_without_ending(line.strip()) for line in names if line.strip()):
            image, mask = _any_image(folder, name), self.root / f"SegmentationClass/{name}.png"
            if image is None or not is_file(mask):
                absent = mask if image is not None else folder / f"{name}.*"
                missing.append(f"{absent}: the file does not exist, but {path} names it")
            else:
                found.append(SampleFiles(image, (mask,), name))
        self.keep_existing(found, missing)
        return found

    def mask_kind(self, index: int) -> str:
        return f"cvat {super().mask_kind(index)} {sorted(self.values)}"

    def read_mask(self, index: int) -> NDArray[Any]:
        """Return the mask as colours; one of a single channel holds positions in labelmap.txt."""
        path = self.files[index].mask
        raw = self.reader.mask(path)
        colours = replace(self.reader, channels=RGB, value_range=None).image(path)
        if raw.ndim == 3 or set(np.unique(pack_colours(colours)).tolist()) <= self.values.keys():
            return colours
        table = np.array(list(self.read_colours().values()), np.uint8)
        return table[raw] if int(raw.max(initial=0)) < len(table) else colours


@DATASETS.register("roboflow")
class RoboflowDataset(ExportDataset):
    """Roboflow's export "Semantic Segmentation Masks".

    Each split is a folder, ``train``, ``valid`` or ``test``, with images, masks ``*_mask.png`` and
    ``_classes.csv``, which names the classes.

    Args:
        train: ``folder``, the folder of the split; None: as Roboflow writes it.
        val: The same for the validation split.
        test: The same for the test split; None: there is no test split.
        **common: See :class:`~segtrain.data.datasets.exports.base.ExportDataset`.

    Raises:
        ConfigError: When the classes contradict ``_classes.csv``.
        DataError: When files are missing, or ``_classes.csv`` is not valid.
    """

    tool = "an export of Roboflow as Semantic Segmentation Masks"
    keys = ("folder",)
    layout = "it has no folder of its name with _classes.csv"

    def read_values(self) -> dict[int, str]:
        section = self.class_section()
        values = self._classes(section["folder"])
        own = self.sections[self.split] or self.find_section(self.split)
        if own is not None and self._classes(own["folder"]) != values:
            raise DataError(
                f"{self.root / own['folder'] / '_classes.csv'} has other classes than that of the"
                f" folder {section['folder']}; export both splits again at the same time"
            )
        return values

    def _classes(self, folder: str) -> dict[int, str]:
        path = self.root / folder / "_classes.csv"
        try:
            text = read_bytes(path).decode("utf-8-sig")
        except OSError:
            raise NoFilesError(f"{path}, which names the classes, does not exist") from None
        values: dict[int, str] = {}
        for row in csv.reader(io.StringIO(text)):
            words = [word.strip() for word in row]
            if len(words) >= 2 and words[0].isdecimal():
                values[int(words[0])] = ", ".join(words[1:])
            elif values or len(words) not in (0, 2):
                raise DataError(f"{path}: {','.join(row)!r} is not a pixel value and a class")
        if not values:
            raise DataError(f"{path} names no class")
        return values

    def find_section(self, split: str) -> dict[str, Any] | None:
        folder = self.split_folder(split)
        if folder is None and split == "train" and is_file(self.root / "_classes.csv"):
            folder = "."
        return None if folder is None else {"folder": folder}

    def find(self) -> list[SampleFiles]:
        folder = self.root / self.section()["folder"]
        found, missing = [], []
        names = [name for name in list_names(folder) if _is_image(name)]
        for name in names:
            stem = Path(name).stem
            if stem.endswith(_MASK_ENDING) and name.endswith(".png"):
                continue
            mask = folder / f"{stem}{_MASK_ENDING}.png"
            if is_file(mask):
                found.append(SampleFiles(folder / name, (mask,), stem))
            else:
                missing.append(f"{folder / name}: its mask {mask.name} does not exist")
        self.keep_existing(found, missing)
        return found


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")


def _without_ending(name: str) -> str:
    return str(Path(name).with_suffix("")) if Path(name).suffix.lower() in IMAGE_SUFFIXES else name


def _any_image(folder: Path, name: str) -> Path | None:
    """Return the image of this name with any ending."""
    paths: Sequence[Path] = [folder / f"{name}{ending}" for ending in _ENDINGS]
    return next((path for path in paths if is_file(path)), None)


_ENDINGS = (".jpg", ".png", ".jpeg", ".JPG", ".PNG", ".JPEG", *sorted(IMAGE_SUFFIXES))
