"""Files of labelme: one JSON file per image, beside it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from PIL import Image

from segtrain.data.dataset import DATASETS, SampleFiles
from segtrain.data.datasets.exports.base import SPLIT_NAMES, ObjectDataset, read_json
from segtrain.data.datasets.exports.classes import BACKGROUND
from segtrain.data.datasets.exports.objects import AnnotatedObject
from segtrain.data.io.raster import READ_ERRORS
from segtrain.data.io.storage import is_directory, is_file, read_bytes, stamp, walk
from segtrain.errors import DataError, NoFilesError, one_line
from segtrain.terminal import progress

_FORMAT = "a JSON file of labelme"
_BACKGROUND = "_background_"
_FLAT = ("point", "line", "linestrip", "points")
_ENDINGS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".bmp", ".tif", ".tiff", ".webp")
_ROOT = "."
_OTHERS = {*SPLIT_NAMES["val"], *SPLIT_NAMES["test"]}
_CIRCLE = 72  # corners
_CACHED = 1024
_USED = ("shapes", "imagePath", "imageHeight", "imageWidth")
_MANY = 200  # files that are read with a progress bar


@DATASETS.register("labelme")
class LabelmeDataset(ObjectDataset):
    """Shapes drawn with labelme, as one mask per image.

    Polygons, rectangles, circles and masks are drawn in the order of the file, so a later shape
    covers an earlier one. Points and lines cover no pixel. The classes are those in ``labels.txt``
    below `root`; without that file, the labels of all JSON files, sorted. Images without a JSON
    file are not used.

    Args:
        train: ``annotations``, the folder of the JSON files, which is searched recursively; None:
            ``train``, or, if there is no such folder, `root` without the folders of other splits.
        val: The same for the validation split.
        test: The same for the test split; None: there is no test split.
        **common: See :class:`~segtrain.data.datasets.exports.base.ObjectDataset`.

    Raises:
        ConfigError: When the classes contradict the labels.
        DataError: When an image is missing, or a file is not one of labelme.

    References:
        https://github.com/wkentaro/labelme
    """

    tool = "a folder of labelme"
    keys = ("annotations",)
    layout = "it holds no JSON file with shapes and imagePath"
    default_on_top = "later"

    def class_list(self) -> Sequence[str]:
        path = self.root / "labels.txt"
        if is_file(path):
            names = read_bytes(path).decode("utf-8-sig").split("\n")
            names = [name.strip() for name in names if name.strip()]
        else:
            names = sorted(self._labels())
        return [name for name in names if name not in (_BACKGROUND, BACKGROUND)]

    def _labels(self) -> set[str]:
        """Return the labels in all JSON files; they are only read for this."""
        sections = [section["annotations"] for section in self.sections.values() if section]
        folders = sections or [""]
        paths = [path for folder in folders for path in self._json_files(folder)]
        found = set()
        is_long = len(paths) > _MANY
        with progress("read the labels of labelme", len(paths), shown=is_long) as bar:
            for path in paths:
                shapes = _content(path)["shapes"]
                found |= {_label(shape, path) for shape in shapes if _has_area(shape)}
                bar.advance()
        return found

    def find_section(self, split: str) -> dict[str, Any] | None:
        folder = self.split_folder(split)
        if folder is None and split == "train" and self._json_files(""):
            folder = _ROOT
        return None if folder is None else {"annotations": folder}

    def _json_files(self, folder: str) -> list[Path]:
        base = self.root / Path(folder).expanduser()
        if not is_directory(base):
            raise NoFilesError(f"dataset.{self.split}.annotations={folder}: no folder {base}")
        found = sorted(path for path in walk(base) if path.suffix.lower() == ".json")
        return [path for path in found if "shapes" in _content(path)]

    def missing_section(self) -> str:
        has_files = self.split == "train" and bool(self._json_files(""))
        return "none of its JSON files has a shape" if has_files else self.layout

    def find(self) -> list[SampleFiles]:
        folder = self.section()["annotations"]
        paths = self._json_files(folder)
        if folder == _ROOT:  # other splits may be in folders below
            paths = [path for path in paths if path.relative_to(self.root).parts[0] not in _OTHERS]
        found, missing = [], []
        for path in paths:
            image = self._image(path)
            name = path.relative_to(self.root).with_suffix("").as_posix()
            if image is None:
                missing.append(
                    f"{path}: its image does not exist beside it; save it there (labelme's command"
                    " labelme_export_json writes it from the JSON file)"
                )
            else:
                found.append(SampleFiles(image, (path,), name))
        self.keep_existing(found, missing)
        return found

    def _image(self, path: Path) -> Path | None:
        given = PureWindowsPath(_content(path).get("imagePath") or "").as_posix()
        candidates = [path.parent / given, path.parent / Path(given).name]
        candidates += [path.with_suffix(ending) for ending in _ENDINGS]
        return next((image for image in candidates if is_file(image)), None)

    def size(self, index: int) -> tuple[int, int]:
        content = _content(self.files[index].mask)
        height, width = content.get("imageHeight"), content.get("imageWidth")
        return (int(height), int(width)) if height and width else super().size(index)

    def objects(self, index: int) -> list[AnnotatedObject]:
        path = self.files[index].mask
        found = []
        for number, shape in enumerate(_content(path)["shapes"], start=1):
            if not _has_area(shape):
                continue
            try:
                found.append(self._object(shape, path))
            except DataError:
                raise
            except READ_ERRORS as error:
                reason = f"it lacks {error}" if isinstance(error, KeyError) else one_line(error)
                raise DataError(f"{path}: shape {number} is not valid: {reason}") from None
        return found

    def _object(self, shape: Mapping[str, Any], path: Path) -> AnnotatedObject:
        label = _label(shape, path)
        value = self.value_of(BACKGROUND if label == _BACKGROUND else label, path)
        points = np.asarray(shape["points"], np.float64).reshape(-1, 2)
        kind = shape.get("shape_type") or "polygon"
        if kind == "mask":
            left, top = points[0].round().astype(int).tolist()
            return AnnotatedObject(value, pixels=(_mask(str(shape["mask"])), top, left))
        if kind == "rectangle":
            (left, top), (right, bottom) = points.min(0), points.max(0)
            points = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
        elif kind == "circle":
            if len(points) != 2:
                raise ValueError("a circle has a centre and a point on it")
            radius = np.hypot(*(points[1] - points[0]))
            angles = np.linspace(0, 2 * np.pi, _CIRCLE, endpoint=False)
            points = points[0] + radius * np.stack([np.cos(angles), np.sin(angles)], 1)
        elif kind not in ("polygon", "oriented_rectangle"):
            raise ValueError(f"shapes of the type {kind!r} are not known")
        if len(points) < 3:  # it covers no pixel
            return AnnotatedObject(value)
        return AnnotatedObject(value, polygons=[points.ravel().tolist()])


def _label(shape: Mapping[str, Any], path: Path) -> str:
    label = shape.get("label")
    if label is None:
        raise DataError(f"{path}: a shape has no label")
    return str(label)


def _has_area(shape: Mapping[str, Any]) -> bool:
    kind = shape.get("shape_type") or "polygon"
    return kind not in _FLAT


def _mask(text: str) -> np.ndarray[Any, Any]:
    """Decode the picture of a shape that was drawn as a mask."""
    with Image.open(io.BytesIO(base64.b64decode(text))) as picture:
        return np.asarray(picture)


def _content(path: Path) -> Mapping[str, Any]:
    try:
        return _parsed(path, tuple(stamp(path)))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from None


@lru_cache(maxsize=_CACHED)
def _parsed(path: Path, state: tuple[int, ...]) -> Mapping[str, Any]:
    """Return what is used of a file; the image in it, which may be large, is dropped."""
    del state
    content = read_json(path, _FORMAT)
    if not isinstance(content, dict) or "shapes" not in content:
        return {}  # the file of another program
    shapes = content["shapes"]
    if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
        raise DataError(f"{path} is not {_FORMAT}: shapes is not a list of objects")
    return {key: value for key, value in content.items() if key in _USED}
