"""One mask file per object, found by a template of paths."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any

from segtrain.data.dataset import DATASETS, SampleFiles
from segtrain.data.datasets.exports.mask_per_object import MaskPerObjectDataset
from segtrain.data.datasets.found_files import IMAGE_SUFFIXES
from segtrain.data.io.storage import is_directory, list_names, walk
from segtrain.errors import ConfigError, DataError, NoFilesError

_FIELDS = {"{image}": "[^/]+", "{class}": "[^/]+?", "{object}": "[^/]+?"}


@DATASETS.register("object_masks")
class ObjectMasksDataset(MaskPerObjectDataset):
    """Images whose objects have a mask file each, which is 0 outside of the object.

    Paths are templates below `root`: ``{image}`` is the name that an image and its masks share,
    ``{class}`` the class of an object, ``{object}`` and ``*`` any text without a slash. An image
    without a mask is background. Where objects overlap, the one with fewer pixels covers the other.

    Args:
        train: ``images`` and ``masks``, such as ``{image}/images/*.png`` and
            ``{image}/masks/*.png``, or ``images/{image}.jpg`` and
            ``masks/{image}/{class}_*.png``. Without ``{class}`` there is one class, ``object`` or
            the one that `class_names` has beside ``background``. None: ``{image}/images/*`` and
            ``{image}/masks/*``.
        val: The same for the validation split; None: a part of the training split is held back.
        test: The same for the test split; None: there is no test split.
        **common: See :class:`~segtrain.data.datasets.exports.base.ObjectDataset`.

    Raises:
        ConfigError: When a template lacks ``{image}``, or the classes contradict the files.
        DataError: When there are no files, or a mask belongs to no image.
    """

    tool = "a folder with a mask file per object"
    keys = ("images", "masks")
    layout = "set dataset.train.images and dataset.train.masks to templates with {image}"

    def class_list(self) -> Sequence[str]:
        section = self.class_section()
        self.check_section(section, self.keys, "a template with {image}", needed=2)
        if "{class}" not in section["masks"]:
            return [self.only_class()]
        found = [
            match["cls"]
            for given in self.sections.values()
            if given
            for _, match in self._matches(str(given["masks"]), None)
        ]
        return sorted(set(found))

    def find_section(self, split: str) -> dict[str, Any] | None:
        folders = [self.root / name for name in list_names(self.root)] if split == "train" else []
        if any(is_directory(path / "images") and is_directory(path / "masks") for path in folders):
            return {"images": "{image}/images/*", "masks": "{image}/masks/*"}
        return None

    def find(self) -> list[SampleFiles]:
        section = self.section()
        images: dict[str, Path] = {}
        for path, match in self._matches(str(section["images"]), None):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                if match["image"] in images:
                    raise DataError(
                        f"{path} and {images[match['image']]} have the same name"
                        f" {match['image']!r}; make the template dataset.{self.split}.images"
                        " longer, so that it matches one of them"
                    )
                images[match["image"]] = path
        masks = defaultdict(list)
        template = str(section["masks"])
        matched = set[Path]()
        for path, match in self._matches(template, images):
            matched.add(path)
            masks[match["image"]].append(path)
            groups = match.groupdict()
            self.classes_of[path] = groups.get("cls") or next(iter(self.raw_values))
        rest = [path for path, _ in self._matches(template, None) if path not in matched]
        if images and rest:
            raise DataError(
                f"{rest[0]} belongs to no image: {len(rest)} files match"
                f" dataset.{self.split}.masks={template}, but their {{image}} is not one of"
                f" dataset.{self.split}.images={section['images']}"
            )
        if not images or not masks:
            key, given = (
                ("images", section["images"]) if not images else ("masks", section["masks"])
            )
            raise NoFilesError(
                f"dataset.{self.split}.{key}={given}: no file below {self.root} matches"
            )
        return [
            SampleFiles(path, tuple(sorted(masks[name])) if masks[name] else (None,), name)
            for name, path in sorted(images.items())
        ]

    def _matches(
        self, template: str, images: Mapping[str, Path] | None
    ) -> Iterable[tuple[Path, re.Match[str]]]:
        """Yield the files that match a template; `images` are the names that it may hold."""
        if "{image}" not in template:
            raise ConfigError(
                f"dataset.{self.split}: {template!r} has no {{image}}, the name that an image and"
                " its masks share"
            )
        names = sorted(images or (), key=len, reverse=True)
        known = "|".join(map(re.escape, names)) if images else _FIELDS["{image}"]
        pattern = re.compile(_expression(template, known))
        fixed = takewhile(lambda part: not set("{*") & set(part), PurePosixPath(template).parts)
        base = self.root.joinpath(*fixed)
        for path in sorted(walk(base)) if is_directory(base) else ():
            match = pattern.fullmatch(path.relative_to(self.root).as_posix())
            if match is not None:
                yield path, match


def _expression(template: str, image: str) -> str:
    found = ""
    for part in re.split(r"(\*\*/|\*|\{\w+\})", template):
        if part == "{image}":
            found += "(?P=image)" if "(?P<image>" in found else f"(?P<image>{image})"
        elif part == "{class}":
            found += f"(?P<cls>{_FIELDS[part]})"
        elif part in _FIELDS:
            found += _FIELDS[part]
        else:
            found += {"**/": "(?:.*/)?", "*": "[^/]*"}.get(part, re.escape(part))
    return found
