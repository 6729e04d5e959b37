"""Tiny copies of the folder layouts of published datasets, in their file formats.

Each function writes two training images and one validation image below `root`, unless a config
names its samples. Every mask holds all
raw values of the official masks, arranged by :func:`raw_mask`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

SIZE = (24, 32)
SAMPLES = (("train", 0), ("train", 1), ("val", 2))

COCO_STUFF = [0, 92, 93, 95, 100, 107, 109, 112, 118, 119, 122, 125, 128, 130, 133, 138, 141, 144,
              145, 147, 148, 149, 151, 154, 155, 156, 159, 161, 166, 168, 171, 175, 176, 177, 178,
              180, 181, *range(184, 201)]  # fmt: skip
COCO_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)  # ids from 1 to 90 that are not a category
COCO_PANOPTIC = sorted({*range(1, 91)} - {*COCO_GAPS} | {*COCO_STUFF})
CAMVID_COLOURS = [
    0x000000, 0x408040, 0xC00080, 0x0080C0, 0x008040, 0x800000, 0x400080, 0x4000C0, 0xC08040,
    0xC0C080, 0x404080, 0x8000C0, 0xC00040, 0x808040, 0xC000C0, 0x804040, 0x40C080, 0x404000,
    0x804080, 0x8080C0, 0x0000C0, 0xC08080, 0x808080, 0x4080C0, 0x000040, 0x004040, 0xC04080,
    0x808000, 0xC080C0, 0x400040, 0xC0C000, 0x40C000,
]  # fmt: skip

RAW_VALUES: dict[str, list[int]] = {
    "ade20k": [*range(151)],
    "camvid": [*range(12)],
    "camvid32": CAMVID_COLOURS,
    "cityscapes": [*range(34)],
    "coco_panoptic": COCO_PANOPTIC,
    "coco_stuff10k": [*range(183)],
    "coco_stuff164k": [*range(182), 255],
    "crackforest": [1, 2, 3, 4],
    "crackforest_png": [0, 1, 255],
    "drive": [0, 255],
    "kvasir": [0, 255],
    "lip": [*range(20)],
    "loveda": [*range(8)],
    "mapillary_vistas": [*range(66)],
    "oxford_pet": [1, 2, 3],
    "pascal_context59": [*range(460)],
    "pascal_context60": [*range(460)],
    "sbd": [*range(21)],
    "topomortar": [0, 255],
    "voc2012": [*range(21), 255],
}
"""The raw values of the official masks; colours are 0xRRGGBB."""


def raw_mask(name: str, number: int) -> NDArray[np.int64]:
    """Return the raw values of the mask of sample `number`, which has each value several times."""
    values = np.roll(np.array(RAW_VALUES[name], dtype=np.int64), 3 * number + 1)
    return np.resize(values, SIZE)


def write_layout(name: str, root: Path) -> None:
    """Write the layout of the dataset called `name` below `root`."""
    globals()[f"_{name}"](root)


# ------------------------------------------------------------------ file formats


def _image(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def _grey(path: Path, raw: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Pillow shortens the grey palette of a GIF file where it may, and 255 becomes 1.
    Image.fromarray(raw.astype(np.uint8)).save(path, optimize=False)


def _indexed(path: Path, raw: NDArray[Any], colours: Iterable[int] | None = None) -> None:
    """Write an image with a palette, of random colours by default."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(9).integers(0, 256, 768)
    image = Image.fromarray(raw.astype(np.uint8))
    image.putpalette([int(value) for value in (random if colours is None else colours)])
    image.save(path)


def _colours(path: Path, packed: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = [packed >> shift & 255 for shift in (16, 8, 0)]
    Image.fromarray(np.stack(channels, axis=2).astype(np.uint8)).save(path)


def _matlab(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, content, do_compression=True)


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _lists(places: dict[str, Path], names: list[str], rest: str = "") -> None:
    """Write a list file for each split."""
    for split, path in places.items():
        chosen = [names[number] for owner, number in SAMPLES if owner == split]
        _text(path, "".join(f"{name}{rest}\n" for name in chosen))


# ------------------------------------------------------------------ street scenes


def _cityscapes(root: Path) -> None:
    for split, number in SAMPLES:
        city = "aachen" if split == "train" else "frankfurt"
        stem = f"{city}/{city}_00000{number}_000019"
        _image(root / "leftImg8bit" / split / f"{stem}_leftImg8bit.png", number)
        folder = root / "gtFine" / split
        raw = raw_mask("cityscapes", number)
        _grey(folder / f"{stem}_gtFine_labelIds.png", raw)
        _colours(folder / f"{stem}_gtFine_color.png", raw)
        _text(folder / f"{stem}_gtFine_polygons.json", "{}")
        Image.fromarray((raw * 1000).astype(np.uint16)).save(
            folder / f"{stem}_gtFine_instanceIds.png"
        )


def _camvid(root: Path) -> None:
    for split, number in SAMPLES:
        stem = f"0016E5_0{number}390"
        _image(root / "images" / split / f"{stem}.jpg", number)
        _grey(root / "masks" / split / f"{stem}.png", raw_mask("camvid", number))


def _camvid32(root: Path) -> None:
    for stem, number in (("0001TP_006690", 0), ("0016E5_00390", 1), ("Seq05VD_f00000", 2)):
        _image(root / "701_StillsRaw_full" / f"{stem}.png", number)
        mask = root / "LabeledApproved_full" / f"{stem}_L.png"
        _colours(mask, raw_mask("camvid32", number))


def _mapillary_vistas(root: Path) -> None:
    for split, number in SAMPLES:
        folder = root / {"train": "training", "val": "validation"}[split]
        stem = f"{number}_035fFwcL7C3GhDHkDxkw"
        _image(folder / "images" / f"{stem}.jpg", number)
        raw = raw_mask("mapillary_vistas", number)
        _indexed(folder / "labels" / f"{stem}.png", raw)
        _indexed(folder / "instances" / f"{stem}.png", raw)


# ------------------------------------------------------------------ PASCAL and its relatives

_VOC_NAMES = ["2007_000032", "2008_000008", "2009_000012"]


def _voc2012(root: Path) -> None:
    folder = root / "VOCdevkit" / "VOC2012"
    for number, name in enumerate(_VOC_NAMES):
        _image(folder / "JPEGImages" / f"{name}.jpg", number)
        _indexed(folder / "SegmentationClass" / f"{name}.png", raw_mask("voc2012", number))
        _indexed(folder / "SegmentationObject" / f"{name}.png", raw_mask("voc2012", number))
    lists = folder / "ImageSets" / "Segmentation"
    _lists({split: lists / f"{split}.txt" for split in ("train", "val")}, _VOC_NAMES)


def _sbd(root: Path) -> None:
    for number, name in enumerate(_VOC_NAMES):
        _image(root / "img" / f"{name}.jpg", number)
        raw = raw_mask("sbd", number).astype(np.uint8)
        _matlab(
            root / "cls" / f"{name}.mat",
            {"GTcls": {"Boundaries": raw > 0, "Segmentation": raw, "CategoriesPresent": [[1, 2]]}},
        )
    _lists({split: root / f"{split}.txt" for split in ("train", "val")}, _VOC_NAMES)


def _pascal_context59(root: Path) -> None:
    folder = root / "VOCdevkit" / "VOC2010"
    for number, name in enumerate(_VOC_NAMES):
        _image(folder / "JPEGImages" / f"{name}.jpg", number)
        raw = raw_mask("pascal_context59", number).astype(np.uint16)
        _matlab(root / "trainval" / f"{name}.mat", {"LabelMap": raw})
    lists = folder / "ImageSets" / "Main"
    _lists({split: lists / f"{split}.txt" for split in ("train", "val")}, _VOC_NAMES)


_pascal_context60 = _pascal_context59

# ------------------------------------------------------------------ COCO and ADE20K


def _coco_stuff10k(root: Path) -> None:
    names = [f"COCO_train2014_00000000007{number}" for number in range(3)]
    for number, name in enumerate(names):
        _image(root / "images" / f"{name}.jpg", number)
        raw = raw_mask("coco_stuff10k", number).astype(np.uint8)
        content = {
            "S": raw,
            "names": np.array([["unlabeled"], ["person"]], dtype=object),
            "captions": np.array([["A picture."]], dtype=object),
            "regionMapStuff": raw.astype(np.uint16) + 1,
            "regionLabelsStuff": np.arange(9, dtype=np.uint8)[:, None],
        }
        _matlab(root / "annotations" / f"{name}.mat", content)
    folder = root / "imageLists"
    _lists({"train": folder / "train.txt", "val": folder / "test.txt"}, names)


def _coco_stuff164k(root: Path) -> None:
    for split, number in SAMPLES:
        stem = f"{split}2017/00000000007{number}"
        _image(root / "images" / f"{stem}.jpg", number)
        _grey(root / "annotations" / f"{stem}.png", raw_mask("coco_stuff164k", number))


def _coco_panoptic(root: Path) -> None:
    for split in ("train", "val"):
        content: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": []}
        for number in (number for owner, number in SAMPLES if owner == split):
            stem = f"00000000007{number}"
            _image(root / f"{split}2017" / f"{stem}.jpg", number)
            raw = raw_mask("coco_panoptic", number)
            segments = np.where(raw == 0, 0, raw * 70_001)  # beyond 16 bits
            swapped = (segments & 255) << 16 | segments & 0xFF00 | segments >> 16
            _colours(root / "annotations" / f"panoptic_{split}2017" / f"{stem}.png", swapped)
            content["images"].append({"id": number, "file_name": f"{stem}.jpg"})
            info = [
                {"id": category * 70_001, "category_id": category, "iscrowd": 0}
                for category in COCO_PANOPTIC
                if category
            ]
            content["annotations"].append(
                {"image_id": number, "file_name": f"{stem}.png", "segments_info": info}
            )
        _text(root / "annotations" / f"panoptic_{split}2017.json", json.dumps(content))


def _ade20k(root: Path) -> None:
    for split, number in SAMPLES:
        folder = {"train": "training", "val": "validation"}[split]
        stem = f"{folder}/ADE_{split}_0000000{number}"
        _image(root / "images" / f"{stem}.jpg", number)
        _grey(root / "annotations" / f"{stem}.png", raw_mask("ade20k", number))


# ------------------------------------------------------------------ people, animals, land, retinas


def _lip(root: Path) -> None:
    for split, number in SAMPLES:
        stem = f"{number}_468466"
        _image(root / "TrainVal_images" / f"{split}_images" / f"{stem}.jpg", number)
        folder = root / "TrainVal_parsing_annotations" / f"{split}_segmentations"
        _grey(folder / f"{stem}.png", raw_mask("lip", number))


def _oxford_pet(root: Path) -> None:
    names = ["Abyssinian_100", "american_bulldog_1", "yorkshire_terrier_9"]
    folder = root / "oxford-iiit-pet"
    for number, name in enumerate(names):
        _image(folder / "images" / f"{name}.jpg", number)
        trimaps = folder / "annotations" / "trimaps"
        _grey(trimaps / f"{name}.png", raw_mask("oxford_pet", number))
        _text(trimaps / f"._{name}.png", "a file that macOS adds to archives")
    lists = folder / "annotations"
    _lists({"train": lists / "trainval.txt", "val": lists / "test.txt"}, names, rest=" 1 1 1")


def _loveda(root: Path) -> None:
    for folder, number in (("Train/Urban", 0), ("Train/Rural", 1), ("Val/Urban", 2)):
        _image(root / folder / "images_png" / f"{number}.png", number)
        _grey(root / folder / "masks_png" / f"{number}.png", raw_mask("loveda", number))
    _image(root / "Val/Rural/images_png/9.png", 9)
    _grey(root / "Val/Rural/masks_png/9.png", raw_mask("loveda", 9))


def _drive(root: Path) -> None:
    training = [("training", str(21 + number), number) for number in range(20)]
    for folder, stem, number in (*training, ("test", "01", 20)):
        _image(root / folder / "images" / f"{stem}_{folder}.tif", number)
        raw = raw_mask("drive", number)
        mask = root / folder / "1st_manual" / f"{stem}_manual1.gif"
        if stem == "22":  # black and white as a palette of two, of which the file holds the indices
            _indexed(mask, raw // 255, [0, 0, 0, 255, 255, 255])
        else:
            _grey(mask, raw)
        _grey(root / folder / "mask" / f"{stem}_{folder}_mask.gif", np.full(SIZE, 255))


def _kvasir(root: Path) -> None:
    for number, name in enumerate(("cju0qkwl3", "cju1aqqv4", "cju0roawv")):
        _image(root / "images" / f"{name}.jpg", number)
        mask = root / "masks" / f"{name}.jpg"
        mask.parent.mkdir(parents=True, exist_ok=True)
        raw = raw_mask("kvasir", number).astype(np.uint8)
        Image.fromarray(raw).convert("RGB").save(mask, quality=100, subsampling=0)


# ------------------------------------------------------------------ surfaces


def _crackforest(root: Path) -> None:
    for number, name in enumerate(("002", "003", "004")):
        _image(root / "image" / f"{name}.jpg", number)
        raw = raw_mask("crackforest", number).astype(np.uint16)
        found = np.empty((1, 1), dtype=[("Segmentation", object), ("Boundaries", object)])
        found[0, 0] = (raw, (raw > 1).astype(np.uint8))
        _matlab(root / "groundTruth" / f"{name}.mat", {"groundTruth": found})
    _image(root / "image" / "119.jpg", 9)  # without a mask


def _crackforest_png(root: Path) -> None:
    for split, number in SAMPLES:
        _image(root / "images" / split / f"00{number}.jpg", number)
        raw = raw_mask("crackforest_png", number)
        _grey(root / "masks" / split / f"00{number}.png", raw)


def _topomortar(root: Path) -> None:
    for split, number in SAMPLES:
        _image(root / "images" / split / f"00{number}.jpg", number)
        for labels in ("accurate", "noisy", "pseudo"):
            raw = raw_mask("topomortar", number)
            # The wrong labels of this copy are the right ones, turned over.
            wrong = split == "train" and labels != "accurate"
            _grey(root / labels / split / f"00{number}.png", 255 - raw if wrong else raw)
