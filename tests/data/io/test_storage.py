import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtrain.data import DATASETS, read_image, scan_dataset
from segtrain.data.io.storage import find, is_directory, is_file, read_bytes, stamp, walk
from segtrain.errors import DataError

FOLDERS = {"images": "images", "masks": "masks"}


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(3):
        for kind, mode in (("images", "RGB"), ("masks", "L")):
            file = tmp_path / "set" / kind / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            shape = (4, 5, 3) if mode == "RGB" else (4, 5)
            Image.fromarray(rng.integers(0, 2, shape, dtype=np.uint8)).save(file)
    return tmp_path / "set"


def archive_of(folder, path, prefix=""):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, prefix + file.relative_to(folder).as_posix())
    return path


def build(root, train=FOLDERS, **keys):
    spec = {"name": "folder", "root": str(root), "num_classes": 2, "train": train, **keys}
    return DATASETS.build(spec, split="train")


@pytest.mark.parametrize("prefix", ["", "inner/"])
def test_an_archive_is_read_like_a_folder(folder, tmp_path, prefix, counted):
    archive = archive_of(folder, tmp_path / "set.zip", prefix)
    plain, packed = build(folder), build(archive / prefix)
    assert [files.name for files in packed.files] == ["0", "1", "2"]
    for index in range(3):
        for one, two in zip(plain[index][:2], packed[index][:2], strict=True):
            np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(
        scan_dataset(plain).class_pixels, scan_dataset(packed, decode_images=True).class_pixels
    )
    counted.clear()
    scan_dataset(packed)
    assert not counted  # known from the first scan


def test_a_tar_archive_is_read_like_a_folder(folder, tmp_path):
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        archive.add(folder, arcname=".")
    plain = build(folder)
    packed = build(tmp_path / "all.tar", {"images": "images", "masks": "masks/**/*.png"})
    for one, other in zip(plain, packed, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.target, other.target)
    assert scan_dataset(packed).class_pixels.tolist() == scan_dataset(plain).class_pixels.tolist()


def test_globs_and_one_archive_per_kind(folder, tmp_path):
    for kind in ("images", "masks"):
        archive_of(folder / kind, tmp_path / f"{kind}.zip")
    dataset = build(tmp_path, {"images": "images.zip", "masks": "masks.zip/*.png"})
    assert len(dataset) == 3
    dataset = build(
        archive_of(folder, tmp_path / "all.zip"), {"images": "**/images/*", "masks": "masks"}
    )
    assert len(dataset) == 3


def test_a_list_in_an_archive(folder, tmp_path):
    archive = archive_of(folder, tmp_path / "set.zip")
    with zipfile.ZipFile(archive, "a") as content:
        content.writestr("train.txt", "2\n0\n")
    lists = {"list": "train.txt", "images": "images/{}.png", "masks": "masks/{}.png"}
    spec = {"name": "list", "root": str(archive), "num_classes": 2, "train": lists}
    assert [files.name for files in DATASETS.build(spec, split="train").files] == ["2", "0"]


def test_damage_in_an_archive_is_named(folder, tmp_path):
    archive = archive_of(folder, tmp_path / "set.zip")
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as opened:
        info = opened.getinfo("images/1.png")
    content[info.header_offset + 45] ^= 255
    archive.write_bytes(content)
    finding = scan_dataset(build(archive), decode_images=True).findings[0]
    assert (finding.kind, finding.sample) == ("unreadable", 1)
    assert "set.zip" in finding.text
    assert "images/1.png" in finding.text
    archive.write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"set\.zip cannot be read as a zip archive"):
        build(archive)


def test_missing_members(folder, tmp_path):
    archive = archive_of(folder, tmp_path / "set.zip")
    with pytest.raises(DataError, match=r"images/9\.png: the image file does not exist"):
        read_image(archive / "images/9.png")
    with pytest.raises(FileNotFoundError):
        stamp(archive / "images/9.png")
    assert is_directory(archive / "images")
    assert not is_directory(archive / "imag")
    assert not is_file(archive / "images")
    assert read_bytes(archive / "images/0.png") == (folder / "images/0.png").read_bytes()


@pytest.mark.fault("F43")
def test_links_are_followed_and_loops_end(folder, tmp_path):
    (tmp_path / "linked").symlink_to(folder)
    (folder / "images" / "again").symlink_to(folder)
    names = sorted(path.name for path in walk(tmp_path / "linked" / "masks"))
    assert names == ["0.png", "1.png", "2.png"]
    found = list(walk(folder / "images"))
    assert len(found) == len({os.path.realpath(path) for path in found}) == 6
    assert [path.name for path in find(folder / "images/*.png", folder / "images")].count(
        "0.png"
    ) == 1


@pytest.mark.fault("F58")
def test_a_member_never_leaves_the_archive(tmp_path):
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr("../../images/a.png", b"")
        content.writestr("masks/a.png", b"")
    before = set(tmp_path.parent.rglob("*"))
    with pytest.raises(DataError):
        build(archive)
    assert set(Path(tmp_path).parent.rglob("*")) == before
