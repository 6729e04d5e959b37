import json

import numpy as np
import pytest
from PIL import Image

from segtrain.data import DATASETS, check_report, scan_dataset
from segtrain.errors import DataError

CATEGORIES = {1: "person", 17: "cat", 200: "rug"}
SEGMENTS = np.array([[0, 3226956, 3226956], [70_000, 70_000, 9]])
OF_SEGMENT = {3226956: 17, 70_000: 200, 9: 1}


def write(root, segments=SEGMENTS, of_segment=OF_SEGMENT):
    for folder in ("images", "masks"):
        (root / folder).mkdir(exist_ok=True)
    height, width = segments.shape
    Image.new("RGB", (width, height)).save(root / "images" / "07.jpg")
    channels = [segments & 255, segments >> 8 & 255, segments >> 16]
    Image.fromarray(np.stack(channels, 2).astype(np.uint8)).save(root / "masks" / "07.png")
    content = {
        "images": [{"id": 7, "file_name": "07.jpg"}],
        "annotations": [
            {
                "image_id": 7,
                "file_name": "07.png",
                "segments_info": [{"id": k, "category_id": v} for k, v in of_segment.items()],
            }
        ],
        "categories": [{"id": k, "name": v} for k, v in CATEGORIES.items()],
    }
    (root / "panoptic.json").write_text(json.dumps(content))


def build(root, **keys):
    places = {"annotations": "panoptic.json", "images": "images", "masks": "masks"}
    spec = {
        "name": "coco", "root": str(root), "num_classes": 3, "train": places,
        "label_map": {0: "ignore", 1: 0, 17: 1, 200: 2}, **keys,
    }  # fmt: skip
    return DATASETS.build(spec, split="train")


def test_segments_become_classes(tmp_path, counted):
    write(tmp_path)
    dataset = build(tmp_path)
    np.testing.assert_array_equal(dataset[0].target, [[255, 1, 1], [2, 2, 0]])
    report = scan_dataset(dataset)
    check_report(report)
    assert report.class_pixels.tolist() == [1, 2, 2]
    counted.clear()
    scan_dataset(build(tmp_path))
    assert not counted  # known from the first scan


def test_other_categories_are_another_mask(tmp_path):
    write(tmp_path)
    scan_dataset(build(tmp_path))
    write(tmp_path, of_segment={**OF_SEGMENT, 9: 17})
    assert scan_dataset(build(tmp_path)).class_pixels.tolist() == [0, 3, 2]


def test_mistakes_are_named(tmp_path):
    write(tmp_path, of_segment={9: 1, 70_000: 200})
    with pytest.raises(DataError, match=r"07\.png: segment 3226956 \(2 pixels.*segments_info"):
        build(tmp_path)[0]
    write(tmp_path, of_segment={**OF_SEGMENT, 9: 18})
    with pytest.raises(DataError, match=r"07\.png: the mask holds value 18 \(1 pixel\)"):
        check_report(scan_dataset(build(tmp_path)))
    (tmp_path / "images" / "07.jpg").unlink()
    with pytest.raises(DataError, match=r"07\.jpg: the file does not exist, but .*panoptic\.json"):
        build(tmp_path)
    (tmp_path / "panoptic.json").write_text("{}")
    with pytest.raises(
        DataError, match=r"panoptic\.json is not of COCO's panoptic format: it lacks 'images'"
    ):
        build(tmp_path)
    with pytest.raises(DataError, match=r"dataset\.train\.annotations: .*absent\.json"):
        build(tmp_path, train={"annotations": "absent.json", "images": "i", "masks": "m"})
