"""Exports of annotation tools, read as datasets; see ``exports.py`` for what the tools write."""

from __future__ import annotations

import base64
import io
import json
import shlex
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from segtrain import build_dataset
from segtrain.cli.main import run_command
from segtrain.data import FileDataset, check_report, make_shards, scan_dataset
from segtrain.data.datasets.exports.objects import AnnotatedObject, paint
from segtrain.data.datasets.recognise import recognise
from segtrain.errors import ConfigError, DataError
from tests.cases import exports
from tests.cases.exports import CAR, HEIGHT, OBJECTS, ROAD, WIDTH, Drawn, expected, rectangle

_CLASSES = ("background", "car", "road")
_MASKS = {"images": "{image}/images/*.png", "masks": "{image}/masks/{class}_*.png"}
SMALLER = ("road", "car")  # the car has fewer pixels, so it covers the road
LATER = ("car", "road")
# The writer of each tool's layout, the order in which its objects are drawn, and keys it needs.
TOOLS: dict[str, tuple[Any, tuple[str, ...], dict[str, Any]]] = {
    "coco_instances": (exports.coco, SMALLER, {}),
    "yolo": (exports.yolo, SMALLER, {}),
    "labelme": (exports.labelme, LATER, {}),
    "cvat": (exports.cvat, LATER, {}),
    "supervisely": (exports.supervisely, LATER, {}),
    "roboflow": (exports.roboflow, LATER, {}),
    "label_studio": (exports.label_studio, SMALLER, {}),
    "rle_table": (exports.rle_table, SMALLER, {}),
    "object_masks": (exports.object_masks, SMALLER, {"train": _MASKS}),
    "ade20k_full": (exports.ade20k_full, LATER, {"class_names": list(_CLASSES)}),
}


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


# ------------------------------------------------- every tool


@pytest.mark.parametrize("name", TOOLS)
def test_masks_and_classes_of_every_tool(tmp_path: Path, name: str) -> None:
    write, order, keys = TOOLS[name]
    write(tmp_path)
    sizes = {}
    for split in ("train", "val"):
        dataset = opened(name, tmp_path, split, **keys)
        assert dataset.class_names == _CLASSES
        for index in range(len(dataset)):
            assert np.array_equal(target(dataset, index), expected(*order))
        sizes[split] = {dataset.files[index].image for index in range(len(dataset))}
    assert sizes["train"]
    assert sizes["val"]
    assert not sizes["train"] & sizes["val"]


@pytest.mark.parametrize("name", TOOLS)
def test_the_tool_is_named_where_another_dataset_was_chosen(tmp_path: Path, name: str) -> None:
    TOOLS[name][0](tmp_path)
    found = recognise(tmp_path)
    assert found is not None
    assert found.dataset == name
    folder = {"images": "images/train", "masks": "masks/train"}
    message = refusal("folder", tmp_path, num_classes=2, train=folder)
    assert message.endswith(f"{tmp_path} looks like {found.tool}, which dataset={name} reads")
    other = "labelme" if name != "labelme" else "cvat"
    assert refusal(other, tmp_path).endswith(f"which dataset={name} reads")


@pytest.mark.parametrize("name", ["cvat", "coco_instances", "labelme"])
def test_commands_name_the_tool(tmp_path: Path, name: str, capsys: Any, messages: Any) -> None:
    TOOLS[name][0](tmp_path)
    assert run_command("inspect", ["dataset=folder", f"dataset.root={tmp_path}"]) == 2
    assert any(f"dataset={name} reads it, with its classes" in text for text in messages)
    assert run_command("train", ["dataset=folder", f"dataset.root={tmp_path}"]) == 2
    assert f"which dataset={name} reads" in capsys.readouterr().err


def test_a_plain_folder_is_of_no_tool(tmp_path: Path) -> None:
    exports.photo(tmp_path / "images/train/a.png")
    exports.photo(tmp_path / "masks/train/a.png")
    exports.text(tmp_path / "notes.json", {"a": 1})
    exports.text(tmp_path / "table.csv", "a,b\n1,2\n")
    assert recognise(tmp_path) is None


def test_no_validation_split_holds_some_images_back(tmp_path: Path) -> None:
    exports.coco(tmp_path, 30)
    train, val = (opened("coco_instances", tmp_path, split) for split in ("train", "val"))
    assert len(train) + len(val) == 30
    assert 0 < len(val) < 12
    assert train.notes == [
        f"{tmp_path} has no validation split: 20 % of its images, chosen by their names, are held"
        " back (dataset.val_share)"
    ]
    half = opened("coco_instances", tmp_path, "val", val_share=0.5)
    assert len(half) > len(val)
    assert opened("coco_instances", tmp_path, val_share=0.5).notes == []


def test_shards_of_an_export_hold_its_masks(tmp_path: Path) -> None:
    source = opened("yolo", exports.yolo(tmp_path / "in"))
    make_shards(source, tmp_path / "out", "train")
    contract = {"num_classes": 3, "label_map": source.labels.label_map}
    index = {"shards": "train-index.jsonl"}
    shards = build_dataset("webdataset", root=str(tmp_path / "out"), train=index, **contract)
    assert np.array_equal(shards[0].target, expected(*SMALLER))


def test_training_starts_with_one_command(tmp_path: Path) -> None:
    exports.labelme(tmp_path / "data")
    words = ["dataset=labelme", f"dataset.root={tmp_path / 'data'}", f"run_dir={tmp_path / 'run'}"]
    words += ["trainer.max_steps=1", "trainer.batch_size=2", "loader.num_workers=0"]
    assert run_command("train", words) == 0
    scores = json.loads((tmp_path / "run/results.json").read_text())
    assert list(scores["per_class_iou"]) == list(_CLASSES)


# ------------------------------------------------- the classes


def test_classes_are_chosen_merged_and_ignored_by_name(tmp_path: Path) -> None:
    exports.coco(tmp_path)
    chosen = opened("coco_instances", tmp_path, class_names=["road", "car"])
    wanted = expected(*SMALLER, ids={"road": 10, "car": 11})
    wanted = np.select([wanted == 10, wanted == 11], [0, 1], 255)
    assert np.array_equal(target(chosen), wanted)  # no class "background": it is ignored
    merged = opened("coco_instances", tmp_path, label_map={"car": "thing", "road": "thing"})
    assert merged.class_names == ("background", "thing")
    assert np.array_equal(target(merged), expected(*SMALLER, ids={"car": 1, "road": 1}))
    ignored = opened("coco_instances", tmp_path, label_map={"road": "ignore"})
    assert ignored.class_names == ("background", "car")
    assert np.array_equal(target(ignored), expected(*SMALLER, ids={"car": 1, "road": 255}))
    rest = opened("coco_instances", tmp_path, label_map={"car": "car", "other": "background"})
    assert rest.class_names == ("background", "car")
    assert np.array_equal(target(rest), expected(*SMALLER, ids={"car": 1, "road": 0}))
    one = opened("coco_instances", tmp_path, label_map={"road": "background"}, num_classes=1)
    assert one.num_classes == 1
    assert np.array_equal(target(one), expected(*SMALLER, ids={"car": 1, "road": 0}))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"class_names": ["background", "car"]}, "the export has the class 'road'"),
        ({"class_names": ["background", "car", "raod"]}, "the export has the class 'road'"),
        ({"class_names": ["background", "car", "road", "sky"]}, "the export has no class 'sky'"),
        ({"label_map": {"rod": "ignore"}}, "the export has no class 'rod'; did you mean 'road'"),
        ({"class_names": ["a", "car"], "label_map": {"road": "b"}}, "'b', the class of 'road'"),
        ({"num_classes": 7}, "dataset.num_classes=7, but there are 3 classes"),
    ],
)
def test_classes_that_do_not_fit(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    exports.coco(tmp_path)
    assert message in refusal("coco_instances", tmp_path, **keys)


@pytest.mark.parametrize("name", ["coco_instances", "labelme", "object_masks"])
def test_overlaps_are_kept_with_several_classes_per_pixel(tmp_path: Path, name: str) -> None:
    write, _, keys = TOOLS[name]
    write(tmp_path)
    dataset = opened(name, tmp_path, multi_label=True, **keys)
    assert dataset.class_names == ("car", "road")
    wanted = np.stack([rectangle(CAR), rectangle(ROAD)], 2)
    assert (wanted.sum(2) == 2).any()
    assert np.array_equal(target(dataset), wanted)
    ignored = opened(name, tmp_path, multi_label=True, label_map={"road": "ignore"}, **keys)
    assert ignored.class_names == ("car",)
    wanted = np.where(rectangle(ROAD), 255, rectangle(CAR))[..., None]
    assert np.array_equal(target(ignored), wanted)


def test_masks_of_one_class_per_pixel_refuse_several(tmp_path: Path) -> None:
    exports.cvat(tmp_path)
    assert "a pixel has one class" in refusal("cvat", tmp_path, multi_label=True)


def test_the_order_of_overlapping_objects_can_be_chosen(tmp_path: Path) -> None:
    exports.labelme(tmp_path)
    assert np.array_equal(target(opened("labelme", tmp_path)), expected(*LATER))
    smaller = opened("labelme", tmp_path, on_top="smaller")
    assert np.array_equal(target(smaller), expected(*SMALLER))


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
        ({"polygons": [[1, 2, 3, 4]]}, "an outline of 4 numbers is no polygon"),
        ({"polygons": [[1, 2, 3, 4, 5, float("nan")]]}, "a number that is not finite"),
        ({"rle": [5, 100]}, "its run lengths do not fit into 4 x 5 pixels"),
        ({"rle": [-1, 21]}, "its run lengths do not fit"),
        ({"rle": "abc"}, "cut off"),
        ({"rle": "\x01"}, "not text of COCO's compression"),
        ({"pixels": (np.ones((9, 9)), 0, 0)}, "leaves the image of 4 x 5"),
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
        assert dataset.class_names == _CLASSES
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
        (lambda c: c["annotations"][0].pop("segmentation"), "a box but no segmentation"),
        (lambda c: c["annotations"][0].update(category_id=99), "annotation 1 of the image"),
        (lambda c: c["images"][0].pop("height"), "an image has no valid 'height'"),
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
        ("5 0.1 0.1 0.2 0.1 0.2 0.2", "class 5, but data.yaml has the classes 0 to 1"),
        ("0 10 10 20 10 20 20", "corners must be shares of width and height"),
        ("0 0.1 0.1 0.2 0.1 0.2", "5 numbers after the class are no outline"),
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
    assert "no list of shapes or no imagePath" in refusal("labelme", tmp_path)
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
        (exports.supervisely_bitmap(np.ones((9, 9), bool), 38, 5), "leaves the image of 40 x 60"),
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


# ------------------------------------------------- CVAT and Roboflow


@pytest.mark.parametrize("mode", ["RGB", "P", "L"])
def test_cvat_masks_of_three_kinds(tmp_path: Path, mode: str) -> None:
    exports.cvat(tmp_path, mode=mode)
    dataset = opened("cvat", tmp_path)
    assert np.array_equal(target(dataset), expected(*LATER))
    assert dataset.palette == ((0, 0, 0), (250, 50, 83), (51, 221, 255))


def test_cvat_splits(tmp_path: Path) -> None:
    exports.cvat(tmp_path)
    lists = tmp_path / "ImageSets/Segmentation"
    (lists / "default.txt").unlink()
    exports.text(lists / "Train.txt", "shot 0\nshot 1\n")
    exports.text(lists / "Validation.txt", "shot 2\nshot 3\nshot 4\n")
    assert [len(opened("cvat", tmp_path, split)) for split in ("train", "val")] == [2, 3]


def test_cvat_merges_classes(tmp_path: Path) -> None:
    exports.cvat(tmp_path)
    dataset = opened("cvat", tmp_path, label_map={"car": "thing", "road": "thing"})
    assert np.array_equal(target(dataset), expected(*LATER, ids={"car": 1, "road": 1}))


def test_cvat_mistakes(tmp_path: Path) -> None:
    exports.cvat(tmp_path / "a", images=False)
    assert "export it again with Save images" in refusal("cvat", tmp_path / "a")
    exports.cvat(tmp_path / "b")
    mask = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    mask[3:5, :] = (1, 2, 3)
    for path in (tmp_path / "b/SegmentationClass").iterdir():
        Image.fromarray(mask).save(path)
    assert "colour (1, 2, 3)" in refusal("cvat", tmp_path / "b")
    exports.text(tmp_path / "b/labelmap.txt", "background:0,0,0::\ncar=3\n")
    assert "line 2: 'car=3' is not label:red,green,blue::" in refusal("cvat", tmp_path / "b")
    exports.cvat(tmp_path / "c")
    (tmp_path / "c/SegmentationClass/shot 3.png").unlink()
    assert "shot 3.png: the file does not exist" in refusal("cvat", tmp_path / "c")


def test_roboflow_test_split_and_missing_mask(tmp_path: Path) -> None:
    exports.roboflow(tmp_path)
    assert len(opened("roboflow", tmp_path, "test", test={"folder": "test"})) == 4
    next((tmp_path / "train").glob("*_mask.png")).unlink()
    assert "its mask" in refusal("roboflow", tmp_path)


# ------------------------------------------------- Label Studio


def test_label_studio_needs_its_tasks(tmp_path: Path) -> None:
    exports.label_studio(tmp_path, tasks=False)
    assert "export the project as JSON as well" in refusal("label_studio", tmp_path)


def test_label_studio_last_annotation_and_class_with_hyphens(tmp_path: Path) -> None:
    exports.label_studio(tmp_path, 3)
    for number in (1, 2, 3):  # a second annotator calls the whole image by another name
        mask = Image.fromarray(np.full((HEIGHT, WIDTH), 255, np.uint8))
        mask.save(tmp_path / f"masks/task-{number}-annotation-90-by-you-tag-sea-ice-0.png")
    dataset = opened("label_studio", tmp_path)
    assert dataset.class_names == ("background", "car", "road", "sea-ice")
    assert (target(dataset) == 3).all()
    assert "3 tasks have several annotations, of which the last counts" in dataset.notes


def test_label_studio_task_that_is_unknown(tmp_path: Path) -> None:
    exports.label_studio(tmp_path)
    next((tmp_path / "masks").iterdir()).rename(
        tmp_path / "masks/task-77-annotation-1-by-me-tag-car-0.png"
    )
    assert "task 77 is not in project-1.json" in refusal("label_studio", tmp_path)


# ------------------------------------------------- tables of run lengths


@pytest.mark.parametrize(
    ("heading", "order"),
    [
        ("ImageId,ClassId,EncodedPixels", "columns"),
        ("id,class,segmentation", "columns"),
        ("ImageId_ClassId,EncodedPixels", "columns"),
        ("Image_Label,EncodedPixels", "columns"),
        ("ImageId,ClassId,EncodedPixels", "rows"),
    ],
)
def test_tables_of_competitions(tmp_path: Path, heading: str, order: str) -> None:
    exports.rle_table(tmp_path, heading=heading, order=order)
    dataset = opened("rle_table", tmp_path, order=order)
    assert dataset.class_names == _CLASSES
    assert np.array_equal(target(dataset), expected(*SMALLER))


def test_a_table_of_one_class_with_images_without_it(tmp_path: Path) -> None:
    rows = ["img,rle_mask"]
    for number in range(4):
        exports.photo(tmp_path / f"train/{number}.png", number)
        rows.append(f"{number},{exports.runs(rectangle(CAR)) if number else ''}")
    exports.photo(tmp_path / "train/9.png", 9)
    exports.text(tmp_path / "train.csv", "\n".join(rows))
    names = ["background", "salt"]
    dataset = opened("rle_table", tmp_path, class_names=names, val_share=0.0,
                     val={"table": "train.csv"})  # fmt: skip
    assert dataset.class_names == tuple(names)
    assert [int(target(dataset, index).sum()) for index in range(4)] == [0, 300, 300, 300]
    assert "1 images are not in" in dataset.notes[0]
    more = opened("rle_table", tmp_path, val={"table": "train.csv"}, unlisted="background")
    assert len(more) == 5
    assert not target(more, 4).any()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0000.jpg,car,1 2 3", "line 2: 3 numbers are not pairs of start and length"),
        ("0000.jpg,car,2390 50", "ends at pixel 2439, but the image is 40 x 60, 2400 pixels"),
        ("0000.jpg,car,a b", "'a b' is not a list of whole numbers"),
        ("0000.jpg,car", "line 2: 2 columns instead of 3"),
        ("none.jpg,car,1 2", "none.jpg: no image of this name"),
    ],
)
def test_tables_with_mistakes(tmp_path: Path, row: str, message: str) -> None:
    exports.rle_table(tmp_path)
    path = tmp_path / "train.csv"
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([first, row, *rest]))
    given = {"table": "train.csv", "images": "train_images"}
    assert message in refusal("rle_table", tmp_path, train=given, val=given)


def test_tables_with_other_headings(tmp_path: Path) -> None:
    exports.rle_table(tmp_path, heading="picture,kind,mask")
    assert "no CSV file with a column of run lengths" in refusal("rle_table", tmp_path)
    columns = {"image": "picture", "rle": "mask", "class": "kind"}
    dataset = opened("rle_table", tmp_path, columns=columns)
    assert np.array_equal(target(dataset), expected(*SMALLER))
    assert "did you mean 'mask'" in refusal("rle_table", tmp_path, columns={"rle": "masks"})


# ------------------------------------------------- one mask per object


def test_object_masks_of_one_class(tmp_path: Path) -> None:
    exports.object_masks(tmp_path)
    found = opened("object_masks", tmp_path)
    assert found.class_names == ("background", "object")
    assert np.array_equal(target(found), expected(*SMALLER, ids={"car": 1, "road": 1}))
    named = opened("object_masks", tmp_path, class_names=["background", "nucleus"])
    assert named.class_names == ("background", "nucleus")


def test_object_masks_in_one_folder_with_names_that_begin_alike(tmp_path: Path) -> None:
    for name in ("a", "a_car", "b"):
        exports.photo(tmp_path / f"images/{name}.jpg", len(name))
    for name, label in (("a", "road"), ("a_car", "car"), ("b", "car")):
        mask = np.where(rectangle(CAR), 1, 0).astype(np.uint8)
        path = tmp_path / f"masks/{name}_{label}_1.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(mask).save(path)
    given = {"images": "images/{image}.jpg", "masks": "masks/{image}_{class}_{object}.png"}
    dataset = opened("object_masks", tmp_path, train=given, val=given)
    found = {files.name: int(target(dataset, i).max()) for i, files in enumerate(dataset.files)}
    assert dataset.class_names == _CLASSES
    assert found == {"a": 2, "a_car": 1, "b": 1}


def test_object_masks_mistakes(tmp_path: Path) -> None:
    exports.object_masks(tmp_path)
    plain = {"images": "*/images/*.png", "masks": "{image}/masks/*.png"}
    assert "has no {image}" in refusal("object_masks", tmp_path, train=plain)
    none = {"images": "{image}/images/*.jpg", "masks": "{image}/masks/*.png"}
    assert "matches" in refusal("object_masks", tmp_path, train=none)


# ------------------------------------------------- ADE20K


def test_ade20k_full_needs_a_choice(tmp_path: Path) -> None:
    exports.ade20k_full(tmp_path)
    assert "about 3,000 names; choose some" in refusal("ade20k_full", tmp_path)
    chosen = opened("ade20k_full", tmp_path, class_names=["road"], label_map={"other": "ignore"})
    wanted = expected(*LATER, ids={"car": 9, "road": 2})
    assert np.array_equal(target(chosen), np.where(wanted == 2, 0, 255))


def test_objects_of_other_classes_than_declared(tmp_path: Path) -> None:
    exports.supervisely(tmp_path)
    exports.text(tmp_path / "meta.json", {"classes": [{"title": "car"}, {"title": "car"}]})
    assert "two classes 'car'" in refusal("supervisely", tmp_path)
    assert Drawn("car", CAR) in OBJECTS


def test_an_export_with_other_names_is_scored_by_the_line_to_paste(
    tmp_path: Path, capsys: Any
) -> None:
    """The second export has the classes in another order and calls one of them otherwise."""
    exports.labelme(tmp_path / "first")
    words = ["dataset=labelme", f"dataset.root={tmp_path / 'first'}", "run_dir=run"]
    words += ["trainer.max_steps=1", "trainer.batch_size=2", "loader.num_workers=0"]
    assert run_command("train", words) == 0
    scored = json.loads(Path("run/results.json").read_text())["per_class_iou"]
    exports.labelme(tmp_path / "second")
    for path in (tmp_path / "second").glob("*.json"):
        path.write_text(path.read_text().replace('"car"', '"the vehicle"'))
    given = ["checkpoint=run", f"dataset.root={tmp_path / 'second'}", "output=scores.json"]
    assert run_command("evaluate", given) == 2
    message = capsys.readouterr().err
    assert "if 'the vehicle' means 'car', add" in message
    line = message.partition("add ")[2].strip()
    assert run_command("evaluate", [*given, *shlex.split(line)]) == 0
    assert json.loads(Path("scores.json").read_text())["per_class_iou"] == pytest.approx(scored)
