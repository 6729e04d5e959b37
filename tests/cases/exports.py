"""Small exports in the layouts of annotation tools, written as each tool writes them."""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from segtrain import build_dataset
from segtrain.data import FileDataset, check_report, scan_dataset
from segtrain.errors import ConfigError, DataError

HEIGHT, WIDTH = 40, 60
CAR = [[5, 5], [25, 5], [25, 20], [5, 20]]  # corners x, y of a rectangle of whole pixels
ROAD = [[10, 15], [50, 15], [50, 35], [10, 35]]


class Drawn(NamedTuple):
    """An object of the images: its class and its corners."""

    name: str
    corners: Sequence[Sequence[int]]


CLASSES = ("background", "car", "road")
SMALLER = ("road", "car")  # the car has fewer pixels, so it covers the road
LATER = ("car", "road")
OBJECTS = (Drawn("car", CAR), Drawn("road", ROAD))


def rectangle(corners: Sequence[Sequence[int]]) -> np.ndarray:
    """The pixels of a rectangle, by slices: no rasteriser takes part."""
    found = np.zeros((HEIGHT, WIDTH), bool)
    (left, top), (right, bottom) = np.min(corners, 0), np.max(corners, 0)
    found[top:bottom, left:right] = True
    return found


def expected(*order: str, ids: dict[str, int] | None = None) -> np.ndarray:
    """The mask of the two objects, drawn in an order; later ones cover earlier ones."""
    ids = ids or {"car": 1, "road": 2}
    found = np.zeros((HEIGHT, WIDTH), np.uint8)
    for name in order:
        found[rectangle(dict(OBJECTS)[name])] = ids[name]
    return found


def photo(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def text(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def flat(corners: Sequence[Sequence[float]]) -> list[float]:
    return [float(number) for corner in corners for number in corner]


# ---------------------------------------------------------------- tools with outlines


def coco(root: Path, count: int = 6, *, file: str = "annotations/instances_default.json",
         images: str = "images", objects: Sequence[Drawn] = OBJECTS) -> Path:  # fmt: skip
    categories = [{"id": 7, "name": "road"}, {"id": 3, "name": "car"}]
    ids = {entry["name"]: entry["id"] for entry in categories}
    entries, annotations = [], []
    for number in range(1, count + 1):
        name = f"frame_{number:03d}.jpg"
        photo(root / images / name, number)
        entries.append({"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH})
        for item in objects:
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": ids[item.name],
                 "iscrowd": 0, "segmentation": [flat(item.corners)]}
            )  # fmt: skip
    content = {"images": entries, "annotations": annotations, "categories": categories}
    text(root / file, content)
    return root


def yolo(root: Path, count: int = 6, splits: Sequence[str] = ("train", "val")) -> Path:
    lines = {split: f"images/{split}" for split in splits}
    names = "\n".join(f"  {number}: {item.name}" for number, item in enumerate(OBJECTS))
    paths = "\n".join(f"{split}: {path}" for split, path in lines.items())
    text(root / "data.yaml", f"path: /content/datasets/mine\n{paths}\nnames:\n{names}\n")
    for offset, split in enumerate(splits):
        for number in range(count):
            photo(root / f"images/{split}/{number:03d}.jpg", number + 100 * offset)
            rows = [
                " ".join(
                    [str(index), *(f"{x / WIDTH:.6f} {y / HEIGHT:.6f}" for x, y in item.corners)]
                )
                for index, item in enumerate(OBJECTS)
            ]
            text(root / f"labels/{split}/{number:03d}.txt", "\n".join(rows) + "\n")
    return root


def labelme_shape(name: str, points: Any, kind: str = "polygon", **more: Any) -> dict[str, Any]:
    return {"label": name, "points": points, "group_id": None, "shape_type": kind, "flags": {},
            **more}  # fmt: skip


def labelme_file(path: Path, shapes: Sequence[Any], image: str | None = None) -> Path:
    content = {
        "version": "5.5.0", "flags": {}, "shapes": list(shapes), "imageData": None,
        "imagePath": image or f"{path.stem}.jpg", "imageHeight": HEIGHT, "imageWidth": WIDTH,
    }  # fmt: skip
    return text(path, content)


def labelme(root: Path, count: int = 6) -> Path:
    for number in range(count):
        photo(root / f"img{number}.jpg", number)
        shapes = [labelme_shape(item.name, item.corners) for item in OBJECTS]
        labelme_file(root / f"img{number}.json", shapes)
    return root


def supervisely_bitmap(mask: np.ndarray, top: int, left: int, name: str = "car") -> dict[str, Any]:
    """As ``Bitmap.data_2_base64`` of the supervisely package: a palette-free RGBA PNG in zlib."""
    pixels = np.zeros((*mask.shape, 4), np.uint8)
    pixels[..., :3] = pixels[..., 3:] = np.where(mask, 255, 0)[..., None]
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    data = base64.b64encode(zlib.compress(stream.getvalue())).decode()
    return {"geometryType": "bitmap", "classTitle": name,
            "bitmap": {"data": data, "origin": [left, top]}}  # fmt: skip


def supervisely(root: Path, count: int = 6, objects: Sequence[Any] | None = None) -> Path:
    classes = [{"title": "car", "shape": "bitmap", "color": "#FF0010"},
               {"title": "road", "shape": "polygon", "color": "#00FF20"}]  # fmt: skip
    text(root / "meta.json", {"classes": classes, "tags": []})
    car = rectangle(CAR)[5:20, 5:25]
    road = {"geometryType": "rectangle", "classTitle": "road",
            "points": {"exterior": [[10, 15], [49, 34]], "interior": []}}  # fmt: skip
    objects = [supervisely_bitmap(car, 5, 5), road] if objects is None else objects
    for number in range(count):
        photo(root / f"ds0/img/{number:02d}.jpg", number)
        content = {"size": {"height": HEIGHT, "width": WIDTH}, "tags": [], "objects": objects}
        text(root / f"ds0/ann/{number:02d}.jpg.json", content)
    return root


# ---------------------------------------------------------------- tools with masks


def cvat(root: Path, count: int = 6, *, images: bool = True, mode: str = "RGB") -> Path:
    colours = {"background": (0, 0, 0), "car": (250, 50, 83), "road": (51, 221, 255)}
    lines = [f"{name}:{r},{g},{b}::" for name, (r, g, b) in colours.items()]
    text(root / "labelmap.txt", "# label:color_rgb:parts:actions\n" + "\n".join(lines) + "\n")
    ids = expected("car", "road")
    names = [f"shot {number}" for number in range(count)]
    for number, name in enumerate(names):
        if images:
            photo(root / f"JPEGImages/{name}.jpg", number)
        path = root / f"SegmentationClass/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        table = np.array(list(colours.values()), np.uint8)
        picture = Image.fromarray(table[ids] if mode == "RGB" else ids)
        if mode == "P":
            picture.putpalette(table.ravel().tolist())
        picture.save(path)
    text(root / "ImageSets/Segmentation/default.txt", "\n".join(names) + "\n")
    return root


def roboflow(root: Path, count: int = 4) -> Path:
    for offset, split in enumerate(("train", "valid", "test")):
        rows = "Pixel Value, Class\n0, background\n1, car\n2, road\n"
        text(root / split / "_classes.csv", rows)
        for number in range(count):
            stem = f"a{number}_jpg.rf.0{offset}"
            photo(root / split / f"{stem}.jpg", number + 10 * offset)
            mask = Image.fromarray(expected("car", "road"))
            mask.save(root / split / f"{stem}_mask.png")
    return root


def label_studio(root: Path, count: int = 6, *, tasks: bool = True) -> Path:
    found = []
    for number in range(1, count + 1):
        name = f"scan-{number}.jpg"
        photo(root / "images" / name, number)
        for item in OBJECTS:
            mask = Image.fromarray(np.where(rectangle(item.corners), 255, 0).astype(np.uint8))
            name_of_mask = (
                f"task-{number}-annotation-{number + 50}-by-me@home.org-tag-{item.name}-0.png"
            )
            (root / "masks").mkdir(exist_ok=True)
            mask.save(root / "masks" / name_of_mask)
        found.append(
            {"id": number, "data": {"image": f"/data/upload/1/0a1b2c3d-{name}"},
             "annotations": [{"id": number + 50, "result": [{"from_name": "tag"}]}]}
        )  # fmt: skip
    if tasks:
        text(root / "project-1.json", found)
    return root


def runs(mask: np.ndarray, order: str = "columns") -> str:
    """Run lengths of Kaggle, by the definition: pixels counted from 1."""
    pixels = np.flatnonzero(mask.T.ravel() if order == "columns" else mask.ravel())
    words, start = [], None
    for place, pixel in enumerate(pixels):
        start = pixel if start is None else start
        if place + 1 == len(pixels) or pixels[place + 1] != pixel + 1:
            words += [start + 1, pixel - start + 1]
            start = None
    return " ".join(map(str, words))


def rle_table(root: Path, count: int = 6, heading: str = "ImageId,ClassId,EncodedPixels",
              order: str = "columns") -> Path:  # fmt: skip
    rows = [heading]
    for number in range(count):
        photo(root / f"train_images/{number:04d}.jpg", number)
        for item in OBJECTS:
            run = runs(rectangle(item.corners), order)
            name = f"{number:04d}.jpg"
            first = [f"{name}_{item.name}"] if "_" in heading else [name, item.name]
            rows.append(",".join([*first, run]))
    text(root / "train.csv", "\n".join(rows) + "\n")
    return root


def object_masks(root: Path, count: int = 6) -> Path:
    for number in range(count):
        photo(root / f"n{number}/images/n{number}.png", number)
        for index, item in enumerate(OBJECTS):
            path = root / f"n{number}/masks/{item.name}_{index}.png"
            path.parent.mkdir(exist_ok=True)
            mask = np.where(rectangle(item.corners), 255, 0).astype(np.uint8)
            Image.fromarray(mask).save(path)
    return root


def ade20k_full(root: Path, count: int = 3) -> Path:
    numbers = {"car": 401, "road": 2131}
    for split in ("training", "validation"):
        for number in range(count):
            stem = root / f"images/ADE/{split}/urban/street/ADE_{split}_{number:08d}"
            photo(stem.with_name(f"{stem.name}.jpg"), number + (split == "training") * 10)
            ids = expected("car", "road", ids={"car": 1, "road": 2})
            table = np.array([0, *numbers.values()])[ids]
            rgb = np.stack([table // 256 * 10, table % 256, ids * 20], 2).astype(np.uint8)
            Image.fromarray(rgb).save(stem.with_name(f"{stem.name}_seg.png"))
            items = [{"name": name, "name_ndx": index} for name, index in numbers.items()]
            text(stem.with_name(f"{stem.name}.json"), {"annotation": {"object": items}})
    return root


# ---------------------------------------------------------------- reading them


def opened(name: str, root: Path, split: str = "train", **keys: Any) -> FileDataset:
    dataset = build_dataset(name, root=str(root), split=split, **keys)
    assert isinstance(dataset, FileDataset)
    check_report(scan_dataset(dataset))
    return dataset


def target(dataset: FileDataset, index: int = 0) -> np.ndarray:
    return dataset[index].target


def refusal(name: str, root: Path, **keys: Any) -> str:
    with pytest.raises((DataError, ConfigError)) as caught:
        opened(name, root, **keys)
    return str(caught.value)
