"""Which files belong together: never a wrong pair, and a line to paste where none is certain."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtrain.cli.compose import compose_config
from segtrain.cli.main import run_command
from segtrain.data import DATASETS
from tests.cases.helpers import advised, open_folder, problem

NUMBER = "dataset.num_classes=2"


def fill(root: Path, *names: str) -> Path:
    """Write small images; each differs from the others."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((8, 8), number % 2, np.uint8)
        Image.fromarray(pixels).save(path)
    return root


def pairs(root: Path, *words: str) -> dict[str, str]:
    files = open_folder(root, NUMBER, *words).files
    return {sample.image.name: sample.mask.name for sample in files}


# ------------------------------------------------- digits


@pytest.mark.fault("F34")
@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (("left_0001", "right_0001"), ("left_0010", "right_0010")),
        (("a-1", "b-1"), ("a-2", "b-2")),
        (("a_frame1", "b_frame1"), ("a_frame10", "b_frame10")),
        (("t1/a", "t1/b"), ("t2/a", "t2/b")),
    ],
)
def test_files_of_two_frames_do_not_pair(
    tmp_path: Path, images: tuple[str, ...], masks: tuple[str, ...]
) -> None:
    fill(tmp_path, *(f"images/{name}.png" for name in images))
    fill(tmp_path, *(f"masks/{name}.png" for name in masks))
    message = problem(tmp_path, NUMBER)
    assert message is not None
    assert "2 image files have no mask" in message
    assert "dataset.pairing" not in message


def test_pairs_that_rest_on_an_ending_are_shown(tmp_path: Path) -> None:
    fill(tmp_path, *(f"images/{n}_x.png" for n in "abcd"))
    fill(tmp_path, *(f"masks/{n}_hand_made.png" for n in "abcd"))
    dataset = open_folder(tmp_path, NUMBER)
    assert dataset.notes == [
        "dataset.train: files pair by names without the ending that all share: a_x.png with"
        " a_hand_made.png, b_x.png with b_hand_made.png, c_x.png with c_hand_made.png"
    ]
    for path in (tmp_path / "masks").iterdir():
        path.rename(path.with_name(path.name.replace("_hand_made", "_x")))
    assert open_folder(tmp_path, NUMBER).notes == []  # equal names need no word


# ------------------------------------------------- the same file, names in two forms


@pytest.mark.fault("F34")
def test_an_image_is_not_its_own_mask(tmp_path: Path) -> None:
    fill(tmp_path, "images/a.png", "images/b.png")
    message = problem(tmp_path, NUMBER, "dataset.train.masks=images")
    assert message is not None
    assert f"{tmp_path}/images/a.png is its own mask" in message
    (tmp_path / "masks").symlink_to(tmp_path / "images")
    message = problem(tmp_path, NUMBER)
    assert message is not None
    assert "is its own mask" in message


@pytest.mark.fault("F42")
@pytest.mark.parametrize("name", ["Übung", "naïve é", "がぎ"])
def test_two_unicode_forms_of_a_name_pair(tmp_path: Path, name: str) -> None:
    one, other = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    assert one != other
    fill(tmp_path, f"images/{one}.png", f"masks/{other}.png", "images/b.png", "masks/b.png")
    assert pairs(tmp_path)[f"{one}.png"] == f"{other}.png"
    chosen = pairs(tmp_path, f"dataset.train.names=['{other}']")
    assert list(chosen) == [f"{one}.png"]


@pytest.mark.fault("F42")
@pytest.mark.parametrize("folder", ["data [v2]", "a*b", "what?"])
def test_a_root_with_the_signs_of_a_glob(tmp_path: Path, folder: str) -> None:
    root = fill(tmp_path / folder, "images/a.png", "masks/a.png", "masks/a.bmp", "images/x/b.png")
    words = ["dataset.train.images='images/*.png'", "dataset.train.masks='masks/*.png'"]
    given = [f"dataset.root='{root}'", *words]
    assert {s.image.name for s in open_folder(Path(), NUMBER, *given).files} == {"a.png"}


@pytest.mark.fault("F42")
def test_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    fill(tmp_path, "images/a.png", "masks/a.png")
    for folder in ("images", "masks"):
        source = tmp_path / folder / "a.png"
        for number in range(9):
            target = os.fsencode(tmp_path / folder) + b"/caf\xe9" + str(number).encode() + b".png"
            Path(os.fsdecode(target)).write_bytes(source.read_bytes())
    words = ["dataset=folder", f"dataset.root={tmp_path}", "dataset.train.images=images"]
    words += ["dataset.train.masks=masks", NUMBER, "dataset.val_share=0.4", "model=tiny"]
    words += [f"plugins=[{Path(__file__).parents[1] / 'tiny.py'}]", "trainer.max_steps=1"]
    words += ["trainer.batch_size=2", "loader.num_workers=0", "trainer.device=cpu"]
    words += ["augmentation.crop_size=[8,8]", "dataset.allow_overlap=true"]
    assert run_command("train", [*words, f"run_dir={tmp_path / 'run'}"]) == 0
    assert run_command("inspect", [*words[:6], f"output={tmp_path / 'report'}"]) in (0, 3)


# ------------------------------------------------- a line to paste


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("img_{}.png", "mask_{}.png"),
        ("photo-{}.png", "label-{}.png"),
        ("{}_im.png", "gt_{}.png"),
        ("case{}/image.png", "case{}/mask.png"),
    ],
)
def test_names_that_differ_at_their_start(tmp_path: Path, images: str, masks: str) -> None:
    numbers = ("07", "11", "23")
    fill(tmp_path, *(f"images/{images.format(n)}" for n in numbers))
    fill(tmp_path, *(f"masks/{masks.format(n)}" for n in numbers))
    words = advised(problem(tmp_path, NUMBER))
    assert words[0].startswith("dataset.pairing={")
    found = {
        sample.image.relative_to(tmp_path / "images").as_posix(): sample.mask.relative_to(
            tmp_path / "masks"
        ).as_posix()
        for sample in open_folder(tmp_path, NUMBER, *words).files
    }
    assert found == {images.format(n): masks.format(n) for n in numbers}


def test_several_masks_of_each_image(tmp_path: Path) -> None:
    names = ("bonn_1", "bonn_2", "ulm_1")
    fill(tmp_path, *(f"images/{n}_leftImg8bit.png" for n in names))
    for kind in ("color", "instanceIds", "labelIds"):
        fill(tmp_path, *(f"masks/{n}_gtFine_{kind}.png" for n in names))
    words = advised(problem(tmp_path, NUMBER))
    assert words == [f"dataset.train.masks={tmp_path}/masks/**/*_gtFine_labelIds.png"]
    expected = {f"{n}_leftImg8bit.png": f"{n}_gtFine_labelIds.png" for n in names}
    assert pairs(tmp_path, *words) == expected


@pytest.mark.fault("F34")
def test_images_without_a_mask_can_be_skipped(tmp_path: Path) -> None:
    fill(tmp_path, *(f"images/{n}.png" for n in "abcdef"), *(f"masks/{n}.png" for n in "abcd"))
    words = advised(problem(tmp_path, NUMBER))
    assert words == ["dataset.unpaired=skip"]
    dataset = open_folder(tmp_path, NUMBER, *words)
    assert len(dataset) == 4
    assert dataset.notes == [
        f"dataset.train: 2 files without a partner are left out, such as {tmp_path}/images/e.png"
    ]
    fill(tmp_path, "images/a.bmp")
    message = problem(tmp_path, NUMBER, *words)
    assert message is not None
    assert "a name without extension that is not unique" in message


def test_images_without_a_valid_file_can_be_skipped(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{folder}/{n}.png" for folder in ("images", "masks") for n in "abcd"))
    fill(tmp_path, *(f"fov/{n}.png" for n in "abc"))
    valid = "dataset.train.valid=fov"
    words = advised(problem(tmp_path, NUMBER, valid))
    assert words == ["dataset.unpaired=skip"]
    dataset = open_folder(tmp_path, NUMBER, valid, *words)
    assert [sample.name for sample in dataset.files] == ["a", "b", "c"]


@pytest.mark.fault("F42")
def test_names_of_a_list_in_another_unicode_form(tmp_path: Path) -> None:
    one, other = (unicodedata.normalize(form, "Übung") for form in ("NFC", "NFD"))
    fill(tmp_path, f"i/{other}.png", f"m/{other}.png", "i/b.png", "m/b.png")
    (tmp_path / "train.tsv").write_text(f"i/{other}.png\tm/{other}.png\ni/b.png\tm/b.png\n")
    words = ["dataset=list", f"dataset.root={tmp_path}", "dataset.train.list=train.tsv", NUMBER]
    for name in (one, other):
        config = compose_config([*words, f"dataset.train.names=['i/{name}']"])["dataset"]
        assert len(DATASETS.build(config, split="train")) == 1


# ------------------------------------------------- files that are passed over


def test_files_that_are_no_images_are_counted(tmp_path: Path) -> None:
    fill(tmp_path, "images/a.png", "masks/a.png", "images/b.jfif", "masks/b.png")
    for name in ("a.raw", "b.raw", "notes.txt", ".hidden"):
        (tmp_path / "images" / name).write_text("x")
    assert open_folder(tmp_path, NUMBER).notes == [
        "dataset.train.images: other files are passed over: 2 .raw and 1 .txt"
    ]
    for name in ("a.png", "b.jfif"):
        (tmp_path / "images" / name).unlink()
    message = problem(tmp_path, NUMBER)
    assert message is not None
    assert "images holds no image files (2 .raw and 1 .txt)" in message
