"""The configs of published datasets, on tiny copies of the official folder layouts.

The meaning of raw values is written here again, from the sources that the configs name, or taken
from torchvision, so that a mistake in a config is found.
"""

from __future__ import annotations

import shlex
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from torchvision import datasets as official
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights
from torchvision.models.segmentation import FCN_ResNet50_Weights

import segtrain
from segtrain.cli.compose import compose_config
from segtrain.data import DATASETS, check_report, find_duplicates, scan_dataset
from segtrain.errors import ConfigError, DataError
from segtrain.files import config_dir
from tests.data.datasets.layouts import COCO_GAPS, RAW_VALUES, raw_mask, write_layout
from tests.helpers import SHARED

READY = sorted(RAW_VALUES)

NUM_CLASSES = {
    "ade20k": 150, "camvid": 11, "camvid32": 31, "cityscapes": 19, "coco_panoptic": 133,
    "coco_stuff10k": 171, "coco_stuff164k": 171, "crackforest": 2, "crackforest_png": 2,
    "drive": 1, "kvasir": 2, "lip": 20,
    "loveda": 7, "mapillary_vistas": 65, "oxford_pet": 2, "pascal_context59": 59,
    "pascal_context60": 60,
    "sbd": 21, "topomortar": 2, "voc2012": 21,
}  # fmt: skip

VOC = {0: "background", 1: "aeroplane", 5: "bottle", 15: "person", 16: "pottedplant",
       20: "tvmonitor"}  # fmt: skip
CONTEXT = {
    2: "aeroplane", 9: "bag", 19: "bedclothes", 23: "bicycle", 80: "cloth", 105: "curtain",
    115: "door", 158: "floor", 189: "ground", 258: "motorbike", 284: "person", 308: "pottedplant",
    349: "shelves", 354: "sidewalk", 397: "table", 416: "train", 427: "tvmonitor", 458: "wood",
}  # fmt: skip
NAMES: dict[str, dict[int, str | None]] = {
    "ade20k": {
        0: None, 1: "wall", 8: "bed", 9: "windowpane", 13: "person", 21: "car", 57: "pool table",
        90: "television", 101: "poster", 128: "bicycle", 137: "traffic light", 150: "flag",
    },
    "camvid": {
        0: "sky", 1: "building", 2: "pole", 3: "road", 4: "pavement", 5: "tree", 6: "sign_symbol",
        7: "fence", 8: "car", 9: "pedestrian", 10: "bicyclist", 11: None,
    },
    "camvid32": {
        0x000000: None, 0x408040: "Animal", 0x8000C0: "LaneMkgsDriv", 0x804080: "Road",
        0x8080C0: "RoadShoulder", 0x4080C0: "SUVPickupTruck", 0xC0C080: "Column_Pole",
        0xC00040: "LaneMkgsNonDriv", 0x40C000: "Wall", 0x808080: "Sky", 0x404000: "Pedestrian",
    },
    "cityscapes": {
        0: None, 4: None, 7: "road", 8: "sidewalk", 9: None, 11: "building", 14: None, 17: "pole",
        18: None, 19: "traffic light", 24: "person", 26: "car", 30: None, 31: "train",
        33: "bicycle",
    },
    "coco_panoptic": {
        0: None, 1: "person", 3: "car", 13: "stop sign", 27: "backpack", 67: "dining table",
        90: "toothbrush", 92: "banner", 112: "door-stuff", 149: "road", 181: "window-other",
        184: "tree-merged", 187: "sky-other-merged", 191: "pavement-merged", 200: "rug-merged",
    },
    "coco_stuff10k": {
        0: None, 1: "person", 12: None, 13: "stop sign", 66: None, 68: None, 83: None, 91: None,
        90: "toothbrush", 92: "banner", 106: "clouds", 133: "mirror-stuff", 149: "road",
        157: "sky-other", 169: "tree", 171: "wall-brick", 173: "wall-other", 182: "wood",
    },
    "coco_stuff164k": {
        0: "person", 11: None, 12: "stop sign", 65: None, 82: None, 89: "toothbrush", 90: None,
        91: "banner", 105: "clouds", 132: "mirror-stuff", 148: "road", 156: "sky-other",
        168: "tree", 170: "wall-brick", 172: "wall-other", 181: "wood", 255: None,
    },
    "crackforest": {1: "background", 2: "crack", 3: None, 4: None},
    "crackforest_png": {0: "background", 1: "crack", 255: None},
    "drive": {0: "background", 255: "vessel"},
    "kvasir": {0: "background", 255: "polyp"},
    "lip": {
        0: "Background", 1: "Hat", 5: "UpperClothes", 13: "Face", 14: "Left-arm", 15: "Right-arm",
        16: "Left-leg", 17: "Right-leg", 18: "Left-shoe", 19: "Right-shoe",
    },
    "loveda": {
        0: None, 1: "background", 2: "building", 3: "road", 4: "water", 5: "barren", 6: "forest",
        7: "agricultural",
    },
    "mapillary_vistas": {
        0: "Bird", 2: "Curb", 13: "Road", 19: "Person", 24: "Lane Marking - General", 27: "Sky",
        30: "Vegetation", 48: "Traffic Light", 50: "Traffic Sign (Front)", 55: "Car",
        64: "Ego Vehicle", 65: None,
    },
    "oxford_pet": {1: "pet", 2: "background", 3: None},
    "pascal_context59": {**CONTEXT, **dict.fromkeys((0, 1, 3, 100, 255, 459))},
    "pascal_context60": {**CONTEXT, **dict.fromkeys((0, 1, 3, 100, 255, 459), "background")},
    "sbd": {**VOC},
    "topomortar": {0: "brick", 255: "mortar"},
    "voc2012": {**VOC, 255: None},
}  # fmt: skip
"""Raw value to class, or None for an ignored value."""

COLOURS: dict[str, dict[str, tuple[int, int, int]]] = {
    "ade20k": {"wall": (120, 120, 120), "sky": (6, 230, 230), "car": (0, 102, 200)},
    "camvid": {"sky": (128, 128, 128), "road": (128, 64, 128), "bicyclist": (0, 128, 192)},
    "cityscapes": {"road": (128, 64, 128), "car": (0, 0, 142), "person": (220, 20, 60)},
    "coco_panoptic": {"person": (220, 20, 60), "road": (128, 64, 128), "tv": (183, 130, 88)},
    "lip": {"Background": (0, 0, 0), "Hair": (255, 0, 0), "Right-shoe": (255, 170, 0)},
    "loveda": {"building": (255, 0, 0), "water": (0, 0, 255), "agricultural": (255, 195, 128)},
    "mapillary_vistas": {"Road": (128, 64, 128), "Curb": (196, 196, 196), "Car": (0, 0, 142)},
    "voc2012": {"background": (0, 0, 0), "aeroplane": (128, 0, 0), "person": (192, 128, 128)},
}


NUM_SAMPLES = {"loveda": (2, 2), "drive": (15, 5)}
"""Of the training and the validation split in the copy of a layout, unless they are two and one."""


def read_config(name: str) -> dict[str, Any]:
    text = (config_dir() / "dataset" / f"{name}.yaml").read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    assert isinstance(config, dict)
    return config


def build(name: str, root: Path, split: str) -> Any:
    return DATASETS.build({**read_config(name), "root": str(root)}, split=split)


@pytest.fixture(params=READY)
def ready(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """Name of a dataset, and the directory of a copy of its layout."""
    write_layout(request.param, tmp_path)
    return request.param, tmp_path


def class_of(labels: Any, target: Any, chosen: Any) -> str | None:
    """Return the name of the class that the chosen pixels share; None if they are ignored."""
    (found,) = np.unique(target[chosen]).tolist()
    return None if found == labels.ignore_label else str(labels.names[found])


def classes_by_raw(name: str, root: Path) -> dict[int, str | None]:
    """Return the class of each raw value in the first training image."""
    dataset = build(name, root, "train")
    raw = raw_mask(name, 0)
    target = dataset[0].target
    return {
        int(value): class_of(dataset.labels, target, raw == value) for value in RAW_VALUES[name]
    }


# ------------------------------------------------------------------ every config


def test_every_config_of_a_published_dataset_is_tested() -> None:
    """RAW_VALUES is in layouts.py; the config of a dataset class has the name of the class."""
    found = [path.stem for path in (config_dir() / "dataset").glob("*.yaml")]
    assert {name for name in found if read_config(name)["name"] != name} == set(RAW_VALUES)
    assert set(RAW_VALUES) == set(NUM_CLASSES) == set(NAMES)


def test_the_layout_is_read(ready: tuple[str, Path]) -> None:
    name, root = ready
    train, val = (build(name, root, split) for split in ("train", "val"))
    assert (len(train), len(val)) == NUM_SAMPLES.get(name, (2, 1))
    assert train.title == name
    assert train.num_classes == NUM_CLASSES[name]
    assert not find_duplicates(train, val)
    samples = [*(train[i] for i in range(len(train))), val[0]]
    for number, (image, target, sample) in enumerate(samples):
        assert image.shape == (24, 32, 3), sample
        assert image.dtype == target.dtype == np.uint8
        raw = raw_mask(name, number)
        for value, expected in NAMES[name].items():
            assert class_of(train.labels, target, raw == value) == expected, (sample, value)


def test_the_scan_finds_nothing(ready: tuple[str, Path]) -> None:
    name, root = ready
    for split in ("train", "val"):
        report = scan_dataset(build(name, root, split), decode_images=True)
        check_report(report)
        assert report.findings == ()
        assert (report.class_pixels > 0).all()  # label_map leaves no class without a raw value
        assert (report.ignored_pixels > 0) == (None in NAMES[name].values())


def test_by_name(ready: tuple[str, Path]) -> None:
    name, root = ready
    dataset = segtrain.build_dataset(name, root=str(root), split="val")
    assert name in segtrain.list_datasets()
    np.testing.assert_array_equal(dataset[0].target, build(name, root, "val")[0].target)


@pytest.mark.parametrize("name", READY)
def test_a_wrong_root_is_one_message(name: str, tmp_path: Path) -> None:
    for split in ("train", "val"):
        with pytest.raises(DataError) as caught:
            build(name, tmp_path / "elsewhere", split)
        message = str(caught.value)
        assert f"dataset.{'train' if 'val_share' in read_config(name) else split}." in message
        assert str(tmp_path / "elsewhere") in message
        assert "\n" not in message
        assert ("dataset.download=true" in message) == ("source" in read_config(name))


@pytest.mark.parametrize("name", READY)
def test_the_file_is_readable(name: str) -> None:
    lines = (config_dir() / "dataset" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 120
    assert lines[0].startswith("# ")
    config = read_config(name)
    assert config["title"] == name
    assert config["root"].startswith(f"data/{name.removesuffix('59').removesuffix('60')[:4]}")
    assert {"class_names", "palette", "num_classes", "train"} <= set(config)
    assert ("val" in config) != ("val_share" in config)


# ------------------------------------------------------------------ names, colours, pairs


@pytest.mark.parametrize("name", sorted(COLOURS))
def test_colours_are_the_official_ones(name: str, tmp_path: Path) -> None:
    write_layout(name, tmp_path)
    labels = build(name, tmp_path, "val").labels
    for class_name, colour in COLOURS[name].items():
        assert labels.colours[labels.names.index(class_name)] == colour


def pascal_colour(index: int) -> tuple[int, ...]:
    """Return a colour by the rule of the devkit: every third bit of the index is of one channel."""
    bits = f"{index:024b}"[::-1]
    return tuple(int(bits[channel::3], 2) for channel in range(3))


def test_pascals_colours(tmp_path: Path) -> None:
    ids = {
        "voc2012": range(21), "sbd": range(21), "pascal_context60": range(60),
        "pascal_context59": range(1, 60),
        "coco_stuff10k": [id_ for id_ in range(1, 183) if id_ not in {*COCO_GAPS, 91}],
        "coco_stuff164k": [id_ for id_ in range(1, 183) if id_ not in {*COCO_GAPS, 91}],
    }  # fmt: skip
    for name, chosen in ids.items():
        palette = [tuple(colour) for colour in read_config(name)["palette"]]
        assert palette == [pascal_colour(index) for index in chosen], name


def test_cityscapes_is_as_torchvision_knows_it(tmp_path: Path) -> None:
    write_layout("cityscapes", tmp_path)
    known = {entry.id: entry for entry in official.Cityscapes.classes if entry.id >= 0}
    assert classes_by_raw("cityscapes", tmp_path) == {
        id_: None if entry.ignore_in_eval else entry.name for id_, entry in known.items()
    }
    labels = build("cityscapes", tmp_path, "train").labels
    for entry in known.values():
        if not entry.ignore_in_eval:
            assert (labels.names[entry.train_id], labels.colours[entry.train_id]) == (
                entry.name,
                entry.color,
            )
    assert labels.to_ids(np.array([[-1, 255]]), "a licence plate").tolist() == [[255, 255]]


@pytest.mark.parametrize("name", ["voc2012", "sbd"])
def test_voc_is_as_torchvision_knows_it(name: str, tmp_path: Path) -> None:
    write_layout(name, tmp_path)
    categories = FCN_ResNet50_Weights.DEFAULT.meta["categories"]
    found = classes_by_raw(name, tmp_path)
    assert [found[id_] for id_ in range(1, 21)] == categories[1:]


@pytest.mark.parametrize(
    ("name", "shift"), [("coco_panoptic", 0), ("coco_stuff10k", 0), ("coco_stuff164k", 1)]
)
def test_cocos_things_are_as_torchvision_knows_them(name: str, shift: int, tmp_path: Path) -> None:
    write_layout(name, tmp_path)
    categories = FasterRCNN_ResNet50_FPN_Weights.DEFAULT.meta["categories"]
    found = classes_by_raw(name, tmp_path)
    for id_, category in enumerate(categories[1:], start=1):
        known = None if category == "N/A" else category
        assert found.get(id_ - shift) == known


def test_the_two_versions_of_coco_stuff_have_the_same_classes() -> None:
    small, large = read_config("coco_stuff10k"), read_config("coco_stuff164k")
    assert small["class_names"] == large["class_names"]
    assert small["palette"] == large["palette"]


def test_the_classes_of_pascal_context_are_in_the_order_of_their_ids(tmp_path: Path) -> None:
    write_layout("pascal_context59", tmp_path)
    found = [name for name in classes_by_raw("pascal_context59", tmp_path).values() if name]
    assert found == sorted(found)  # as labels.txt is alphabetical
    assert found == read_config("pascal_context60")["class_names"][1:]


def test_camvids_colours_are_all_known(tmp_path: Path) -> None:
    write_layout("camvid32", tmp_path)
    labels = build("camvid32", tmp_path, "train").labels
    found = classes_by_raw("camvid32", tmp_path)
    for colour, name in found.items():
        packed = (colour >> 16, colour >> 8 & 255, colour & 255)
        assert name is None or labels.colours[labels.names.index(name)] == packed


def test_left_and_right_change_places(tmp_path: Path) -> None:
    write_layout("lip", tmp_path)
    labels = build("lip", tmp_path, "train").labels
    pairs = [(labels.names[a], labels.names[b]) for a, b in labels.flip_pairs]
    assert pairs == [(f"Left-{part}", f"Right-{part}") for part in ("arm", "leg", "shoe")]
    for name in READY:
        sided = any("left" in str(word).lower() for word in read_config(name)["class_names"])
        assert sided == ("flip_pairs" in read_config(name))


# ------------------------------------------------------------------ single layouts


def test_torchvision_reads_the_same_layouts(tmp_path: Path) -> None:
    """torchvision finds its data where the configs expect it, and the masks are the same."""
    for name in ("voc2012", "sbd", "oxford_pet", "cityscapes"):
        write_layout(name, tmp_path / name)
    voc, sbd, pet, city = (
        tmp_path / name for name in ("voc2012", "sbd", "oxford_pet", "cityscapes")
    )
    pairs = {
        "voc2012": official.VOCSegmentation(voc, year="2012", image_set="train"),
        "sbd": official.SBDataset(sbd, image_set="train", mode="segmentation"),
        "oxford_pet": official.OxfordIIITPet(pet, split="trainval", target_types="segmentation"),
        "cityscapes": official.Cityscapes(city, split="train", target_type="semantic"),
    }
    for name, other in pairs.items():
        dataset = build(name, tmp_path / name, "train")
        assert len(other) == len(dataset)
        own = {dataset.read_mask(i).tobytes() for i in range(len(dataset))}
        assert {np.array(mask).astype(np.uint8).tobytes() for _, mask in other} == own


def test_masks_of_drive_with_a_palette(tmp_path: Path) -> None:
    write_layout("drive", tmp_path)
    dataset = build("drive", tmp_path, "train")
    assert [np.unique(dataset.read_mask(i)).tolist() for i in range(2)] == [[0, 255], [0, 1]]
    assert [np.unique(dataset[i].target).tolist() for i in range(2)] == [[0, 1], [0, 1]]


def test_the_splits_of_drive(tmp_path: Path) -> None:
    write_layout("drive", tmp_path)
    names = {
        split: [files.name for files in build("drive", tmp_path, split).files]
        for split in ("train", "val", "test")
    }
    assert names["train"] == [str(number) for number in range(21, 36)]
    assert names["val"] == [str(number) for number in range(36, 41)]
    assert names["test"] == ["01"]
    shutil.rmtree(tmp_path / "test")
    with pytest.raises(DataError, match=r"to go without a test split, set dataset\.test=null$"):
        build("drive", tmp_path, "test")


@pytest.mark.parametrize(("split", "file"), [("train", "training/mask/21_training_mask.gif"),
                                             ("val", "training/mask/36_training_mask.gif"),
                                             ("test", "test/mask/01_test_mask.gif")])  # fmt: skip
def test_the_field_of_view_of_drive(split: str, file: str, tmp_path: Path) -> None:
    write_layout("drive", tmp_path)
    view = np.zeros((24, 32), np.uint8)
    view[4:20, 8:24] = 255
    Image.fromarray(view).save(tmp_path / file, optimize=False)
    dataset = build("drive", tmp_path, split)
    target = dataset[0].target
    assert (target[view == 0] == 255).all()
    assert set(np.unique(target[view > 0])) == {0, 1}
    assert scan_dataset(dataset).ignored_pixels == (view == 0).sum()


def test_the_three_kinds_of_labels_of_topomortar(tmp_path: Path) -> None:
    write_layout("topomortar", tmp_path)

    def target(split: str, *words: str) -> Any:
        given = ["dataset=topomortar", f"dataset.root={tmp_path}", *words]
        return DATASETS.build(compose_config(given, "train")["dataset"], split=split)[0].target

    right = target("train")
    for word in ("noisy", "pseudo"):
        np.testing.assert_array_equal(target("train", f"dataset.labels={word}"), 1 - right)
        np.testing.assert_array_equal(target("val", f"dataset.labels={word}"), target("val"))
        dataset = segtrain.build_dataset("topomortar", root=str(tmp_path), labels=word)
        assert [files.mask.parts[-3] for files in dataset.files] == [word, word]
    for split in ("train", "val"):
        with pytest.raises(ConfigError) as caught:
            target(split, "dataset.labels=noise")
        assert str(caught.value) == (
            "dataset.labels: no set 'noise'; did you mean 'noisy'? Known: accurate, noisy, pseudo"
        )


def test_the_band_of_a_pet_as_a_class(tmp_path: Path) -> None:
    """The overrides are those that the config's comment gives."""
    write_layout("oxford_pet", tmp_path)
    lines = (config_dir() / "dataset" / "oxford_pet.yaml").read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.removeprefix("# ") for line in lines if line.startswith("#"))
    words = shlex.split(comment[comment.index("dataset.num_classes=3") :])
    words = ["dataset=oxford_pet", f"dataset.root={tmp_path}", *words]
    dataset = DATASETS.build(compose_config(words, "train")["dataset"], split="train")
    assert dataset.class_names == ("background", "pet", "band")
    assert np.unique(dataset[0].target).tolist() == [0, 1, 2]


def test_other_masks_beside_those_of_coco_stuff(tmp_path: Path) -> None:
    write_layout("coco_stuff164k", tmp_path)
    folder = tmp_path / "annotations" / "train2017"
    for mask in sorted(folder.glob("*.png")):
        Image.open(mask).save(folder / f"{mask.stem}_labelTrainIds.png")
    assert len(build("coco_stuff164k", tmp_path, "train")) == 2


def test_an_archive_is_read_in_place(tmp_path: Path) -> None:
    write_layout("ade20k", tmp_path / "ADEChallengeData2016")
    archive = tmp_path / "ADEChallengeData2016.zip"
    with zipfile.ZipFile(archive, "w") as stream:
        for path in sorted((tmp_path / "ADEChallengeData2016").rglob("*.*")):
            stream.write(path, path.relative_to(tmp_path))
    inside = build("ade20k", archive / "ADEChallengeData2016", "train")
    outside = build("ade20k", tmp_path / "ADEChallengeData2016", "train")
    assert len(inside) == 2
    np.testing.assert_array_equal(inside[1].target, outside[1].target)


def test_a_value_that_the_dataset_does_not_have(tmp_path: Path) -> None:
    write_layout("mapillary_vistas", tmp_path)
    mask = next((tmp_path / "training" / "labels").iterdir())
    raw = raw_mask("mapillary_vistas", 0)
    raw[0, :5] = 66
    Image.fromarray(raw.astype(np.uint8)).save(mask)
    with pytest.raises(DataError, match=rf"{mask.name}: the mask holds value 66 \(5 pixels\)"):
        check_report(scan_dataset(build("mapillary_vistas", tmp_path, "train")))


@pytest.mark.parametrize(
    ("name", "folder", "words", "sizes"),
    [
        ("drive", "drive", {"test": None}, (15, 5)),
        ("topomortar", "topomortar", {"labels": "noisy"}, (50, 20)),
        ("crackforest_png", "crackforest", {}, (64, 24)),
    ],
)
def test_the_data_itself(
    name: str, folder: str, words: dict[str, Any], sizes: tuple[int, int]
) -> None:
    root = SHARED / folder
    if not root.is_dir():
        pytest.skip(f"{root} is not here")
    train, val = (
        DATASETS.build({**read_config(name), **words, "root": str(root)}, split=split)
        for split in ("train", "val")
    )
    assert (len(train), len(val)) == sizes
    assert not [item for item in find_duplicates(train, val) if item.kind == "overlap"]
    report = scan_dataset(val)
    check_report(report)
    assert (report.class_pixels > 0).all()
    assert (report.invalid_pixels.sum() > 0) == (name == "drive")


def test_camvid_itself(camvid_root: Path) -> None:
    train, val = (build("camvid", camvid_root, split) for split in ("train", "val"))
    assert min(len(train), len(val)) > 50
    assert not find_duplicates(train, val)
    report = scan_dataset(val)
    check_report(report)
    assert (report.class_pixels > 0).all()
    assert report.ignored_pixels > 0
