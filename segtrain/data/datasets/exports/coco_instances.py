"""COCO's format of instances: one JSON file per split, with polygons and run lengths."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

from segtrain.data.dataset import DATASETS, SampleFiles
from segtrain.data.datasets.exports.base import SPLIT_NAMES, ObjectDataset, Section, read_json
from segtrain.data.datasets.exports.objects import AnnotatedObject
from segtrain.data.io.storage import is_directory, is_file, list_names, stamp
from segtrain.errors import DataError, one_line

_FORMAT = "a file of COCO's instances"
_FOLDERS = ("annotations", "")
_OTHER_FILES = ("person_keypoints", "captions", "image_info", "stuff", "panoptic")
_IMAGE_FOLDERS = ("", "images", "images/{}", "{}", "{}2017", "data", "JPEGImages")
_Image = tuple[int, int, list[Mapping[str, Any]]]


class _Coco(NamedTuple):
    """The parts of a JSON file that are used."""

    path: Path
    images: list[Mapping[str, Any]]
    annotations: dict[Any, list[Mapping[str, Any]]]
    categories: dict[Any, str]


@DATASETS.register("coco_instances")
class CocoInstancesDataset(ObjectDataset):
    """Objects in COCO's format of instances, as one mask of categories per image.

    Files of COCO, CVAT, Roboflow, Label Studio, Datumaro and FiftyOne are found by their usual
    names. An image without an annotation is background. Crowd regions belong to their category.
    Where objects overlap, the one with fewer pixels covers the other.

    Args:
        train: ``annotations``, the JSON file, and ``images``, the folder that the names of the
            images start from; None: they are searched for below `root`.
        val: The same for the validation split.
        test: The same for the test split; None: there is no test split.
        **common: See :class:`~segtrain.data.datasets.exports.base.ObjectDataset`.

    Raises:
        ConfigError: When the classes contradict the categories.
        DataError: When files are missing, or the JSON file does not have this format.

    References:
        Lin et al.: Microsoft COCO: Common Objects in Context. ECCV 2014. The format is described at
        https://cocodataset.org/#format-data.
    """

    tool = "a dataset in COCO's format of instances"
    keys = ("annotations", "images")
    layout = "it holds no JSON file with images, annotations and categories"

    def class_list(self) -> Sequence[str]:
        sections: list[Section | None] = [self.class_section()]
        sections += [self.sections[split] or self.find_section(split) for split in ("val", "test")]
        return list(
            dict.fromkeys(
                name
                for section in sections
                if section
                for name in self._read(section).categories.values()
            )
        )

    def find_section(self, split: str) -> dict[str, Any] | None:
        found = [path for path in self._json_files() if _split_of(path, self.root) == split]
        if not found and split == "train":  # a tool without splits writes one file
            others = [path for path in self._json_files() if _split_of(path, self.root) is None]
            found = others if len(others) == 1 else []
        if len(found) > 1:
            raise DataError(
                f"{found[0]} and {found[1].relative_to(self.root)} are both of the {split} split;"
                f" set dataset.{split}.annotations to one, or merge them"
            )
        return {"annotations": str(found[0].relative_to(self.root))} if found else None

    def missing_section(self) -> str:
        found = [str(path.relative_to(self.root)) for path in self._json_files()]
        if not found:
            return self.layout
        return (
            f"set dataset.{self.split}.annotations to one of its JSON files, {', '.join(found[:5])}"
        )

    def _json_files(self) -> list[Path]:
        found = self._all_json_files()
        instances = [path for path in found if path.name.startswith("instances")]
        return instances or found

    def _all_json_files(self) -> list[Path]:
        folders = [self.root / folder for folder in _FOLDERS]
        folders += [self.root / name for names in SPLIT_NAMES.values() for name in names]
        return [
            folder / name
            for folder in folders
            for name in list_names(folder)
            if name.endswith(".json") and not name.startswith(_OTHER_FILES)
        ]

    def _read(self, section: Mapping[str, Any]) -> _Coco:
        path = self.root / Path(str(section["annotations"])).expanduser()
        try:
            return _parse(path, tuple(stamp(path)))
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror or error})") from None

    def find(self) -> list[SampleFiles]:
        section = self.section()
        content = self._read(section)
        folder = self._image_folder(section, content)
        if self.split == "train" and not content.annotations:
            raise DataError(f"{content.path} has no annotations, so there is nothing to learn")
        self._categories, self._annotated = content.categories, dict[str, _Image]()
        found, missing = [], []
        for entry in content.images:
            try:
                given = _plain(str(entry["file_name"]))
                facts = int(entry["height"]), int(entry["width"])
                objects = content.annotations.get(str(entry["id"]), [])
            except (KeyError, TypeError, ValueError):
                raise DataError(
                    f"{content.path} is not {_FORMAT}: the image {one_line(entry, 80)} needs id,"
                    " file_name, height and width"
                ) from None
            image, name = folder / given, Path(given).with_suffix("").as_posix()
            if name in self._annotated:
                raise DataError(f"{content.path} names the image {name!r} twice; remove one")
            if not is_file(image):
                missing.append(f"{image}: the file does not exist, but {content.path} names it")
                continue
            self._annotated[name] = (*facts, objects)
            found.append(SampleFiles(image, (content.path,), name))
        self.keep_existing(found, missing)
        return sorted(found, key=lambda files: files.name)

    def _image_folder(self, section: Mapping[str, Any], content: _Coco) -> Path:
        """Return the folder that the names of the images start from."""
        if section.get("images"):
            return self.root / Path(str(section["images"])).expanduser()
        names = [_plain(str(entry.get("file_name"))) for entry in content.images[:1]]
        split = next(
            (word for word in SPLIT_NAMES[self.split] if word in content.path.as_posix()),
            self.split,
        )
        bases = [content.path.parent, self.root]
        folders = [base / sub.format(split) for base in bases for sub in _IMAGE_FOLDERS]
        folders = [folder for folder in folders if is_directory(folder)]
        for folder in folders:
            if all(is_file(folder / name) for name in names):
                return folder
        raise DataError(
            f"{content.path} names the image {''.join(names)}, which is in none of"
            f" {', '.join(map(str, dict.fromkeys(folders)))}; set dataset.{self.split}.images to"
            f" its folder, and dataset.{self.split}.annotations={section['annotations']}"
        )

    def size(self, index: int) -> tuple[int, int]:
        height, width, _ = self._annotated[self.files[index].name]
        return height, width

    def objects(self, index: int) -> list[AnnotatedObject]:
        files = self.files[index]
        found = []
        for entry in self._annotated[files.name][2]:
            try:
                category = self._categories[str(entry["category_id"])]
                value = self.value_of(category, files.mask)
                item = self._object(entry, value, self.size(index))
            except DataError:
                raise
            except (KeyError, TypeError, ValueError) as error:
                key = f"there is no {error}" if isinstance(error, KeyError) else one_line(error)
                raise DataError(
                    f"{files.mask}: annotation {entry.get('id')} of the image {files.name} is not"
                    f" valid: {key}"
                ) from None
            found += [] if item is None else [item]
        return found

    def _object(
        self, entry: Mapping[str, Any], value: int, size: tuple[int, int]
    ) -> AnnotatedObject | None:
        shape = entry.get("segmentation")
        if isinstance(shape, Mapping):
            if list(shape["size"]) != [*size] or not isinstance(shape["counts"], (str, list)):
                raise ValueError(
                    f"its run lengths are of an image of {shape['size']} pixels, not {[*size]}"
                )
            return AnnotatedObject(value, rle=shape["counts"])
        if shape and all(isinstance(number, (int, float)) for number in shape):
            shape = [shape]  # a polygon that is not in a list
        if not shape or not all(shape):
            raise ValueError("it has no segmentation; export polygons or masks, not boxes")
        if all(len(outline) == 2 for outline in shape) or isinstance(shape[0][0], Sequence):
            raise ValueError("an outline must be one list x, y, x, y, ..., not a list of points")
        polygons = [outline for outline in shape if len(outline) >= 6]
        # An outline of two points covers no pixel.
        return AnnotatedObject(value, polygons=polygons) if polygons else None


@lru_cache(maxsize=3)
def _parse(path: Path, state: tuple[int, ...]) -> _Coco:
    """Read a JSON file; the last ones are kept, as each split needs the classes of all."""
    del state
    content = read_json(path, _FORMAT)
    try:
        by_image = defaultdict(list)
        for entry in content["annotations"]:
            by_image[str(entry["image_id"])].append(entry)
        ordered = sorted(content["categories"], key=lambda entry: int(entry["id"]))
        used = {str(entry["category_id"]) for entry in content["annotations"]}
        names = {
            str(entry["id"]): str(entry["name"])
            for entry in ordered
            if str(entry["id"]) in used or not _is_group(entry, ordered)
        }
        found = _Coco(path, list(content["images"]), dict(by_image), names)
        ids = [str(entry["id"]) for entry in found.images]
    except (KeyError, TypeError, ValueError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else one_line(error)
        raise DataError(f"{path} is not {_FORMAT}: {reason}") from None
    _check_ids(found, ids, [entry["name"] for entry in ordered])
    return found


def _check_ids(content: _Coco, ids: Sequence[str], names: Sequence[Any]) -> None:
    """Check that annotations belong to one image each, and that there are some."""
    twice = len(ids) - len(set(ids))
    unknown = content.annotations.keys() - set(ids)
    if twice:
        raise DataError(f"{content.path}: {twice} images have the id of another one")
    if unknown:
        raise DataError(
            f"{content.path}: annotations belong to images that it does not list, such as image_id"
            f" {min(unknown)}"
        )
    if None in names:
        raise DataError(f"{content.path}: a category has no name")


def _plain(name: str) -> str:
    """Return the name of an image with slashes, and relative if it is absolute."""
    path = PureWindowsPath(name)
    return path.name if path.is_absolute() or name.startswith("/") else path.as_posix()


def _is_group(entry: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a category is only the group of others, as the first one that Roboflow writes."""
    return any(other.get("supercategory") == entry["name"] for other in others if other != entry)


def _split_of(path: Path, root: Path) -> str | None:
    """The split that a JSON file names in its name or its folder."""
    text = path.relative_to(root).with_suffix("").as_posix().lower()
    words = text.replace("/", "_").replace(".", "_").replace("-", "_").split("_")
    found = [split for split, names in SPLIT_NAMES.items() if set(names) & set(words)]
    return found[0] if found else None
