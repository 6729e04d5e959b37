"""Brush masks of Label Studio: one mask file per class and annotation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from segtrain.data.dataset import DATASETS, SampleFiles
from segtrain.data.datasets.exports.base import read_json
from segtrain.data.datasets.exports.mask_per_object import MaskPerObjectDataset
from segtrain.data.datasets.found_files import IMAGE_SUFFIXES
from segtrain.data.io.storage import is_directory, list_names
from segtrain.errors import DataError, NoFilesError

_BRUSH = re.compile(
    r"task-(?P<task>\d+)-annotation-(?P<annotation>\d+)-by-(?P<rest>.+)-(?P<number>\d+)\.png"
)
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?P<name>.+)")
_SECTION = ("tasks", "masks", "images")


@DATASETS.register("label_studio")
class LabelStudioDataset(MaskPerObjectDataset):
    """Label Studio's export "Brush labels to NumPy and PNG", with the tasks exported as JSON.

    The names of the PNG files hold the number of a task, and the JSON export holds the image of
    each task. The prefix of eight digits and letters that an upload adds to the name of an image
    may be missing. If a task has several annotations, the last one counts. Where brushes overlap,
    the one with fewer pixels covers the other.

    Args:
        train: ``tasks``, the JSON export; ``masks``, the folder of the PNG files; ``images``, the
            folder of the images. None: they are searched for in `root`.
        val: The same for the validation split; None: a part of the training split is held back.
        test: The same for the test split; None: there is no test split.
        **common: See :class:`~segtrain.data.datasets.exports.base.ObjectDataset`.

    Raises:
        ConfigError: When the classes contradict the names of the masks.
        DataError: When files are missing, or a mask belongs to no task.

    References:
        https://labelstud.io/guide/export
    """

    tool = "an export of Label Studio as brush masks"
    keys = _SECTION
    layout = "it has no files task-*-annotation-*-by-*.png"

    def find_section(self, split: str) -> dict[str, Any] | None:
        if split != "train":
            return None
        folders = ["", *(name for name in list_names(self.root) if is_directory(self.root / name))]
        held = {folder: list_names(self.root / folder) for folder in folders}
        masks = [folder for folder, names in held.items() if any(map(_BRUSH.fullmatch, names))]
        if not masks:
            return None
        tasks = [
            str(PurePosixPath(folder, name))
            for folder, names in held.items()
            for name in names
            if name.endswith(".json")
        ]
        images = [
            folder
            for folder, names in held.items()
            if folder not in masks and any(_is_image(name) for name in names)
        ]
        found = {"masks": masks[0], "tasks": tasks[:1], "images": (images or masks)[:1]}
        return {key: value[0] if isinstance(value, list) and value else value
                for key, value in found.items() if value or key == "masks"}  # fmt: skip

    def class_list(self) -> Sequence[str]:
        section = self.class_section()
        return sorted({name for *_, name in self._brushes(section)})

    def _tasks(self, section: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        if not section.get("tasks"):
            raise NoFilesError(
                f"dataset.root={self.root} has the brush masks of Label Studio, but not its export"
                " as JSON, which has the image of each task; export the project as JSON as well,"
                f" into the same folder, or set dataset.{self.split}.tasks"
            )
        path = self.root / section["tasks"]
        tasks = read_json(path, "an export of Label Studio as JSON")
        if not isinstance(tasks, list) or not all(
            isinstance(task, dict) and isinstance(task.get("id"), int) for task in tasks
        ):
            raise DataError(
                f"{path} is not an export of Label Studio as JSON: no list of tasks with id"
            )
        return tasks

    def _brushes(self, section: Mapping[str, Any]) -> list[tuple[Path, int, int, str]]:
        """Return the mask files, each with its task, its annotation and its class."""
        tags = sorted(_tags(self._tasks(section)), key=len, reverse=True)
        folder = self.root / section.get("masks", "")
        found = []
        for name in list_names(folder):
            match = _BRUSH.fullmatch(name)
            if match is None:
                continue
            label = _label(match["rest"], tags)
            found.append((folder / name, int(match["task"]), int(match["annotation"]), label))
        return found

    def find(self) -> list[SampleFiles]:
        section = self.section()
        tasks = {int(task["id"]): task for task in self._tasks(section)}
        brushes: dict[int, dict[int, list[Path]]] = {
            number: {last: []}
            for number, task in tasks.items()
            for last, results in _annotations(task)[-1:]
            if not results  # an image without an object has no mask file
        }
        for path, task, annotation, label in self._brushes(section):
            if task not in tasks:
                raise DataError(
                    f"{path}: task {task} is not in {section['tasks']}; export masks and JSON again"
                    " at the same time"
                )
            brushes.setdefault(task, {}).setdefault(annotation, []).append(path)
            self.classes_of[path] = label
        return self._samples(section, tasks, brushes)

    def _samples(
        self,
        section: Mapping[str, Any],
        tasks: Mapping[int, Mapping[str, Any]],
        brushes: Mapping[int, Mapping[int, list[Path]]],
    ) -> list[SampleFiles]:
        folder = self.root / section.get("images", "")
        known = _by_plain_name(folder)
        found, missing, used = [], [], dict[Path, int]()
        for task, versions in sorted(brushes.items()):
            name = _image_name(tasks[task])
            image = known.get(name) or known.get(_plain(name))
            if image is None:
                missing.append(f"{folder / name}: no such image, but task {task} has it")
                continue
            if image in used:
                raise DataError(
                    f"tasks {used[image]} and {task} both have the image {image}; keep the names"
                    " that Label Studio gave to the images, with their prefixes"
                )
            used[image] = task
            last = tuple(sorted(versions[max(versions)])) or (None,)
            found.append(SampleFiles(image, last, image.stem))
        several = sum(len(versions) > 1 for versions in brushes.values())
        if several:
            self.notes.append(f"{several} tasks have several annotations, of which the last counts")
        self.keep_existing(found, missing)
        return found


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def _by_plain_name(folder: Path) -> dict[str, Path]:
    """Return the images of a folder by their name, and by their name without upload prefix."""
    found: dict[str, Path] = {}
    for name in list_names(folder):
        if _is_image(name) and not _BRUSH.fullmatch(name):
            found.setdefault(_plain(name), folder / name)
            found[name] = folder / name
    return found


def _plain(name: str) -> str:
    match = _UPLOADED.fullmatch(name)
    return match["name"] if match else name


def _image_name(task: Mapping[str, Any]) -> str:
    """Return the file name in the data of a task: the only text there with such an ending."""
    data = task.get("data", task)
    texts = [str(value) for value in data.values() if isinstance(value, str)]
    names = [PurePosixPath(unquote(text.split("?d=")[-1].split("?")[0])).name for text in texts]
    return next((name for name in names if _is_image(name)), "")


def _annotations(task: Mapping[str, Any]) -> list[tuple[int, Any]]:
    """Return number and results of the annotations of a task that were not cancelled, in order."""
    entries = task.get("annotations") or ()
    return sorted(
        ((int(entry["id"]), entry.get("result")) for entry in entries if _counts(entry)),
        key=lambda pair: pair[0],
    )


def _counts(entry: Any) -> bool:
    return isinstance(entry, dict) and "id" in entry and not entry.get("was_cancelled")


def _tags(tasks: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return the names of the brush controls in the labelling configuration of a project.

    JSON-MIN, the shorter export, has them as keys of a task.
    """
    return {
        str(result["from_name"])
        for task in tasks
        for annotation in task.get("annotations") or ()
        for result in annotation.get("result") or ()
        if isinstance(result, dict) and result.get("from_name")
    } | {
        key
        for task in tasks
        for key, value in task.items()
        if isinstance(value, list)
        if any(isinstance(part, dict) and "brushlabels" in part for part in value)
    }


def _label(rest: str, tags: Sequence[str]) -> str:
    """Return the class in the part of a name after ``by-``: user, control and class."""
    for tag in tags:
        _, found, label = rest.partition(f"-{tag}-")
        if found:
            return label
    return rest.split("-", 2)[-1]
