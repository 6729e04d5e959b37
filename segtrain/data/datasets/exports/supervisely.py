"""Projects of Supervisely: a JSON file per image, and the classes in meta.json."""

from __future__ import annotations

import base64
import contextlib
import io
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segtrain.data.dataset import DATASETS, SampleFiles
from segtrain.data.datasets.exports.base import SPLIT_NAMES, ObjectDataset, read_json
from segtrain.data.datasets.exports.classes import BACKGROUND
from segtrain.data.datasets.exports.objects import AnnotatedObject
from segtrain.data.io.raster import READ_ERRORS
from segtrain.data.io.storage import is_file, list_names, walk
from segtrain.errors import DataError, NoFilesError, one_line

_FORMAT = "an annotation of Supervisely"
_CORNERS = 3
_BYTES_PER_PIXEL = 4
_MOST = 1 << 30  # bytes of a decompressed bitmap
_FLAT = ("point", "line", "graph", "cuboid", "cuboid_2d")


@DATASETS.register("supervisely")
class SuperviselyDataset(ObjectDataset):
    """A project of Supervisely, downloaded with its images.

    ``meta.json`` names the classes. Each folder with ``img`` and ``ann`` is a dataset of the
    project; those named ``train``, ``val`` and ``test`` are splits, and without such names all are
    the training split. Bitmaps, polygons with their holes, and rectangles are drawn in the order of
    the file, so a later object covers an earlier one. Points and lines cover no pixel.

    Args:
        train: ``datasets``, a list of folders; None: as above.
        val: The same for the validation split.
        test: The same for the test split; None: there is no test split.
        **common: See :class:`~segtrain.data.datasets.exports.base.ObjectDataset`.

    Raises:
        ConfigError: When the classes contradict ``meta.json``.
        DataError: When files are missing, or an annotation is not valid.

    References:
        https://docs.supervisely.com/customization-and-integration/00_ann_format_navi
    """

    tool = "a project of Supervisely"
    keys = ("datasets",)
    layout = "it has no folder with img and ann"
    default_on_top = "later"

    def _classes(self) -> list[tuple[str, str]]:
        path = self.root / "meta.json"
        if not is_file(path):
            raise NoFilesError(f"{path} does not exist; a project of Supervisely has it")
        try:
            return [
                (str(entry["title"]), str(entry.get("color", "")))
                for entry in read_json(path, "the meta.json of a project of Supervisely")["classes"]
            ]
        except (KeyError, TypeError) as error:
            raise DataError(f"{path} has no classes with titles ({error})") from None

    def class_list(self) -> Sequence[str]:
        return [name for name, _ in self._classes() if name != BACKGROUND]

    def read_colours(self) -> dict[int, tuple[int, int, int]]:
        found = {0: (0, 0, 0)}
        for name, colour in self._classes():
            if name in self.raw_values and len(colour) == 7:
                with contextlib.suppress(ValueError):  # colours are for drawing only
                    red, green, blue = bytes.fromhex(colour[1:])
                    found[self.raw_values[name]] = (red, green, blue)
        return found

    def find_section(self, split: str) -> dict[str, Any] | None:
        folders = self._folders()
        found = [name for name in folders if name.split("/")[0].lower() in SPLIT_NAMES[split]]
        named = {name for names in SPLIT_NAMES.values() for name in names}
        if split == "train" and not found:
            found = [name for name in folders if name.split("/")[0].lower() not in named]
        return {"datasets": found} if found else None

    def _folders(self) -> list[str]:
        """Return the datasets of the project; one may be inside of another one."""
        found = {
            path.parent.parent.relative_to(self.root).as_posix()
            for path in walk(self.root)
            if path.parent.name == "ann" and path.suffix == ".json"
        }
        return sorted(found)

    def find(self) -> list[SampleFiles]:
        found, missing = [], []
        for folder in self.section()["datasets"]:
            base = self.root / folder
            for name in filter(_is_annotation, list_names(base / "ann")):
                image, path = base / "img" / name.removesuffix(".json"), base / "ann" / name
                if not is_file(image):
                    missing.append(f"{image}: the image does not exist, but {path} annotates it")
                else:
                    stem = Path(image.name).with_suffix("").as_posix()
                    found.append(SampleFiles(image, (path,), f"{folder}/{stem}"))
        used = {*self.section()["datasets"], *self._of_splits()}
        if others := sorted(set(self._folders()) - used):
            self.notes.append(f"folders that belong to no split are not used: {', '.join(others)}")
        self.keep_existing(found, missing)
        return found

    def _of_splits(self) -> list[str]:
        sections = [self.sections[split] or self.find_section(split) for split in SPLIT_NAMES]
        return [folder for section in sections if section for folder in section["datasets"]]

    def size(self, index: int) -> tuple[int, int]:
        path = self.files[index].mask
        try:
            size = read_json(path, _FORMAT)["size"]
            return int(size["height"]), int(size["width"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} is not {_FORMAT}: it has no size ({error})") from None

    def objects(self, index: int) -> list[AnnotatedObject]:
        path = self.files[index].mask
        content = read_json(path, _FORMAT)
        if not isinstance(content, dict):
            raise DataError(f"{path} is not {_FORMAT}: it is not an object with size and objects")
        found = []
        for number, entry in enumerate(content.get("objects") or (), start=1):
            try:
                item = self._object(entry, path)
            except DataError:
                raise
            except (AttributeError, *READ_ERRORS, zlib.error) as error:
                reason = f"it lacks {error}" if isinstance(error, KeyError) else one_line(error)
                raise DataError(f"{path}: object {number} is not valid: {reason}") from None
            found += [] if item is None else [item]
        return found

    def _object(self, entry: Mapping[str, Any], path: Path) -> AnnotatedObject | None:
        value = self.value_of(str(entry["classTitle"]), path)
        kind = entry["geometryType"]
        if kind in _FLAT:
            return None
        if kind == "bitmap":
            left, top = (int(place) for place in entry["bitmap"]["origin"])
            return AnnotatedObject(value, pixels=(_bitmap(entry["bitmap"]["data"]), top, left))
        points = [_outline(hole) for hole in entry["points"]["interior"] if len(hole) >= _CORNERS]
        outline = np.asarray(entry["points"]["exterior"], np.float64).reshape(-1, 2)
        if kind == "rectangle" and len(outline) != 2:
            raise ValueError("a rectangle has two corners")
        if kind == "polygon" and len(outline) < _CORNERS:  # it covers no pixel
            return None
        if kind == "rectangle":  # of pixels, the corners included
            (left, top), (right, bottom) = outline.min(0), outline.max(0) + 1
            corners = [left, top, right, top, right, bottom, left, bottom]
            return AnnotatedObject(value, polygons=[corners])
        if kind != "polygon":
            raise ValueError(f"objects of the type {kind!r} are not known")
        return AnnotatedObject(value, polygons=[_outline(outline)], holes=points)


def _is_annotation(name: str) -> bool:
    return name.endswith(".json") and not name.startswith(".")


def _outline(points: Any) -> list[float]:
    """Return an outline through the centres of pixels, as Supervisely counts them."""
    corners: list[float] = (np.asarray(points, np.float64) + 0.5).ravel().tolist()
    return corners


def _bitmap(text: str) -> NDArray[Any]:
    """Decode a bitmap: base64 of zlib of a PNG file, whose last channel is the object."""
    stream = zlib.decompressobj()
    data = stream.decompress(base64.b64decode(text), _MOST)
    with Image.open(io.BytesIO(data)) as picture:
        pixels = np.asarray(picture.convert("RGBA") if picture.mode == "P" else picture)
    if pixels.ndim == 3:
        pixels = pixels[..., -1] if pixels.shape[2] == _BYTES_PER_PIXEL else pixels.max(2)
    return pixels
