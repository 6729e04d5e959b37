"""torchvision downloads the data; here a stub of its classes writes the files."""

from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image

from segtrain.data import DATASETS
from segtrain.errors import ConfigError, DataError

LISTS = {
    "list": "VOCdevkit/VOC2012/ImageSets/Segmentation/{}.txt",
    "images": "VOCdevkit/VOC2012/JPEGImages/{}.jpg",
    "masks": "VOCdevkit/VOC2012/SegmentationClass/{}.png",
}


def build(root, **keys):
    lists = {**LISTS, "list": LISTS["list"].format("train")}
    spec = {"name": "list", "root": str(root), "num_classes": 21, "train": lists,
            "source": "voc2012", **keys}  # fmt: skip
    return DATASETS.build(spec, split="train")


def make_voc(root):
    base = Path(root) / "VOCdevkit" / "VOC2012"
    for name in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass"):
        (base / name).mkdir(parents=True)
    (base / "ImageSets/Segmentation/train.txt").write_text("2007_000032\n")
    Image.new("RGB", (6, 4)).save(base / "JPEGImages/2007_000032.jpg")
    Image.fromarray(np.full((4, 6), 20, np.uint8)).save(base / "SegmentationClass/2007_000032.png")


@pytest.fixture
def calls(monkeypatch):
    found = []

    def download(root, **keys):
        found.append(keys)
        make_voc(root)

    monkeypatch.setattr(torchvision.datasets, "VOCSegmentation", download)
    return found


def test_files_that_are_missing_are_downloaded_once(tmp_path, calls):
    dataset = build(tmp_path / "voc", download=True)
    assert dataset[0].target.tolist() == [[20] * 6] * 4
    assert calls == [{"year": "2012", "image_set": "trainval", "download": True}]
    build(tmp_path / "voc", download=True)
    assert len(calls) == 1


def test_nothing_is_downloaded_without_the_key(tmp_path, calls):
    with pytest.raises(DataError, match=r"train\.txt.*; dataset\.download=true fetches the data"):
        build(tmp_path)
    with pytest.raises(
        ConfigError, match=r"dataset\.download=true needs dataset\.source, one of voc2012"
    ):
        build(tmp_path, source=None, download=True)
    assert calls == []


def test_a_failed_download_is_one_message(tmp_path, monkeypatch):
    def download(*_, **__):
        raise RuntimeError("File not found or corrupted.\nsecond line")

    monkeypatch.setattr(torchvision.datasets, "VOCSegmentation", download)
    with pytest.raises(
        DataError, match=r"dataset\.source=voc2012: .*corrupted\. second line.*by hand"
    ):
        build(tmp_path / "voc", download=True)


@pytest.mark.parametrize("name", ["VOCSegmentation", "SBDataset", "OxfordIIITPet"])
def test_torchvision_has_the_classes(name):
    assert callable(getattr(torchvision.datasets, name))
