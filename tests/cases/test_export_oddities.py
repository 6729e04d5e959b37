"""Odd exports that would give wrong targets in silence, or that a reader should accept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cases import exports
from tests.cases.exports import (
    CAR,
    LATER,
    SMALLER,
    expected,
    opened,
    rectangle,
    refusal,
    target,
)

INSTANCES = "annotations/instances_default.json"


def edited(root: Path, change: Callable[[Any], object], file: str = INSTANCES) -> Path:
    content = json.loads((root / file).read_text())
    change(content)
    (root / file).write_text(json.dumps(content))
    return root


# ------------------------------------------------- COCO


def test_ids_may_be_text_on_one_side(tmp_path: Path) -> None:
    def change(content: Any) -> None:
        for entry in [*content["images"], *content["categories"]]:
            entry["id"] = str(entry["id"])

    found = opened("coco_instances", edited(exports.coco(tmp_path), change))
    assert np.array_equal(target(found), expected(*SMALLER))


def test_a_category_called_background_is_the_background(tmp_path: Path) -> None:
    def change(content: Any) -> None:
        content["categories"].insert(0, {"id": 0, "name": "background"})
        content["annotations"][1]["category_id"] = 0  # the road of the first image

    root = edited(exports.coco(tmp_path), change)
    section = {"annotations": INSTANCES}
    found = opened("coco_instances", root, train=section, val=section)
    assert found.class_names == ("background", "car", "road")
    assert np.array_equal(target(found), expected("road", "car", ids={"road": 0, "car": 1}))


def test_a_class_of_the_validation_split_alone(tmp_path: Path) -> None:
    for split in ("train", "val"):
        exports.coco(tmp_path, 3, file=f"annotations/instances_{split}.json", images=split)

    def change(content: Any) -> None:
        content["categories"].append({"id": 9, "name": "bus"})
        content["annotations"][0]["category_id"] = 9

    edited(tmp_path, change, "annotations/instances_val.json")
    for split in ("train", "val"):
        assert opened("coco_instances", tmp_path, split).class_names[-1] == "bus"
    merged = opened("coco_instances", tmp_path, "val", label_map={"bus": "car"})
    assert np.array_equal(target(merged), expected(*SMALLER))


@pytest.mark.parametrize("name", ["images\\{}", "C:\\data\\{}", "/data/images/{}"])
def test_image_names_of_another_machine(tmp_path: Path, name: str) -> None:
    def change(content: Any) -> None:
        for entry in content["images"]:
            entry["file_name"] = name.format(entry["file_name"])

    assert len(opened("coco_instances", edited(exports.coco(tmp_path), change))) >= 4


RUNS = {"size": [60, 40], "counts": [0, 2400]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][0].update(segmentation=RUNS), "of an image of [60, 40]"),
        (
            lambda c: c["annotations"][0].update(segmentation={"size": [40, 60], "counts": None}),
            "its run lengths",
        ),
        (lambda c: c["annotations"][0].update(segmentation=[CAR]), "not a list of points"),
        (lambda c: c["annotations"][0].update(segmentation=CAR), "not a list of points"),
        (lambda c: c["annotations"][0].update(segmentation=[[]]), "it has no segmentation"),
        (lambda c: c["annotations"][0].update(image_id=99), "does not list, such as image_id 99"),
        (lambda c: c["images"][1].update(id=1), "1 images have the id of another one"),
        (lambda c: c["categories"][0].update(name=None), "a category has no name"),
        (lambda c: c.update(annotations=[]), "there is nothing to learn"),
    ],
)
def test_coco_mistakes_that_would_change_targets(tmp_path: Path, change: Any, message: str) -> None:
    root = edited(exports.coco(tmp_path), change)
    section = {"annotations": INSTANCES}
    assert message in refusal("coco_instances", root, train=section, val=section)


def test_several_files_of_a_split_are_named(tmp_path: Path) -> None:
    exports.coco(tmp_path, file="annotations/instances_train_a.json")
    exports.coco(tmp_path, file="annotations/instances_train_b.json")
    assert "are both of the train split" in refusal("coco_instances", tmp_path)
    for name in "ab":
        (tmp_path / f"annotations/instances_train_{name}.json").rename(tmp_path / f"{name}.json")
    message = refusal("coco_instances", tmp_path)
    assert "set dataset.train.annotations to one of its JSON files, a.json, b.json" in message


def test_an_export_inside_of_a_folder(tmp_path: Path) -> None:
    exports.coco(tmp_path / "export")
    assert f"try dataset.root={tmp_path / 'export'}" in refusal("coco_instances", tmp_path)


# ------------------------------------------------- YOLO


@pytest.mark.parametrize("names", ["{1: car, 2: road}", "{1: car, 2: road, 7: tree}"])
def test_yolo_classes_with_numbers_of_their_own(tmp_path: Path, names: str) -> None:
    exports.yolo(tmp_path)
    text = "train: images/train\nval: images/val\nnames: "
    exports.text(tmp_path / "data.yaml", text + names)
    for path in tmp_path.rglob("labels/*/*.txt"):
        car, road = path.read_text().splitlines()
        path.write_text(f"1{car[1:]}\n2{road[1:]}\n")
    assert np.array_equal(target(opened("yolo", tmp_path)), expected(*SMALLER))


def test_yolo_lists_of_another_machine_and_splits_without_objects(tmp_path: Path) -> None:
    exports.yolo(tmp_path)
    lines = [f"/content/mine/images/train/{number:03d}.jpg" for number in range(3)]
    exports.text(tmp_path / "train.txt", "\n".join(lines))
    exports.text(tmp_path / "data.yaml", "train: train.txt\nval: images/val\nnames: [car, road]\n")
    assert len(opened("yolo", tmp_path)) == 3
    shutil.rmtree(tmp_path / "labels/val")
    assert not target(opened("yolo", tmp_path, "val")).any()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("train: [images/train, images/gone]\nnames: [car, road]", "which does not exist below"),
        ("train: images/train\nnames: [car, road]\nkpt_shape: [2, 2]", "a dataset of keypoints"),
        ("train: images/train\nnames: {0: car, 1: no}", "names has 1: False"),
        ("train: images/train\nnames: {car: 0}", "names has car: 0"),
    ],
)
def test_yolo_files_of_other_kinds(tmp_path: Path, content: str, message: str) -> None:
    exports.yolo(tmp_path)
    exports.text(tmp_path / "data.yaml", content)
    assert message in refusal("yolo", tmp_path)


def test_yolo_label_files_without_an_image_are_noted(tmp_path: Path) -> None:
    exports.yolo(tmp_path)
    (tmp_path / "labels/train/000.txt").rename(tmp_path / "labels/train/00O.txt")
    notes = opened("yolo", tmp_path).notes
    assert notes == [f"1 label files have no image, such as {tmp_path}/labels/train/00O.txt"]


@pytest.mark.parametrize("name", ["yolo", "rle_table"])
def test_exif_orientation_is_asked_for_if_masks_have_no_size(tmp_path: Path, name: str) -> None:
    {"yolo": exports.yolo, "rle_table": exports.rle_table}[name](tmp_path)
    for path in tmp_path.rglob("*.jpg"):
        picture = Image.open(path)
        exif = picture.getexif()
        exif[0x0112] = 6
        picture.save(path, exif=exif)
    assert "set dataset.exif=apply" in refusal(name, tmp_path)
    assert len(opened(name, tmp_path, exif="ignore")) > 3


# ------------------------------------------------- labelme and Supervisely


def test_labelme_root_without_the_folders_of_other_splits(tmp_path: Path) -> None:
    exports.labelme(tmp_path, 4)
    exports.labelme(tmp_path / "test", 2)
    train, val = (opened("labelme", tmp_path, split) for split in ("train", "val"))
    assert len(train) + len(val) == 4
    section = {"annotations": "test"}
    assert len(opened("labelme", tmp_path, "test", test=section)) == 2


def test_labelme_class_of_the_validation_split_alone(tmp_path: Path) -> None:
    exports.labelme(tmp_path / "train", 2)
    exports.photo(tmp_path / "val/b.jpg", 9)
    exports.labelme_file(tmp_path / "val/b.json", [exports.labelme_shape("bus", CAR)])
    for split in ("train", "val"):
        found = opened("labelme", tmp_path, split)
        assert found.class_names == ("background", "bus", "car", "road")


def test_labelme_without_the_name_of_its_image(tmp_path: Path) -> None:
    exports.labelme(tmp_path)
    for path in tmp_path.glob("*.json"):
        edited(tmp_path, lambda content: content.update(imagePath=None), path.name)
    assert np.array_equal(target(opened("labelme", tmp_path)), expected(*LATER))


def test_labelme_without_any_shape(tmp_path: Path) -> None:
    for name in "ab":
        exports.photo(tmp_path / f"{name}.jpg", ord(name))
        exports.labelme_file(tmp_path / f"{name}.json", [])
    assert "none of its JSON files has a shape" in refusal("labelme", tmp_path)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"label": None, "points": CAR}, "a shape has no label"),
        ("x", "shapes is not a list of objects"),
        (exports.labelme_shape("car", [[3, 3]], "circle"), "a centre and a point on it"),
    ],
)
def test_labelme_shapes_that_are_not_valid(tmp_path: Path, shape: Any, message: str) -> None:
    exports.labelme(tmp_path)
    edited(tmp_path, lambda content: content["shapes"].append(shape), "img1.json")
    assert message in refusal("labelme", tmp_path)


def test_bitmaps_are_cut_off_at_the_edge(tmp_path: Path) -> None:
    item = exports.supervisely_bitmap(np.ones((9, 9), bool), 36, -2)
    found = target(opened("supervisely", exports.supervisely(tmp_path, objects=[item])))
    wanted = np.zeros_like(found)
    wanted[36:, :7] = 1
    assert np.array_equal(found, wanted)


def test_supervisely_datasets_in_datasets(tmp_path: Path) -> None:
    exports.supervisely(tmp_path, 3)
    (tmp_path / "ds0").rename(tmp_path / "train")
    exports.supervisely(tmp_path, 2)
    (tmp_path / "ds0").rename(tmp_path / "train/datasets")
    exports.text(tmp_path / "train/ann/.DS_Store", "")
    exports.supervisely(tmp_path, 2)
    for number, path in enumerate([*tmp_path.rglob("*.jpg")]):
        exports.photo(path, number)
    found = opened("supervisely", tmp_path, val_share=0.2)
    assert len(found) + len(opened("supervisely", tmp_path, "val", val_share=0.2)) == 5
    assert "folders that belong to no split are not used: ds0" in found.notes


def test_supervisely_files_that_are_not_annotations(tmp_path: Path) -> None:
    exports.supervisely(tmp_path)
    exports.text(tmp_path / "ds0/ann/00.jpg.json", [])
    assert "is not an annotation of Supervisely" in refusal("supervisely", tmp_path)
    exports.supervisely(tmp_path)
    exports.text(
        tmp_path / "meta.json",
        {"classes": [{"title": "car", "color": "#GG0010"}, {"title": "road", "color": "red"}]},
    )
    assert np.array_equal(target(opened("supervisely", tmp_path)), expected(*LATER))


# ------------------------------------------------- CVAT and Roboflow


def test_cvat_labels_with_one_colour(tmp_path: Path) -> None:
    exports.cvat(tmp_path)
    exports.text(tmp_path / "labelmap.txt", "background:0,0,0::\ncar:1,2,3::\nroad:1,2,3::\n")
    assert "'road' has the colour of 'car'" in refusal("cvat", tmp_path)


def test_cvat_lists(tmp_path: Path) -> None:
    lists = exports.cvat(tmp_path) / "ImageSets/Segmentation"
    text = (lists / "default.txt").read_text().replace("\n", ".jpg\n")
    (lists / "default.txt").write_text(text)
    assert len(opened("cvat", tmp_path)) == 4  # names with endings
    (lists / "default.txt").rename(lists / "test.txt")
    assert "set dataset.train.list to" in refusal("cvat", tmp_path)
    assert "there are test.txt" in refusal("cvat", tmp_path)


def test_roboflow_splits_with_other_classes(tmp_path: Path) -> None:
    exports.roboflow(tmp_path)
    rows = "Pixel Value, Class\n0, background\n1, road\n2, car\n"
    exports.text(tmp_path / "valid/_classes.csv", rows)
    assert len(opened("roboflow", tmp_path)) == 4
    with pytest.raises(Exception, match="has other classes than that of the folder train"):
        opened("roboflow", tmp_path, "val")


# ------------------------------------------------- Label Studio, tables, masks per object


def test_label_studio_images_without_an_object_and_encoded_names(tmp_path: Path) -> None:
    exports.label_studio(tmp_path, 4)

    def change(tasks: Any) -> None:
        tasks[0]["annotations"].append({"id": 99, "result": []})
        tasks[1]["data"]["image"] = "/data/local-files/?d=my%20dir/scan-2%20x.jpg"

    (tmp_path / "images/scan-2.jpg").rename(tmp_path / "images/scan-2 x.jpg")
    edited(tmp_path, change, "project-1.json")
    found = opened("label_studio", tmp_path, folds=2, fold=0)
    more = opened("label_studio", tmp_path, "val", folds=2, fold=0)
    every = {files.name: target(part, i) for part in (found, more)
             for i, files in enumerate(part.files)}  # fmt: skip
    assert not every["scan-1"].any()
    assert np.array_equal(every["scan-2 x"], expected(*SMALLER))


def test_label_studio_tasks_with_one_image(tmp_path: Path) -> None:
    exports.label_studio(tmp_path, 3)
    edited(
        tmp_path,
        lambda tasks: tasks[1]["data"].update(image="/upload/1/00000002-scan-1.jpg"),
        "project-1.json",
    )
    assert "tasks 1 and 2 both have the image" in refusal("label_studio", tmp_path)


def test_label_studio_shorter_json(tmp_path: Path) -> None:
    exports.label_studio(tmp_path, 3)
    tasks = json.loads((tmp_path / "project-1.json").read_text())
    short = [{"id": task["id"], "image": task["data"]["image"], "tag": [{"brushlabels": ["car"]}]}
             for task in tasks]  # fmt: skip
    exports.text(tmp_path / "project-1.json", short)
    for path in (tmp_path / "masks").iterdir():
        path.rename(path.with_name(path.name.replace("me@home.org", "john-doe@x.org")))
    assert opened("label_studio", tmp_path).class_names == ("background", "car", "road")


def test_tables_beside_masks_and_with_images_of_one_name(tmp_path: Path) -> None:
    exports.rle_table(tmp_path, 4)
    (tmp_path / "train_images").rename(tmp_path / "images")
    (tmp_path / "train").mkdir()
    (tmp_path / "images").rename(tmp_path / "train/images")
    shutil.copytree(tmp_path / "train/images", tmp_path / "train/masks")
    found = opened("rle_table", tmp_path)
    assert {files.image.parent.name for files in found.files} == {"images"}
    given = {"table": "train.csv", "images": "train"}
    assert "have this name" in refusal("rle_table", tmp_path, train=given, val=given)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0000.jpg,,1 2", "line 2: it has run lengths but no class"),
        ("0000.jpg,car,0 5", "a run starts at 0, but starts count from 1"),
    ],
)
def test_table_rows_that_would_change_targets(tmp_path: Path, row: str, message: str) -> None:
    exports.rle_table(tmp_path)
    path = tmp_path / "train.csv"
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([first, row, *rest]))
    given = {"table": "train.csv"}
    assert message in refusal("rle_table", tmp_path, train=given, val=given)


def test_table_with_an_index_and_rows_without_an_object(tmp_path: Path) -> None:
    exports.rle_table(tmp_path)
    lines = (tmp_path / "train.csv").read_text().splitlines()
    lines += ["0001.jpg,-1,-1", "0001.jpg,nan,"]
    numbered = ["," + lines[0], *(f"{n},{line}" for n, line in enumerate(lines[1:]))]
    exports.text(tmp_path / "train.csv", "\n".join(numbered))
    found = opened("rle_table", tmp_path)
    assert found.class_names == ("background", "car", "road")
    assert np.array_equal(target(found), expected(*SMALLER))


def test_masks_of_no_image(tmp_path: Path) -> None:
    exports.object_masks(tmp_path)
    mask = Image.fromarray(np.where(rectangle(CAR), 255, 0).astype(np.uint8))
    (tmp_path / "zz/masks").mkdir(parents=True)
    mask.save(tmp_path / "zz/masks/car_0.png")
    assert "zz/masks/car_0.png belongs to no image" in refusal("object_masks", tmp_path)
