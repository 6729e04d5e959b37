"""Ultralytics' format of segmentation: one text file of outlines per image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml

from segtrain.data.dataset import DATASETS, SampleFiles
from segtrain.data.datasets.exports.base import SPLIT_NAMES, ObjectDataset
from segtrain.data.datasets.exports.objects import AnnotatedObject
from segtrain.data.datasets.found_files import IMAGE_SUFFIXES, find_files
from segtrain.data.io.storage import is_directory, is_file, list_names, read_bytes
from segtrain.errors import DataError, NoFilesError, one_line
from segtrain.foreign import parse_yaml

_BOX, _CORNERS = 4, 6
_YAML = (".yaml", ".yml")


@DATASETS.register("yolo")
class YoloDataset(ObjectDataset):
    """Outlines in text files, as Ultralytics' YOLO reads them for segmentation.

    ``data.yaml`` names the classes and the folders of the splits. A line of a label file holds the
    number of a class and the corners of an outline as shares of width and height. An image without
    a label file is background. Where objects overlap, the one with fewer pixels covers the other,
    as in Ultralytics' masks.

    Args:
        train: ``images``, a folder, a glob, a list of them, or a text file of paths; None: as in
            ``data.yaml``.
        val: The same for the validation split.
        test: The same for the test split; None: there is no test split.
        **common: See :class:`~segtrain.data.datasets.exports.base.ObjectDataset`.

    Raises:
        ConfigError: When the classes contradict ``data.yaml``.
        DataError: When files are missing, or a line is not an outline.

    References:
        https://docs.ultralytics.com/datasets/segment/
    """

    tool = "a YOLO dataset for segmentation"
    keys = ("images",)
    layout = "data.yaml names no folder for it, and there is no folder of its name"
    masks_have_sizes = False  # corners are shares of the image

    def class_list(self) -> Sequence[str]:
        content = self._content()
        if content.get("kpt_shape"):
            raise DataError(
                f"{self._yaml()} has kpt_shape: it is a dataset of keypoints, not of outlines"
            )
        names = content.get("names")
        names = dict(enumerate(names)) if isinstance(names, list) else names
        if not isinstance(names, dict) or not names:
            raise DataError(f"{self._yaml()} has no names of classes")
        for number, name in names.items():
            if not isinstance(number, int) or name is None or isinstance(name, bool):
                raise DataError(
                    f"{self._yaml()}: names has {number}: {name}, but a whole number and a name in"
                    " quotes are needed"
                )
        self._names = {number: str(names[number]) for number in sorted(names)}
        return list(self._names.values())

    def _yaml(self) -> Path:
        found = [name for name in list_names(self.root) if name.lower().endswith(_YAML)]
        first = [name for name in found if Path(name).stem == "data"] or found
        if not first:
            raise NoFilesError(
                f"dataset.root={self.root} has no data.yaml, which names the classes of a YOLO"
                " dataset"
            )
        return self.root / first[0]

    def _content(self) -> dict[str, Any]:
        path = self._yaml()
        try:
            content = parse_yaml(read_bytes(path))
        except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
            raise DataError(f"{path} cannot be read: {one_line(error)}") from None
        if not isinstance(content, dict):
            raise DataError(f"{path} is not the data.yaml of a YOLO dataset")
        return content

    def find_section(self, split: str) -> dict[str, Any] | None:
        content = self._content()
        given = next((content[name] for name in SPLIT_NAMES[split] if content.get(name)), None)
        places = [] if given is None else given if isinstance(given, list) else [given]
        found = [self._place(place) for place in places]
        if found and None not in found:
            return {"images": found}
        folder = self.split_folder(split, "images") or self.split_folder(split)
        if folder is not None and len(places) < 2:
            return {"images": [folder]}
        if places:
            raise DataError(
                f"{self._yaml()}: {split} is {given}, which does not exist below {self.root};"
                f" correct it, or set dataset.{split}.images"
            )
        return None

    def _place(self, given: Any) -> str | None:
        """Return a place in ``data.yaml`` relative to the root; None: it does not exist.

        Roboflow writes ``../train/images`` for ``train/images``, and ``path`` is often the folder
        of another machine.
        """
        words = str(given).replace("\\", "/")
        plain = "/".join(part for part in words.split("/") if part not in ("..", "."))
        base = str(self._content().get("path") or "")
        for candidate in (plain, f"{base}/{plain}".lstrip("/"), words):
            path = self.root / candidate
            if is_directory(path) or is_file(path):
                return candidate
        return None

    def find(self) -> list[SampleFiles]:
        places = self.section()["images"]
        images: dict[Path, str] = {}
        for place in [places] if isinstance(places, str) else places:
            images |= self._images(place)
        found = [
            SampleFiles(image, (label,) if label is not None else (image,), name)
            for image, name in sorted(images.items())
            for label in [_label_file(image)]
        ]
        if self.split == "train" and all(files.mask == files.image for files in found):
            raise NoFilesError(
                f"no image of {places} has a label file; YOLO's are {_label_path(found[0].image)}"
                " and so on"
            )
        self._note_unused(found)
        return found

    def _note_unused(self, found: Sequence[SampleFiles]) -> None:
        """Note label files that belong to no image, such as those with another name."""
        used = {files.mask for files in found}
        folders = {mask.parent for mask in used if mask.suffix == ".txt"}
        unused = [
            folder / name
            for folder in sorted(folders)
            for name in list_names(folder)
            if name.endswith(".txt") and folder / name not in used
        ]
        if unused:
            self.notes.append(f"{len(unused)} label files have no image, such as {unused[0]}")

    def _images(self, place: str) -> dict[Path, str]:
        path = self.root / place
        if not is_file(path) or path.suffix.lower() != ".txt":
            return dict(find_files(self.root, place, f"dataset.{self.split}.images"))
        lines = read_bytes(path).decode("utf-8-sig", "surrogateescape").splitlines()
        names = [line.strip().removeprefix("./") for line in lines if line.strip()]
        found = {}
        for name in names:
            image = next(filter(is_file, self._candidates(name, path.parent)), None)
            if image is None:
                raise DataError(f"{path} names {name}, which does not exist below {self.root}")
            found[image] = Path(name).with_suffix("").as_posix()
        return found

    def _candidates(self, name: str, folder: Path) -> Iterator[Path]:
        """Yield where an image of a list may be; the list may be from another machine."""
        parts = PureWindowsPath(name).parts
        for start in range(len(parts)):
            for base in (self.root, folder):
                yield base.joinpath(*parts[start:])

    def objects(self, index: int) -> list[AnnotatedObject]:
        files = self.files[index]
        if files.mask.suffix.lower() in IMAGE_SUFFIXES:
            return []
        height, width = self.size(index)
        try:
            text = read_bytes(files.mask).decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{files.mask} cannot be read: {one_line(error)}") from None
        return [
            self._object(line, f"{files.mask}, line {number}", height, width)
            for number, line in enumerate(text.splitlines(), start=1)
            if line.strip()
        ]

    def _object(self, line: str, position: str, height: int, width: int) -> AnnotatedObject:
        try:
            number, *shares = (float(word) for word in line.split())
        except ValueError:
            raise DataError(f"{position}: {line[:60]!r} is not a row of numbers") from None
        if len(shares) == _BOX:
            raise DataError(
                f"{position}: it is a box of detection, not an outline; export the labels for"
                " segmentation"
            )
        if len(shares) < _CORNERS or len(shares) % 2:
            raise DataError(f"{position}: {len(shares)} numbers after the class are not an outline")
        if not all(-0.5 <= share <= 1.5 for share in shares):
            raise DataError(
                f"{position}: corners must be shares of width and height, from 0 to 1, but it"
                f" holds {max(shares, key=abs):g}"
            )
        if number not in self._names:
            raise DataError(
                f"{position}: class {number:g}, but data.yaml has the classes"
                f" {', '.join(map(str, self._names))}"
            )
        outline = [share * (width, height)[place % 2] for place, share in enumerate(shares)]
        value = self.value_of(self._names[int(number)], Path(position))
        return AnnotatedObject(value, polygons=[outline])


def _label_path(image: Path) -> Path:
    """The label file of an image: ``labels`` in place of the last ``images``."""
    parts = list(image.with_suffix(".txt").parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts)


def _label_file(image: Path) -> Path | None:
    paths = (_label_path(image), image.with_suffix(".txt"))
    return next((path for path in paths if is_file(path)), None)
