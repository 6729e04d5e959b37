"""Prediction from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtrain.cli.main import run_command
from segtrain.inference.writers.base import Target
from segtrain.inference.writers.layers import LayerWriter
from tests.helpers import THREE_STEPS


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_predict_writes_masks_at_the_size_of_the_images(tmp_path: Path) -> None:
    assert run_command("train", [*THREE_STEPS, "run_dir=run"]) == 0
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a.jpg", (50, 70)), ("b.png", (33, 31))):
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(
            tmp_path / "in" / name
        )
    assert run_command("predict", ["checkpoint=run", "input=in", "output=out", "device=cpu"]) == 0
    for stem, size in (("a", (50, 70)), ("b", (33, 31))):
        ids = np.array(Image.open(tmp_path / "out" / "ids" / f"{stem}.png"))
        colours = Image.open(tmp_path / "out" / "color" / f"{stem}.png")
        overlay = np.array(Image.open(tmp_path / "out" / "overlay" / f"{stem}.png"))
        assert ids.shape == size
        assert ids.max() < 6
        assert colours.mode == "P"
        assert np.array_equal(np.array(colours), ids)
        assert overlay.shape == (*size, 3)


def test_pixels_that_do_not_count(tmp_path: Path, last_line: Callable[[], str]) -> None:
    assert run_command("train", [*THREE_STEPS, "run_dir=run"]) == 0
    rng = np.random.default_rng(0)
    for folder in ("in", "fov"):
        (tmp_path / folder).mkdir()
    counts = np.zeros((40, 50), np.uint8)
    counts[5:30, 10:] = 255
    images = {}
    for name in ("1_test", "2_test"):
        images[name] = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(images[name]).save(tmp_path / "in" / f"{name}.png")
        Image.fromarray(counts).save(tmp_path / "fov" / f"{name}_mask.gif")
    words = ["checkpoint=run", "input=in", "device=cpu"]
    assert run_command("predict", [*words, "output=all"]) == 0
    assert run_command("predict", [*words, "output=out", "valid=fov"]) == 0
    for name, image in images.items():
        found = {
            folder: np.array(Image.open(tmp_path / "out" / folder / f"{name}.png"))
            for folder in ("ids", "overlay")
        }
        every = np.array(Image.open(tmp_path / "all" / "ids" / f"{name}.png"))
        assert every.max() < 6
        np.testing.assert_array_equal(found["ids"], np.where(counts, every, 255))
        colours = Image.open(tmp_path / "out" / "color" / f"{name}.png").convert("RGB")
        assert not np.array(colours)[counts == 0].any()
        np.testing.assert_array_equal(found["overlay"][counts == 0], image[counts == 0])
        assert (found["overlay"][counts > 0] != image[counts > 0]).any()
    assert run_command("predict", ["checkpoint=run", "input=in/1_test.png", "output=one",
                                   "device=cpu", "valid=fov/2_test_mask.gif"]) == 0  # fmt: skip
    assert run_command("predict", [*words, "output=out", "valid=nowhere"]) == 3
    assert "valid=nowhere: this directory or glob has no image files" in last_line()
    Image.fromarray(counts[:7]).save(tmp_path / "fov" / "2_test_mask.gif")
    assert run_command("predict", [*words, "output=out", "valid=fov/*.gif"]) == 3
    line = last_line()
    assert "fov/2_test_mask.gif: the valid file is 7 x 50 (height x width), but its image" in line
    assert "in/2_test.png is 40 x 50" in line
    (tmp_path / "fov" / "2_test_mask.gif").unlink()
    assert run_command("predict", [*words, "output=out", "valid=fov"]) == 3
    assert "valid: 1 image files have no valid file (in/2_test.png)" in last_line()


def test_predict_says_what_is_missing(tmp_path: Path, last_line: Callable[[], str]) -> None:
    assert run_command("train", [*THREE_STEPS, "run_dir=run"]) == 0
    assert run_command("predict", ["checkpoint=run", "input=absent", "output=out"]) == 3
    assert "absent" in last_line()
    (tmp_path / "empty").mkdir()
    assert run_command("predict", ["checkpoint=run", "input=empty", "output=out"]) == 3
    assert not (tmp_path / "out").exists()


def test_a_broken_file_does_not_end_the_others(
    tmp_path: Path, last_line: Callable[[], str], messages: list[str]
) -> None:
    assert run_command("train", [*THREE_STEPS, "run_dir=run"]) == 0
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for name in ("in/1.png", "in/sub/3.jpg"):
        Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "in" / "2.png").write_bytes(b"broken")
    words = ["checkpoint=run", "output=out", "device=cpu", "outputs=[ids]"]
    assert run_command("predict", [*words, "input=in"]) == 3
    written = sorted(str(path.relative_to("out")) for path in Path("out").rglob("*.png"))
    assert written == ["ids/1.png", "ids/sub/3.png"]
    assert "2 images predicted, written to out/{ids}" in messages
    assert any(text.startswith("in/2.png: the image file cannot be read") for text in messages)
    assert last_line().startswith(
        "error: 1 of 3 inputs failed and 2 were predicted: in/2.png: the image file cannot be read"
    )
    (tmp_path / "list.txt").write_text("in/absent.png\nin/1.png\nin/2.png\n")
    assert run_command("predict", [*words, "input=list.txt"]) == 3
    assert last_line() == (
        "error: 2 of 3 inputs failed and 1 were predicted: in/absent.png, in/2.png; the warnings"
        " say why"
    )
    assert run_command("predict", [*words, "input=in/2.png"]) == 3
    assert last_line().startswith("error: in/2.png: the image file cannot be read")


def test_wrong_keys_end_at_once(last_line: Callable[[], str]) -> None:
    words = ["checkpoint=run", "input=in", "output=out"]
    assert run_command("predict", [*words, "outputs=[ids,maps]"]) == 2
    assert "outputs must be a list of ('ids' or 'color'" in last_line()
    assert run_command("predict", [*words, "outputs=[]"]) == 2
    assert "outputs must name at least one kind of file" in last_line()
    assert run_command("predict", [*words, "min_area=0"]) == 2
    assert "min_area must be at least 1, got 0" in last_line()


def test_every_output_and_the_label_map_of_the_training(
    tmp_path: Path, messages: list[str]
) -> None:
    for index in range(8):
        for folder in ("images", "masks"):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
        pixels = np.zeros((40, 50, 3), np.uint8)
        pixels[:, 25:] = 200 + index
        Image.fromarray(pixels).save(tmp_path / "data" / "images" / f"{index}.png")
        mask = np.where(pixels[..., 0] > 0, [[30]], [[10 + index % 2]]).astype(np.uint8)
        Image.fromarray(mask).save(tmp_path / "data" / "masks" / f"{index}.png")
    dataset = ["dataset=folder", "dataset.root=data", "dataset.train.images=images",
               "dataset.train.masks=masks", "dataset.val_share=0.3", "dataset.num_classes=2",
               "'dataset.label_map={10-11: 0, 30: 1}'"]  # fmt: skip
    dataset[-1] = dataset[-1].strip("'")
    own = ("dataset.",)
    shared = [word for word in THREE_STEPS if not word.startswith(own)]
    assert run_command("train", [*shared, *dataset, "run_dir=run"]) == 0
    outputs = ["ids", "color", "overlay", "probabilities", "uncertainty", "labels", "geojson"]
    words = ["checkpoint=run", "input=data/images", "output=out", "device=cpu"]
    assert run_command("predict", [*words, f"outputs=[{','.join(outputs)},coco]"]) == 0
    assert any("the smallest is written: class_0 has 10 for 11" in text for text in messages)
    assert sorted(path.name for path in Path("out").iterdir()) == sorted([*outputs, "coco.json"])
    ids = np.array(Image.open("out/ids/0.png"))
    np.testing.assert_array_equal(Image.open("out/labels/0.png"), np.array([10, 30])[ids])
    Path("data/images/out").mkdir()
    again = [*words, "outputs=[ids]"]
    again[2] = "output=data/images/out"
    for _ in range(2):  # what it wrote is no input of the next run
        assert run_command("predict", again) == 0
    assert len([*Path("data/images/out").rglob("*.png")]) == 8


def test_an_image_that_cannot_be_written_does_not_end_the_others(
    tmp_path: Path, last_line: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_command("train", [*THREE_STEPS, "run_dir=run"]) == 0
    (tmp_path / "in").mkdir()
    for index in range(3):
        Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "in" / f"{index}.png")
    start = LayerWriter.start

    def fail(self: LayerWriter, target: Target) -> None:
        if target.stem == "1":
            raise PermissionError(13, "Permission denied", "out/ids/1.png")
        start(self, target)

    monkeypatch.setattr(LayerWriter, "start", fail)
    words = ["checkpoint=run", "input=in", "output=out", "device=cpu", "outputs=[ids,coco]"]
    assert run_command("predict", words) == 6
    assert "1 of 3 inputs failed and 2 were predicted: in/1.png" in last_line()
    found = json.loads(Path("out/coco.json").read_text())
    assert [image["file_name"] for image in found["images"]] == ["0.png", "2.png"]
    assert {one["image_id"] for one in found["annotations"]} == {1, 2}


def test_names_and_outputs_that_clash(last_line: Callable[[], str], tmp_path: Path) -> None:
    (tmp_path / "in" / "a.png").mkdir(parents=True)
    for name in ("a.jpg", "a.png/x.jpg"):
        Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "in" / name)
    words = ["checkpoint=run", "output=out", "device=cpu"]
    assert run_command("predict", [*words, "input=in"]) == 3
    assert "in/a.jpg would be written to a.png, which is the name of a folder" in last_line()
    (tmp_path / "out").write_text("a file")
    assert run_command("predict", [*words, "input=in/a.jpg"]) == 2
    assert last_line() == "error: output=out is a file; name a folder"
