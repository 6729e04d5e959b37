"""Masks in files that are not a plain grey PNG: transparency, JPEG, MATLAB."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from PIL import Image

from segtrain.data.loading.memory_cache import CachedDataset
from tests.cases.helpers import advised, open_folder, problem, targets, write_images

SHAPE = (40, 48)
NUMBER = "dataset.num_classes=2"
OBJECT = np.zeros(SHAPE, bool)
OBJECT[8:30, 10:40] = True


# ------------------------------------------------- objects in the alpha channel


def drawn_as_transparency(mode: str, colour: int = 0) -> Image.Image:
    alpha = Image.fromarray(np.where(OBJECT, 255, 0).astype(np.uint8))
    picture = Image.new("RGBA", SHAPE[::-1], (colour, colour, colour, 0))
    picture.putalpha(alpha)
    return picture.convert(mode)


@pytest.mark.fault("F33")
@pytest.mark.parametrize(("mode", "colour"), [("RGBA", 0), ("RGBA", 255), ("LA", 0), ("LA", 90)])
def test_objects_in_the_alpha_channel_only(tmp_path: Path, mode: str, colour: int) -> None:
    write_images(tmp_path, [drawn_as_transparency(mode, colour)] * 2)
    words: list[str] = []
    for _ in range(2):  # the channel, then the values
        message = problem(tmp_path, NUMBER, *words)
        words += advised(message)
    assert words == ["dataset.mask_channel=alpha", "dataset.label_map={0:0,255:1}"]
    assert np.array_equal(targets(tmp_path, NUMBER, *words)[0], OBJECT)


@pytest.mark.fault("F33")
def test_objects_in_the_transparency_of_a_palette(tmp_path: Path) -> None:
    picture = Image.new("P", SHAPE[::-1], 0)
    picture.putpalette([9, 9, 9] * 2)
    picture.paste(1, (10, 8, 40, 30))
    write_images(tmp_path, [Image.new("L", SHAPE[::-1])])
    picture.save(tmp_path / "masks/000.png", transparency=bytes([0, 255]))
    assert np.array_equal(targets(tmp_path, NUMBER)[0], OBJECT)  # the indices differ
    words = ["dataset.mask_channel=alpha", "dataset.label_map={0:0,255:1}"]
    assert np.array_equal(targets(tmp_path, NUMBER, *words)[0], OBJECT)


def test_colours_and_alpha_together_are_colours(tmp_path: Path) -> None:
    mask = np.zeros((*SHAPE, 4), np.uint8)
    mask[OBJECT] = (255, 0, 0, 128)
    write_images(tmp_path, [mask])
    palette = "dataset.palette=[[0,0,0],[255,0,0]]"
    assert np.array_equal(targets(tmp_path, NUMBER, palette)[0], OBJECT)


def test_objects_in_one_channel_of_a_colour(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
    mask[..., 0] = OBJECT
    write_images(tmp_path, [mask])
    assert np.array_equal(targets(tmp_path, NUMBER, "dataset.mask_channel=0")[0], OBJECT)
    message = problem(tmp_path, NUMBER, "dataset.mask_channel=3")
    assert message is not None
    assert "the mask has 3 channels, but dataset.mask_channel=3" in message
    message = problem(tmp_path, NUMBER, "dataset.mask_channel=alpha")
    assert message is not None
    assert "the mask has no alpha channel" in message


# ------------------------------------------------- JPEG


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("quality", [60, 95])
def test_jpeg_masks_are_read_by_ranges(tmp_path: Path, mode: str, quality: int) -> None:
    picture = Image.fromarray(np.where(OBJECT, 255, 0).astype(np.uint8)).convert(mode)
    write_images(tmp_path, [picture], ending="jpg")
    picture.save(tmp_path / "masks/000.jpg", quality=quality)
    message = problem(tmp_path, NUMBER)
    assert message is not None
    assert "the mask is a JPEG file" in message
    assert "% of the pixels lie between" in message
    words = advised(message)
    assert words == ["dataset.label_map={0-127:0,128-255:1}"]
    found = targets(tmp_path, NUMBER, *words)[0]
    grey = np.asarray(Image.open(tmp_path / "masks/000.jpg").convert("L"))
    assert np.array_equal(found, grey >= 128)
    assert (found != OBJECT).mean() < 0.02


@pytest.mark.fault("F28")
def test_a_jpeg_mask_is_not_read_by_single_values(tmp_path: Path) -> None:
    picture = Image.fromarray(np.where(OBJECT, 255, 0).astype(np.uint8))
    write_images(tmp_path, [picture], ending="jpg")
    for label_map in ("{0:0,255:1}", "{0:0,other:1}"):
        message = problem(tmp_path, NUMBER, f"dataset.label_map={label_map}")
        assert message is not None
        assert "the mask is a JPEG file" in message


def test_a_jpeg_photograph_is_no_mask(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
    write_images(tmp_path, [noise], ending="jpg")
    message = problem(tmp_path, NUMBER)
    assert message is not None
    assert message.endswith("write the masks as PNG from their source")
    message = problem(tmp_path, NUMBER, "dataset.label_map={0-127:0,128-255:1}")
    assert message is not None


def test_a_cache_reads_soft_masks_as_the_files_do(tmp_path: Path) -> None:
    picture = Image.fromarray(np.where(OBJECT, 255, 0).astype(np.uint8))
    write_images(tmp_path, [picture] * 2, ending="jpg")
    dataset = open_folder(tmp_path, NUMBER, "dataset.label_map={0-127:0,128-255:1}")
    cached = CachedDataset(dataset, "compressed")
    cached.fill()
    assert np.array_equal(cached[1].target, dataset[1].target)


# ------------------------------------------------- MATLAB and .npz


def struct(**fields: Any) -> np.ndarray:
    found = np.empty((1, 1), dtype=[(name, object) for name in fields])
    for name, value in fields.items():
        found[name][0, 0] = value
    return found


SEGMENTATION = OBJECT.astype(np.uint16) + 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"groundTruth": struct(Segmentation=SEGMENTATION, Boundaries=OBJECT.astype(np.uint8))},
         ["dataset.mask_field=groundTruth.Segmentation"]),
        ({"gt": struct(inner=struct(edges=0 * SEGMENTATION, label=SEGMENTATION))},
         ["dataset.mask_field=gt.inner.label"]),
        ({"groundTruth": struct(Segmentation=SEGMENTATION)}, []),
        ({"a": 0 * SEGMENTATION, "mask": SEGMENTATION}, ["dataset.mask_field=mask"]),
    ],
)  # fmt: skip
def test_masks_in_a_matlab_struct(
    tmp_path: Path, content: dict[str, Any], words: list[str]
) -> None:
    write_images(tmp_path, [np.zeros(SHAPE, np.uint8)])
    (tmp_path / "masks/000.png").unlink()
    scipy.io.savemat(tmp_path / "masks/000.mat", content)
    label_map = "dataset.label_map={1:0,2:1}"
    if words:
        assert advised(problem(tmp_path, NUMBER, label_map)) == words
    assert np.array_equal(targets(tmp_path, NUMBER, label_map, *words)[0], OBJECT)


def test_masks_of_several_annotators_in_a_cell_array(tmp_path: Path) -> None:
    cells = np.empty((1, 2), dtype=object)
    cells[0, 0] = struct(Segmentation=SEGMENTATION, Boundaries=OBJECT)
    cells[0, 1] = struct(Segmentation=SEGMENTATION[::-1], Boundaries=OBJECT)
    write_images(tmp_path, [np.zeros(SHAPE, np.uint8)])
    (tmp_path / "masks/000.png").unlink()
    scipy.io.savemat(tmp_path / "masks/000.mat", {"groundTruth": cells})
    words = [NUMBER, "dataset.label_map={1:0,2:1}"]
    assert advised(problem(tmp_path, *words)) == ["dataset.mask_field=groundTruth.Segmentation"]
    for field, expected in (("Segmentation", OBJECT), ("1.Segmentation", OBJECT[::-1])):
        found = targets(tmp_path, *words, f"dataset.mask_field=groundTruth.{field}")[0]
        assert np.array_equal(found, expected)


def test_a_field_that_does_not_exist(tmp_path: Path) -> None:
    write_images(tmp_path, [np.zeros(SHAPE, np.uint8)])
    (tmp_path / "masks/000.png").unlink()
    scipy.io.savemat(tmp_path / "masks/000.mat", {"gt": struct(label=SEGMENTATION)})
    message = problem(tmp_path, NUMBER, "dataset.mask_field=gt.labels")
    assert message is not None
    assert "has no array 'gt.labels': it holds gt.label (40 x 48, uint16)" in message
    assert advised(message) == ["dataset.mask_field=gt.label"]


def matlab_7_3(path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w", userblock_size=512) as file:
        group = file.create_group("groundTruth")
        group.create_dataset("Segmentation", data=SEGMENTATION.T)
        group.create_dataset("Boundaries", data=OBJECT.T.astype(np.uint8))
    heading = b"MATLAB 7.3 MAT-file".ljust(512, b" ")
    path.write_bytes(heading + path.read_bytes()[512:])


def test_masks_in_a_matlab_file_of_version_7_3(tmp_path: Path) -> None:
    write_images(tmp_path, [np.zeros(SHAPE, np.uint8)])
    (tmp_path / "masks/000.png").unlink()
    matlab_7_3(tmp_path / "masks/000.mat")
    words = [NUMBER, "dataset.label_map={1:0,2:1}"]
    found = advised(problem(tmp_path, *words))
    assert found == ["dataset.mask_field=groundTruth.Segmentation"]
    assert np.array_equal(targets(tmp_path, *words, *found)[0], OBJECT)


def test_a_matlab_file_of_version_7_3_without_h5py(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path, [np.zeros(SHAPE, np.uint8)])
    (tmp_path / "masks/000.png").unlink()
    (tmp_path / "masks/000.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(512, b" "))
    monkeypatch.setitem(sys.modules, "h5py", None)
    message = problem(tmp_path, NUMBER)
    assert message is not None
    assert 'needs the package h5py: pip install "segtrain[matlab]"' in message


def test_masks_and_images_in_npz_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    pixels = rng.integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
    np.savez_compressed(tmp_path / "images/a.npz", image=pixels)
    np.savez_compressed(tmp_path / "masks/a.npz", edges=OBJECT[::-1], labels=OBJECT)
    assert advised(problem(tmp_path, NUMBER)) == ["dataset.mask_field=labels"]
    assert np.array_equal(targets(tmp_path, NUMBER, "dataset.mask_field=labels")[0], OBJECT)
