"""Exports that hold outlines and run lengths, against other rasterisers and the tools' readers."""

from __future__ import annotations

import base64
import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from segtrain.data import FileDataset
from segtrain.data.datasets.exports.objects import AnnotatedObject, paint
from segtrain.errors import DataError
from tests.cases import exports
from tests.cases.exports import (
    CAR,
    CLASSES,
    HEIGHT,
    LATER,
    OBJECTS,
    ROAD,
    SMALLER,
    WIDTH,
    expected,
    opened,
    rectangle,
    refusal,
    target,
)

# ------------------------------------------------- outlines against other rasterisers


def test_outlines_agree_with_an_independent_rasteriser() -> None:
    draw = pytest.importorskip("skimage.draw")
    rng = np.random.default_rng(0)
    for _ in range(20):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
        radii = rng.uniform(20, 60, 9)
        corners = np.stack([80 + radii * np.cos(angles), 70 + radii * np.sin(angles)], 1)
        ours = paint(
            [AnnotatedObject(1, polygons=[corners.ravel().tolist()])], 140, 160, "later", ""
        )
        # scikit-image counts from the centre of the first pixel, and rows first.
        theirs = draw.polygon2mask((140, 160), corners[:, ::-1] - 0.5)
        both = (ours != 0) & theirs
        assert both.sum() / ((ours != 0) | theirs).sum() > 0.97
        assert abs(int((ours != 0).sum()) - int(theirs.sum())) < 0.03 * theirs.sum()


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"polygons": [[1, 2, 3, 4]]}, "an outline of 4 numbers is not a polygon"),
        ({"polygons": [[1, 2, 3, 4, 5, float("nan")]]}, "a number that is not finite"),
        ({"rle": [5, 100]}, "its run lengths do not fit into 4 x 5 pixels"),
        ({"rle": [-1, 21]}, "its run lengths do not fit"),
        ({"rle": "abc"}, "cut off"),
        ({"rle": "\x01"}, "not text of COCO's compression"),
        ({"pixels": (np.ones((9, 9)), 0, 0)}, "larger than the others or its image, of 4 x 5"),
    ],
)
def test_objects_that_cannot_be_drawn(item: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=r"a.json: object 1 cannot be drawn: ") as caught:
        paint([AnnotatedObject(1, **item)], 4, 5, "later", "a.json")
    assert message in str(caught.value)


def test_an_outline_far_outside_is_clipped() -> None:
    outline = [-1e9, -1e9, 1e9, -1e9, 1e9, 1e9, -1e9, 1e9]
    assert (paint([AnnotatedObject(3, polygons=[outline])], 4, 5, "later", "a") == 3).all()


# ------------------------------------------------- COCO


def test_coco_equals_its_own_reader(tmp_path: Path) -> None:
    """Runs, compressed runs, several outlines and a crowd, against pycocotools' ``annToMask``."""
    rng = np.random.default_rng(1)
    blob = rng.random((HEIGHT, WIDTH)) > 0.7
    packed = coco_mask.encode(np.asfortranarray(blob.astype(np.uint8)))
    columns = blob.T.ravel()
    edges = np.flatnonzero(np.diff(columns.astype(np.int8))) + 1
    counts = np.diff([0, *edges, columns.size]).tolist()
    counts = [0, *counts] if columns[0] else counts
    two = [exports.flat(CAR), [30, 2, 50.5, 2.5, 41.3, 17.2]]
    shapes = [
        {"size": [HEIGHT, WIDTH], "counts": packed["counts"].decode()},
        {"size": [HEIGHT, WIDTH], "counts": counts},
        two,
    ]
    exports.coco(tmp_path, 3, objects=())
    path = tmp_path / "annotations/instances_default.json"
    content = json.loads(path.read_text())
    for number, shape in enumerate(shapes, start=1):
        content["annotations"].append(
            {"id": number, "image_id": number, "category_id": 7, "segmentation": shape,
             "iscrowd": int(isinstance(shape, dict)), "area": 1}
        )  # fmt: skip
    path.write_text(json.dumps(content))
    reader = COCO(path)
    section = {"annotations": "annotations/instances_default.json"}
    dataset = opened("coco_instances", tmp_path, train=section, val=section)
    for index in range(3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pycocotools is older than NumPy 2
            theirs = reader.annToMask(reader.loadAnns([index + 1])[0])
        assert np.array_equal(target(dataset, index), theirs * 2)


def test_coco_of_roboflow_with_its_group_of_classes(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        exports.coco(tmp_path, 3, file=f"{split}/_annotations.coco.json", images=split)
        path = tmp_path / split / "_annotations.coco.json"
        content = json.loads(path.read_text())
        for entry in content["categories"]:
            entry["supercategory"] = "things"
        content["categories"].insert(0, {"id": 0, "name": "things", "supercategory": "none"})
        path.write_text(json.dumps(content))
    for split in ("train", "val"):
        dataset = opened("coco_instances", tmp_path, split)
        assert dataset.class_names == CLASSES
        assert len(dataset) == 3


@pytest.mark.parametrize(
    ("file", "images"),
    [
        ("annotations/instances_train2017.json", "train2017"),
        ("annotations/instances_train.json", "images/train"),
        ("result.json", "images"),
        ("labels.json", "data"),
    ],
)
def test_coco_files_are_found(tmp_path: Path, file: str, images: str) -> None:
    exports.coco(tmp_path, file=file, images=images)
    assert len(opened("coco_instances", tmp_path)) == 5


def test_coco_in_a_zip_archive(tmp_path: Path) -> None:
    import shutil

    exports.coco(tmp_path / "in")
    shutil.make_archive(str(tmp_path / "export"), "zip", tmp_path / "in")
    dataset = opened("coco_instances", tmp_path / "export.zip")
    assert np.array_equal(target(dataset), expected(*SMALLER))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["annotations"][0].pop("segmentation"),
            "it has no segmentation; export polygons or masks, not boxes",
        ),
        (lambda c: c["annotations"][0].update(category_id=99), "annotation 1 of the image"),
        (lambda c: c["images"][0].pop("height"), "needs id, file_name, height and width"),
        (lambda c: c.pop("categories"), "it lacks 'categories'"),
        (lambda c: c["images"][2].update(file_name="x.jpg"), "x.jpg: the file does not exist"),
        (lambda c: c["images"][0].update(height=30), "the mask is 30 x 60"),
    ],
)
def test_coco_mistakes(tmp_path: Path, change: Any, message: str) -> None:
    exports.coco(tmp_path)
    path = tmp_path / "annotations/instances_default.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    section = {"annotations": "annotations/instances_default.json"}
    assert message in refusal("coco_instances", tmp_path, train=section, val=section)


def test_coco_images_elsewhere(tmp_path: Path) -> None:
    exports.coco(tmp_path, images="pictures")
    message = refusal("coco_instances", tmp_path)
    assert "set dataset.train.images to its folder" in message
    given = {"annotations": "annotations/instances_default.json", "images": "pictures"}
    assert len(opened("coco_instances", tmp_path, train=given)) == 5


# ------------------------------------------------- YOLO


@pytest.mark.parametrize("given", ["../train/images", "train/images", "./train/images"])
def test_yolo_of_roboflow(tmp_path: Path, given: str) -> None:
    exports.yolo(tmp_path / "in")
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / split).mkdir(exist_ok=True)
            (tmp_path / "in" / kind / split).rename(tmp_path / split / kind)
    names = f"train: {given}\nval: {given.replace('train', 'val')}\nnc: 2\nnames: ['car', 'road']\n"
    exports.text(tmp_path / "data.yaml", names)
    dataset = opened("yolo", tmp_path)
    assert len(dataset) == 6
    assert np.array_equal(target(dataset), expected(*SMALLER))


def test_yolo_with_a_list_of_images_and_one_without_labels(tmp_path: Path) -> None:
    exports.yolo(tmp_path)
    (tmp_path / "labels/train/001.txt").unlink()
    exports.text(tmp_path / "mine.txt", "./images/train/000.jpg\n./images/train/001.jpg\n")
    dataset = opened("yolo", tmp_path, train={"images": "mine.txt"})
    assert [files.name for files in dataset.files] == ["images/train/000", "images/train/001"]
    assert np.array_equal(target(dataset), expected(*SMALLER))
    assert not target(dataset, 1).any()


def test_yolo_agrees_with_ultralytics_way_of_filling(tmp_path: Path) -> None:
    """Ultralytics fills outlines, rounded to whole pixels, with OpenCV."""
    import cv2

    exports.yolo(tmp_path)
    corners = np.array([[3.2, 4.1], [55.7, 8.9], [40.4, 37.2], [12.3, 30.5]])
    shares = " ".join(f"{x / WIDTH:.6f} {y / HEIGHT:.6f}" for x, y in corners)
    for path in (tmp_path / "labels/train").iterdir():
        path.write_text(f"1 {shares}\n")
    theirs = cv2.fillPoly(np.zeros((HEIGHT, WIDTH), np.uint8), [corners.astype(np.int32)], 1)
    ours = target(opened("yolo", tmp_path)) == 2
    assert (ours & (theirs == 1)).sum() / (ours | (theirs == 1)).sum() > 0.93


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.2 0.2", "000.txt, line 1: it is a box of detection"),
        ("5 0.1 0.1 0.2 0.1 0.2 0.2", "class 5, but data.yaml has the classes 0, 1"),
        ("0 10 10 20 10 20 20", "corners must be shares of width and height"),
        ("0 0.1 0.1 0.2 0.1 0.2", "5 numbers after the class are not an outline"),
        ("car 0.1 0.1", "is not a row of numbers"),
    ],
)
def test_yolo_mistakes(tmp_path: Path, line: str, message: str) -> None:
    exports.yolo(tmp_path)
    exports.text(tmp_path / "labels/train/000.txt", line)
    assert message in refusal("yolo", tmp_path)


def test_yolo_without_any_labels(tmp_path: Path) -> None:
    exports.yolo(tmp_path)
    for path in (tmp_path / "labels/train").iterdir():
        path.unlink()
    assert "has a label file; YOLO's are" in refusal("yolo", tmp_path)


# ------------------------------------------------- labelme


def one_labelme(root: Path, *shapes: Any, **more: Any) -> FileDataset:
    exports.photo(root / "train/a.jpg")
    exports.photo(root / "val/b.jpg", 1)
    exports.labelme_file(root / "train/a.json", shapes)
    exports.labelme_file(root / "val/b.json", shapes)
    return opened("labelme", root, **more)


def test_labelme_shapes(tmp_path: Path) -> None:
    inside = Image.fromarray(rectangle(ROAD)[15:35, 10:50])
    stream = io.BytesIO()
    inside.save(stream, format="PNG")
    data = base64.b64encode(stream.getvalue()).decode()
    shape = exports.labelme_shape
    dataset = one_labelme(
        tmp_path,
        shape("mask", [[10, 15], [49, 34]], "mask", mask=data),
        shape("box", [[25, 20], [5, 5]], "rectangle"),
        shape("disc", [[45, 10], [45, 16]], "circle"),
        shape("line", [[0, 0], [59, 39]], "line"),
        shape("dot", [[0, 0]], "point"),
    )
    assert dataset.class_names == ("background", "box", "disc", "mask")
    found = target(dataset)
    assert np.array_equal(found == 1, rectangle(CAR))
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    disc = (rows - 10) ** 2 + (columns - 45) ** 2 < 6**2
    assert ((found == 2) != disc).sum() <= 6
    assert np.array_equal(found == 3, rectangle(ROAD) & (found != 1) & (found != 2))


def test_labelme_lists_its_classes(tmp_path: Path) -> None:
    exports.text(tmp_path / "labels.txt", "__ignore__\n_background_\nroad\ncar\ntree\n")
    shapes = [exports.labelme_shape("road", ROAD), exports.labelme_shape("_background_", CAR)]
    dataset = one_labelme(tmp_path, *shapes)
    assert dataset.class_names == ("background", "road", "car", "tree")
    assert np.array_equal(target(dataset), expected("road", "car", ids={"road": 1, "car": 0}))
    for name in ("train/a", "val/b"):
        exports.labelme_file(tmp_path / f"{name}.json", [exports.labelme_shape("cat", CAR)])
    assert "the class 'cat', which is not one of the classes" in refusal("labelme", tmp_path)


def test_labelme_ignores_what_it_says(tmp_path: Path) -> None:
    shapes = [exports.labelme_shape("road", ROAD), exports.labelme_shape("__ignore__", CAR)]
    dataset = one_labelme(tmp_path, *shapes)
    assert dataset.class_names == ("background", "road")
    wanted = expected("road", "car", ids={"road": 1, "car": 255})
    assert np.array_equal(target(dataset), wanted)


def test_labelme_path_of_windows(tmp_path: Path) -> None:
    exports.photo(tmp_path / "images/a.jpg")
    exports.photo(tmp_path / "images/b.jpg", 1)
    shapes = [exports.labelme_shape(item.name, item.corners) for item in OBJECTS]
    for name in "ab":
        path = tmp_path / f"json/{name}.json"
        exports.labelme_file(path, shapes, f"..\\images\\{name}.jpg")
    assert np.array_equal(target(opened("labelme", tmp_path)), expected(*LATER))


def test_labelme_mistakes(tmp_path: Path) -> None:
    exports.labelme(tmp_path)
    (tmp_path / "img2.jpg").unlink()
    assert "its image does not exist beside it" in refusal("labelme", tmp_path)
    assert len(opened("labelme", tmp_path, max_bad=0.5)) > 2
    exports.text(tmp_path / "other.json", {"a": 1})
    assert len(opened("labelme", tmp_path, max_bad=0.5)) > 2  # the file of another program
    exports.text(tmp_path / "other.json", {"shapes": 1})
    assert "shapes is not a list of objects" in refusal("labelme", tmp_path)
    (tmp_path / "other.json").unlink()
    exports.photo(tmp_path / "img2.jpg")
    exports.labelme_file(tmp_path / "img1.json", [exports.labelme_shape("car", CAR, "cube")])
    assert "shapes of the type 'cube' are not known" in refusal("labelme", tmp_path)


# ------------------------------------------------- Supervisely


def test_supervisely_holes_and_colours(tmp_path: Path) -> None:
    hole = [[[14, 19], [29, 19], [29, 29], [14, 29]]]
    points = {"exterior": [[10, 15], [49, 15], [49, 34], [10, 34]], "interior": hole}
    road = {"geometryType": "polygon", "classTitle": "road", "points": points}
    exports.supervisely(tmp_path, objects=[road])
    dataset = opened("supervisely", tmp_path)
    assert dataset.palette == ((0, 0, 0), (255, 0, 16), (0, 255, 32))
    found = target(dataset) == 2
    assert not found[22:27, 18:26].any()  # inside the hole
    assert found[16:18, 12:48].all()
    assert not found[:15].any()
    assert not found[35:].any()


def test_supervisely_splits_by_the_names_of_its_datasets(tmp_path: Path) -> None:
    exports.supervisely(tmp_path, 4)
    (tmp_path / "ds0").rename(tmp_path / "train")
    exports.supervisely(tmp_path, 5)
    (tmp_path / "ds0").rename(tmp_path / "val")
    for number, path in enumerate(sorted((tmp_path / "val/img").iterdir())):
        exports.photo(path, number + 50)
    assert len(opened("supervisely", tmp_path)) == 4
    assert len(opened("supervisely", tmp_path, "val")) == 5


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (exports.supervisely_bitmap(np.ones((9, 9), bool), 3, 5, "sky"), "of the class 'sky'"),
        (
            {"geometryType": "bitmap", "bitmap": {"data": "eA==", "origin": [0, 0]}},
            "object 1 is not valid",
        ),
        (
            {"geometryType": "cube", "points": {"exterior": [], "interior": []}},
            "object 1 is not valid",
        ),
    ],
)
def test_supervisely_mistakes(tmp_path: Path, item: Any, message: str) -> None:
    exports.supervisely(tmp_path, objects=[{"classTitle": "car", **item}])
    assert message in refusal("supervisely", tmp_path)
