"""Exports of annotation tools, read as datasets; see ``exports.py`` for what the tools write."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segtrain import build_dataset
from segtrain.cli.main import run_command
from segtrain.data import make_shards
from segtrain.data.datasets.recognise import recognise
from tests.cases import exports
from tests.cases.exports import (
    CAR,
    CLASSES,
    LATER,
    ROAD,
    SMALLER,
    expected,
    opened,
    rectangle,
    refusal,
    target,
)

_MASKS = {"images": "{image}/images/*.png", "masks": "{image}/masks/{class}_*.png"}
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
    "ade20k_full": (exports.ade20k_full, LATER, {"class_names": list(CLASSES)}),
}


# ------------------------------------------------- every tool


@pytest.mark.parametrize("name", TOOLS)
def test_masks_and_classes_of_every_tool(tmp_path: Path, name: str) -> None:
    write, order, keys = TOOLS[name]
    write(tmp_path)
    sizes = {}
    for split in ("train", "val"):
        dataset = opened(name, tmp_path, split, **keys)
        assert dataset.class_names == CLASSES
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
    assert list(scores["per_class_iou"]) == list(CLASSES)


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
    line = message.partition("add ")[2].partition(", or ")[0].strip()
    assert run_command("evaluate", [*given, *shlex.split(line)]) == 0
    assert json.loads(Path("scores.json").read_text())["per_class_iou"] == pytest.approx(scored)


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
        ({"class_names": ["background", "car", "raod"]}, "no class 'raod'; did you mean 'road'?"),
        ({"class_names": ["background", "car", "road", "sky"]}, "the export has no class 'sky'"),
        ({"label_map": {"rod": "ignore"}}, "the export has no class 'rod'; did you mean 'road'"),
        ({"class_names": ["background", "car"], "label_map": {"road": "b"}}, "'b', the class of"),
        ({"class_names": ["car"], "label_map": {"other": "ignore"}}, "nothing to tell apart"),
        ({"class_names": []}, "nothing to tell apart"),
        (
            {
                "class_names": ["car", "background"],
                "num_classes": 1,
                "label_map": {"road": "ignore"},
            },
            "the object comes second; give [background,car]",
        ),
        ({"label_map": {0: "thing"}}, "the export has no class 0"),
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
