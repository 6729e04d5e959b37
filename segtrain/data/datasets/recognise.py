"""Recognise which annotation tool wrote a folder, from the names of its files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from segtrain.data.io.storage import is_directory, is_file, list_names, open_file, walk

_FEW = 200  # files that are looked at
_HEAD = 1 << 16
_SPLITS = ("", "train", "valid", "val", "test")
_RLE = (b"encodedpixels", b"rle", b"encoded_pixels", b"segmentation")


class Layout(NamedTuple):
    """A layout that an annotation tool writes.

    Attributes:
        dataset: The dataset that reads it.
        tool: The tool, in words.
        matches: Whether a folder has this layout.
    """

    dataset: str
    tool: str
    matches: Callable[[Path], bool]


def recognise(root: Path) -> Layout | None:
    """Return the layout of a folder or archive; None if no tool is known to write it."""
    if not is_directory(root):
        return None
    try:
        return next((layout for layout in LAYOUTS if layout.matches(root)), None)
    except OSError:  # a folder that may not be read
        return None


def hint(root: Path, expected: str | None = None) -> str:
    """Return the end of an error message that names the tool which wrote `root`; else nothing.

    Args:
        root: The folder.
        expected: The dataset or the tool whose layout was expected.
    """
    found = recognise(root)
    if found is None or expected in (found.dataset, found.tool):
        return ""
    return f"; {root} looks like {found.tool}, which dataset={found.dataset} reads"


def _cvat(root: Path) -> bool:
    return is_file(root / "labelmap.txt") and is_directory(root / "SegmentationClass")


def _supervisely(root: Path) -> bool:
    return is_file(root / "meta.json") and any(
        is_directory(root / name / "ann") for name in list_names(root)
    )


def _roboflow(root: Path) -> bool:
    return any(is_file(root / split / "_classes.csv") for split in _SPLITS)


def _coco(root: Path) -> bool:
    return any(
        b'"images"' in text and b'"annotations"' in text
        for path in _json_files(root, "annotations", *_SPLITS)
        for text in [_ends(path)]
    )


def _yolo(root: Path) -> bool:
    has_names = any(
        b"names" in _ends(root / name)
        for name in list_names(root)
        if name.lower().endswith((".yaml", ".yml"))
    )
    return has_names and any(is_directory(root / split / "labels") for split in _SPLITS)


def _label_studio(root: Path) -> bool:
    folders = ["", *(name for name in list_names(root) if is_directory(root / name))]
    return any(
        name.startswith("task-") and "-annotation-" in name and name.endswith(".png")
        for folder in folders
        for name in islice(list_names(root / folder), _FEW)
    )


def _labelme(root: Path) -> bool:
    return any(
        b'"shapes"' in text and b'"imagePath"' in text
        for path in islice(walk(root), _FEW)
        if path.suffix.lower() == ".json"
        for text in [_ends(path)]
    )


def _rle_table(root: Path) -> bool:
    return any(
        any(word in _ends(root / name).split(b"\n")[0].lower() for word in _RLE)
        for name in list_names(root)
        if name.lower().endswith(".csv")
    )


def _ade20k(root: Path) -> bool:
    return is_directory(root / "images" / "ADE") or any(
        path.name.startswith("ADE_") and path.name.endswith("_seg.png")
        for path in islice(walk(root), _FEW)
    )


def _object_masks(root: Path) -> bool:
    return any(
        is_directory(root / name / "images") and len(list_names(root / name / "masks")) > 1
        for name in islice(list_names(root), _FEW)
        if name not in _SPLITS
    )


def _json_files(root: Path, *folders: str) -> Iterator[Path]:
    for folder in folders:
        for name in list_names(root / folder):
            if name.endswith(".json"):
                yield root / folder / name


def _ends(path: Path) -> bytes:
    """Return the beginning and the end of a file."""
    with open_file(path) as stream:
        head = stream.read(_HEAD)
        stream.seek(0, 2)
        stream.seek(max(len(head), stream.tell() - _HEAD))
        return head + stream.read()


LAYOUTS = (
    Layout("cvat", "an export of CVAT as Segmentation mask 1.1", _cvat),
    Layout("supervisely", "a project of Supervisely", _supervisely),
    Layout("roboflow", "an export of Roboflow as Semantic Segmentation Masks", _roboflow),
    Layout("label_studio", "an export of Label Studio as brush masks", _label_studio),
    Layout("coco_instances", "a dataset in COCO's format of instances", _coco),
    Layout("yolo", "a YOLO dataset for segmentation", _yolo),
    Layout("ade20k_full", "the full ADE20K", _ade20k),
    Layout("labelme", "a folder of labelme", _labelme),
    Layout("rle_table", "a table of run lengths", _rle_table),
    Layout("object_masks", "a folder with a mask file per object", _object_masks),
)
"""The known layouts; the first that matches is taken."""
