from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtrain.data import DATASETS, FileDataset, FolderDataset, LabelContract
from segtrain.errors import ConfigError, DataError

PLACES = {"images": "i", "masks": "m"}


def fill(root, images, masks):
    for folder, names in (("i", images), ("m", masks)):
        for name in names:
            file = Path(root, folder, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 3)).save(file)


def names_of(root, train=PLACES):
    dataset = FolderDataset(num_classes=2, root=str(root), train=train)
    return {name: mask.name for _, (mask,), name in dataset.files}


@pytest.mark.parametrize(
    ("images", "masks", "pairs"),
    [
        (["b.jpg", "a.png"], ["a.png", "b.png"], {"a": "a.png", "b": "b.png"}),
        (["c/x.jpg", "d/x.jpg"], ["c/x.png", "d/x.png"], {"c/x": "x.png", "d/x": "x.png"}),
        (
            ["x_leftImg8bit.png", "y_leftImg8bit.png"],
            ["x_gtFine_labelIds.png", "y_gtFine_labelIds.png"],
            {"x": "x_gtFine_labelIds.png", "y": "y_gtFine_labelIds.png"},
        ),
        (["x.jpg"], ["x_mask.png"], {"x": "x_mask.png"}),
        (["x1.jpg", "x10.jpg"], ["x1_label.png", "x10_label.png"],
         {"x1": "x1_label.png", "x10": "x10_label.png"}),
        (["f1_cam.jpg", "f2_cam.jpg"], ["f1_hand_made.png", "f2_hand_made.png"],
         {"f1": "f1_hand_made.png", "f2": "f2_hand_made.png"}),
    ],
)  # fmt: skip
def test_pairs_by_name(tmp_path, images, masks, pairs):
    fill(tmp_path, images, masks)
    assert names_of(tmp_path) == pairs
    assert list(names_of(tmp_path)) == sorted(pairs)


def test_globs_and_absolute_places(tmp_path):
    fill(tmp_path, ["a/x.jpg", "b/y.jpg"], ["a/x.png", "b/y.png", "b/y.txt.bmp"])
    places = {"images": str(tmp_path / "i/*/*.jpg"), "masks": "m/**/*.png"}
    assert names_of(tmp_path, places) == {"a/x": "x.png", "b/y": "y.png"}


def test_order_never_decides(tmp_path):
    fill(tmp_path, ["p.jpg", "q.jpg"], ["r.png", "s.png"])
    with pytest.raises(DataError) as caught:
        names_of(tmp_path)
    text = str(caught.value)
    assert "dataset.train" in text
    assert all(
        str(tmp_path / part) in text for part in ("i/p.jpg", "i/q.jpg", "m/r.png", "m/s.png")
    )
    assert "2 image files have no mask" in text
    assert "2 mask files have no image" in text


def test_unmatched_files_are_listed_up_to_twenty(tmp_path):
    fill(tmp_path, [f"{n:03d}.jpg" for n in range(30)], ["000.png", "extra.png"])
    with pytest.raises(DataError) as caught:
        names_of(tmp_path)
    text = str(caught.value)
    assert "29 image files have no mask" in text
    assert "020.jpg" in text
    assert "021.jpg" not in text
    assert "extra.png" in text


def test_case_and_duplicates_are_reported(tmp_path):
    fill(tmp_path / "case", ["A.jpg"], ["a.png"])
    with pytest.raises(DataError, match=r"A\.jpg"):
        names_of(tmp_path / "case")
    fill(tmp_path / "twice", ["a.jpg", "a.png"], ["a.png"])
    with pytest.raises(DataError, match=r"share their name.*a\.jpg.*a\.png"):
        names_of(tmp_path / "twice")


def test_an_empty_place_is_named(tmp_path):
    fill(tmp_path, ["a.jpg"], ["a.png"])
    with pytest.raises(DataError, match=r"dataset\.train\.masks=nowhere.*dataset\.root"):
        names_of(tmp_path, {"images": "i", "masks": "nowhere"})
    with pytest.raises(DataError, match=r"dataset\.train\.images=i/\*\.bmp"):
        names_of(tmp_path, {"images": "i/*.bmp", "masks": "m"})


def test_a_split_that_is_not_configured(tmp_path):
    with pytest.raises(ConfigError, match=r"dataset\.val\.images"):
        FolderDataset(num_classes=2, root=str(tmp_path), train=PLACES, split="val")
    with pytest.raises(ConfigError, match="did you mean 'images'"):
        names_of(tmp_path, {"image": "i", "masks": "m"})
    with pytest.raises(ConfigError, match="'test'"):
        FolderDataset(num_classes=2, root=str(tmp_path), train=PLACES, split="test")


def test_a_sample_from_the_registry(tmp_path):
    fill(tmp_path, ["a.jpg"], ["a.png"])
    spec = {"name": "folder", "root": str(tmp_path), "train": PLACES, "num_classes": 2}
    dataset = DATASETS.build(spec, split="train")
    image, target, name = dataset[0]
    assert (image.shape, image.dtype) == ((3, 4, 3), np.uint8)
    assert (target.shape, target.dtype) == ((3, 4), np.uint8)
    assert (name, len(dataset), dataset.num_classes) == ("a", 1, 2)


def test_shapes_must_agree(make_files):
    files = make_files(np.zeros((2, 8)), size=(4, 4))
    with pytest.raises(DataError, match=r"masks/00\.png.*2 x 8.*images/00\.png.*4 x 4"):
        FileDataset(LabelContract(2), files)[0]


def test_turned_masks_are_recognised(make_files):
    files = make_files(np.zeros((2, 8)), size=(8, 2))
    with pytest.raises(DataError, match="turn the mask"):
        FileDataset(LabelContract(2), files)[0]
