"""Exports that hold masks, and tables of run lengths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cases import exports
from tests.cases.exports import (
    CAR,
    CLASSES,
    HEIGHT,
    LATER,
    OBJECTS,
    SMALLER,
    WIDTH,
    Drawn,
    expected,
    opened,
    rectangle,
    refusal,
    target,
)

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
    assert dataset.class_names == CLASSES
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
    assert dataset.class_names == CLASSES
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
    names = ["road", "background"]
    chosen = opened("ade20k_full", tmp_path, class_names=names, label_map={"other": "ignore"})
    wanted = expected(*LATER, ids={"car": 255, "road": 2})
    assert np.array_equal(target(chosen), np.select([wanted == 2, wanted == 0], [0, 1], 255))


def test_objects_of_other_classes_than_declared(tmp_path: Path) -> None:
    exports.supervisely(tmp_path)
    exports.text(tmp_path / "meta.json", {"classes": [{"title": "car"}, {"title": "car"}]})
    assert "two classes 'car'" in refusal("supervisely", tmp_path)
    assert Drawn("car", CAR) in OBJECTS
