"""Images with pixels without data, with other bit depths, with orientations, in rarer formats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, features

from segtrain.cli.main import run_command
from segtrain.data import EvalTransform, scan_dataset
from segtrain.data.scan.normalization import total_mean_std
from segtrain.errors import DataError
from tests.cases.helpers import advised, open_folder, problem, write_images
from tests.helpers import TINY

SHAPE = (24, 32)
NUMBER = "dataset.num_classes=2"
FLOAT_LEAST = float(np.finfo(np.float32).min)


def write_tiles(root: Path, images: list[np.ndarray], nodata: float | None = None) -> Path:
    """Write GeoTIFF tiles and masks of 0 and 1."""
    mask = (np.arange(SHAPE[1]) % 2)[None].repeat(SHAPE[0], 0).astype(np.uint8)
    write_images(root, [mask] * len(images))
    for index, image in enumerate(images):
        (root / f"images/{index:03d}.png").unlink()
        tag = None if nodata is None else [(42113, "s", 0, f"{nodata}", True)]
        path = root / f"images/{index:03d}.tif"
        plan = "contig" if image.shape[2] > 1 else None
        tifffile.imwrite(path, image, extratags=tag, photometric="minisblack", planarconfig=plan)
    return root


def tile(missing: float, seed: int = 0, channels: int = 3) -> np.ndarray:
    """Values from 0 to 1, with a corner without data."""
    rng = np.random.default_rng(seed)
    found = rng.random((*SHAPE, channels)).astype(np.float32)
    found[:6, :8] = missing
    return found


# ------------------------------------------------- pixels without data


@pytest.mark.parametrize("value", [-9999.0, FLOAT_LEAST, np.nan])
@pytest.mark.parametrize("how", ["tag", "key"])
def test_pixels_without_data_do_not_count(tmp_path: Path, value: float, how: str) -> None:
    images = [tile(value, seed) for seed in range(3)]
    write_tiles(tmp_path, images, value if how == "tag" else None)
    words = [NUMBER, "dataset.value_range=[0,1]"]
    if how == "key" and not np.isnan(value):
        words += [f"dataset.nodata={value!r}"]
    assert problem(tmp_path, *words) is None
    dataset = open_folder(tmp_path, *words)
    report = scan_dataset(dataset, decode_images=True)
    found = total_mean_std(report.mean_std, report.sizes)
    assert found is not None
    there = np.concatenate([image.reshape(-1, 3) for image in images])
    there = there[~(np.isnan(there) | (there == np.float32(value))).any(1)].astype(np.float64)
    np.testing.assert_allclose(found[0], there.mean(0), atol=1e-6)
    np.testing.assert_allclose(found[1], there.std(0), atol=1e-6)
    sample = dataset[0]
    transform = EvalTransform((0.4, 0.5, 0.6), (0.2,) * 3, dataset.labels)
    pixels, target = transform(sample.image, sample.target)
    pixels = transform.normalization(pixels)
    assert torch.isfinite(pixels).all()
    torch.testing.assert_close(pixels[:, :6, :8], torch.zeros(3, 6, 8), atol=1e-6, rtol=0)
    assert (target != 255).all()
    ignoring = open_folder(tmp_path, *words, "dataset.ignore_nodata=true")[0].target
    assert (ignoring[:6, :8] == 255).all()
    assert (ignoring == 255).sum() == 48


def test_mean_and_deviation_are_those_of_all_pixels_with_data(tmp_path: Path) -> None:
    """Images with much and with little data count by their pixels."""
    images = [tile(-9999, seed) for seed in range(3)]
    images[1][4:] = -9999
    images[2][:] = -9999
    images[0] = images[0] * np.float32(0.5)
    images[0][:6, :8] = -9999
    write_tiles(tmp_path, images, -9999)
    dataset = open_folder(tmp_path, NUMBER, "dataset.value_range=[0,1]")
    report = scan_dataset(dataset, decode_images=True)
    found = total_mean_std(report.mean_std, report.sizes)
    assert found is not None
    there = np.concatenate([image.reshape(-1, 3) for image in images]).astype(np.float64)
    there = there[(there != -9999).all(1)]
    np.testing.assert_allclose(found[0], there.mean(0), atol=1e-6)
    np.testing.assert_allclose(found[1], there.std(0), atol=1e-6)


def test_inspect_prints_the_mean_without_pixels_without_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], messages: list[str]
) -> None:
    write_tiles(tmp_path, [tile(-9999, seed) for seed in range(6)], -9999)
    (tmp_path / "images/notes.txt").write_text("x")
    words = ["dataset=folder", f"dataset.root={tmp_path}", NUMBER, "dataset.val_share=0.5"]
    words += ["dataset.train.images=images", "dataset.train.masks=masks", "output=report"]
    assert run_command("inspect", [*words, "dataset.value_range=[0,1]"]) == 0
    (line,) = (x for x in capsys.readouterr().out.splitlines() if "augmentation.mean=" in x)
    mean = line.partition("mean=[")[2].partition("]")[0]
    assert all(0.4 < float(value) < 0.6 for value in mean.split(","))
    assert any("other files are passed over: 1 .txt" in text for text in messages)


def test_black_images_without_data_leave_the_class_0_of_masks_alone(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(1, 255, (*SHAPE, 3), dtype=np.uint8)
    image[:4] = 0
    write_tiles(tmp_path, [image])
    sample = open_folder(tmp_path, NUMBER, "dataset.nodata=0")[0]
    assert np.isnan(sample.image[:4]).all()
    assert set(np.unique(sample.target)) == {0, 1}


@pytest.mark.parametrize("orientation", [3, 6])
def test_pixels_without_data_turn_with_their_image(tmp_path: Path, orientation: int) -> None:
    side = 24
    write_images(tmp_path, [np.zeros((side, side), np.uint8)])
    path = tmp_path / "images/000.png"
    pixels = np.array(Image.open(path)).clip(min=1)
    pixels[:5, :9] = 0
    Image.fromarray(pixels).save(path)
    turn(tmp_path, orientation)
    found = open_folder(tmp_path, NUMBER, "dataset.nodata=0", "dataset.exif=apply")[0].image
    expected = np.rot90((pixels == 0).all(2), {3: 2, 6: -1}[orientation])
    assert np.array_equal(np.isnan(found).all(2), expected)


def test_a_tag_of_zero_means_pixels_that_are_black_in_all_channels(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(1, 255, (*SHAPE, 3), dtype=np.uint8)
    image[:2] = 0
    image[2, :, 0] = 0  # red is 0, which is data
    write_tiles(tmp_path, [image], 0)
    found = open_folder(tmp_path, NUMBER)[0].image
    assert np.isnan(found[:2]).all()
    np.testing.assert_allclose(found[2:], image[2:] / 255, atol=1e-7)


@pytest.mark.parametrize("value", [-9999.0, FLOAT_LEAST])
def test_values_far_outside_the_range_are_found(tmp_path: Path, value: float) -> None:
    write_tiles(tmp_path, [tile(value)])
    message = problem(tmp_path, NUMBER, "dataset.value_range=[0,1]")
    assert message is not None
    assert "far outside dataset.value_range=[0.0, 1.0]" in message
    words = advised(message)
    assert words == [f"dataset.nodata={value!r}"]
    assert problem(tmp_path, NUMBER, "dataset.value_range=[0,1]", *words) is None


def test_floats_from_0_to_1_have_a_line_to_paste(tmp_path: Path) -> None:
    write_tiles(tmp_path, [tile(-9999)], -9999)
    with pytest.raises(DataError) as caught:  # training reads one sample before its first step
        open_folder(tmp_path, NUMBER)[0]
    words = advised(str(caught.value))
    assert words == ["dataset.value_range=[0,1]"]
    assert np.isfinite(open_folder(tmp_path, NUMBER, *words)[0].image[10:]).all()


def test_another_range_is_proposed(tmp_path: Path) -> None:
    write_tiles(tmp_path, [tile(0.5) * 3000])
    message = problem(tmp_path, NUMBER, "dataset.value_range=[0,1]")
    assert message is not None
    assert "set dataset.value_range=[" in message


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
@pytest.mark.parametrize("how", ["tag", "key"])
def test_masks_without_data(tmp_path: Path, dtype: Any, how: str) -> None:
    value = FLOAT_LEAST if dtype == np.float32 else -9999
    write_images(tmp_path, [np.zeros(SHAPE, np.uint8)])
    (tmp_path / "masks/000.png").unlink()
    mask = np.ones(SHAPE, dtype)
    mask[:3] = value
    tag = [(42113, "s", 0, f"{value}", True)] if how == "tag" else None
    tifffile.imwrite(tmp_path / "masks/000.tif", mask, extratags=tag)
    words = [NUMBER]
    if how == "key":
        message = problem(tmp_path, NUMBER)
        assert message is not None
        if dtype == np.float32:
            assert advised(message) == [f"dataset.nodata={value!r}"]
        words.append(f"dataset.nodata={value!r}")
    target = open_folder(tmp_path, *words)[0].target
    assert (target[:3] == 255).all()
    assert (target[3:] == 1).all()


def test_a_mask_that_declares_its_background_as_no_data_keeps_it(tmp_path: Path) -> None:
    write_images(tmp_path, [np.zeros(SHAPE, np.uint8)])
    (tmp_path / "masks/000.png").unlink()
    mask = (np.arange(SHAPE[1]) % 2)[None].repeat(SHAPE[0], 0).astype(np.uint8)
    tifffile.imwrite(tmp_path / "masks/000.tif", mask, extratags=[(42113, "s", 0, "0", True)])
    assert np.array_equal(open_folder(tmp_path, NUMBER)[0].target, mask)


# ------------------------------------------------- bit depths


@pytest.mark.parametrize(("bits", "top"), [(12, 4095), (10, 1023)])
def test_few_bits_in_16_bit_files(tmp_path: Path, bits: int, top: int) -> None:
    rng = np.random.default_rng(0)
    write_tiles(tmp_path, [rng.integers(0, 2**bits, (*SHAPE, 1), dtype=np.uint16)])
    message = problem(tmp_path, NUMBER, "dataset.channels=1")
    assert message is not None
    assert f"keeps {2**bits // 256} levels of them" in message
    words = advised(message)
    assert words == [f"dataset.value_range=[0,{top}]"]
    assert problem(tmp_path, NUMBER, "dataset.channels=1", *words) is None
    assert problem(tmp_path, NUMBER, "dataset.channels=1", "dataset.value_range=[0,65535]") is None


def train_words(root: Path, *more: str) -> list[str]:
    return [
        *(f"plugins=[{TINY}]", "model=tiny", "dataset=folder", f"dataset.root={root}", NUMBER),
        *("dataset.train.images=images", "dataset.train.masks=masks", "dataset.val_share=0.3"),
        *("trainer.max_steps=1", "trainer.batch_size=2", "loader.num_workers=0"),
        *("trainer.device=cpu", "run_dir=run", "augmentation.crop_size=[24,32]", *more),
    ]


def test_other_values_than_in_training_are_warned_of(tmp_path: Path, messages: list[str]) -> None:
    write_images(tmp_path / "small", [np.zeros(SHAPE, np.uint8)] * 8)
    assert run_command("train", train_words(tmp_path / "small")) == 0
    rng = np.random.default_rng(0)
    deep = [rng.integers(0, 4096, (*SHAPE, 3), dtype=np.uint16) for _ in range(8)]
    write_tiles(tmp_path / "deep", deep)
    words = ["checkpoint=run", f"input={tmp_path / 'deep/images'}", "output=out"]
    assert run_command("predict", words) == 0
    (text,) = (text for text in messages if "trained on" in text)
    messages.clear()
    assert "holds uint16 values from 0 to 40" in text
    assert "but the model was trained on uint8 values from 0 to 255" in text
    words = ["checkpoint=run", f"input={tmp_path / 'small/images'}", "output=out"]
    assert run_command("predict", words) == 0
    assert "trained on" not in "".join(messages)
    words = ["checkpoint=run", f"dataset.root={tmp_path / 'deep'}", "dataset.value_range=[0,4095]"]
    assert run_command("evaluate", words) == 0
    assert "the val images hold uint16 values" in "".join(messages)


# ------------------------------------------------- orientations


def turn(root: Path, orientation: int, *, masks: bool = False) -> None:
    for folder in ("images", *(("masks",) if masks else ())):
        for path in (root / folder).iterdir():
            image = Image.open(path)
            exif = Image.Exif()
            exif[0x0112] = orientation
            image.save(path, exif=exif)


@pytest.mark.fault("F30")
@pytest.mark.parametrize(
    ("orientation", "shape"), [(3, SHAPE), (2, SHAPE), (4, SHAPE), (6, (24, 24)), (8, (24, 24))]
)
def test_an_orientation_that_the_size_does_not_betray(
    tmp_path: Path, orientation: int, shape: tuple[int, int]
) -> None:
    write_images(tmp_path, [np.zeros(shape, np.uint8)] * 3)
    stored = np.array(Image.open(tmp_path / "images/000.png"))
    turn(tmp_path, orientation)
    message = problem(tmp_path, NUMBER)
    assert message is not None
    assert "3 of 3 images are like that" in message
    assert "dataset.exif=apply if the masks were drawn on images as a viewer shows them" in message
    assert problem(tmp_path, NUMBER, "dataset.exif=apply") is None
    assert np.array_equal(open_folder(tmp_path, NUMBER, "dataset.exif=ignore")[0].image, stored)
    turned = open_folder(tmp_path, NUMBER, "dataset.exif=apply")[0].image
    assert not np.array_equal(turned, stored)


@pytest.mark.fault("F30")
def test_an_orientation_of_both_is_applied_and_counted(tmp_path: Path) -> None:
    write_images(tmp_path, [np.zeros(SHAPE, np.uint8)] * 3)
    turn(tmp_path, 3, masks=True)
    dataset = open_folder(tmp_path, NUMBER)
    (finding,) = (f for f in scan_dataset(dataset).findings if f.kind == "oriented")
    assert finding.text.startswith("3 of 3 images have an EXIF orientation, which is applied")
    assert not finding.is_error


@pytest.mark.fault("F30")
def test_a_quarter_turn_is_told_by_the_size(tmp_path: Path) -> None:
    write_images(tmp_path, [np.zeros(SHAPE, np.uint8)])
    turn(tmp_path, 6)
    message = problem(tmp_path, NUMBER)
    assert message is not None
    assert "turn the mask by 90 degrees, or set dataset.exif=ignore" in message


# ------------------------------------------------- formats


@pytest.mark.parametrize("ending", ["jfif", "avif", "tga", "jp2", "pnm"])
def test_formats_that_pillow_reads(tmp_path: Path, ending: str) -> None:
    if ending == "avif" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    write_images(tmp_path, [np.zeros(SHAPE, np.uint8)] * 2)
    for path in (tmp_path / "images").iterdir():
        image = Image.open(path).convert("RGB")
        form = {"jfif": "JPEG", "pnm": "PPM", "jp2": "JPEG2000"}.get(ending)
        image.save(path.with_suffix(f".{ending}"), format=form)
        path.unlink()
    dataset = open_folder(tmp_path, NUMBER)
    assert len(dataset) == 2
    assert dataset[0].image.shape == (*SHAPE, 3)


def test_heic_without_its_package_is_named(tmp_path: Path) -> None:
    try:
        import pillow_heif  # noqa: F401

        pytest.skip("pillow-heif is installed")
    except ImportError:
        pass
    write_images(tmp_path, [np.zeros(SHAPE, np.uint8)])
    (tmp_path / "images/000.png").unlink()
    content = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(64)
    (tmp_path / "images/000.heic").write_bytes(content)
    message = problem(tmp_path, NUMBER)
    assert message is not None
    assert "a HEIC file needs the package pillow-heif: pip install pillow-heif" in message


def test_predict_counts_what_it_passes_over(
    tmp_path: Path, last_line: Callable[[], str], messages: list[str]
) -> None:
    write_images(tmp_path, [np.zeros(SHAPE, np.uint8)] * 8)
    assert run_command("train", train_words(tmp_path)) == 0
    (tmp_path / "images/a.raw").write_text("x")
    words = ["checkpoint=run", f"input={tmp_path / 'images'}", "output=out"]
    assert run_command("predict", words) == 0
    assert "passed over: 1 .raw" in "".join(messages)
    (tmp_path / "none").mkdir()
    (tmp_path / "none/a.raw").write_text("x")
    assert run_command("predict", [words[0], f"input={tmp_path / 'none'}", words[2]]) == 3
    assert "has no image, but 1 .raw" in last_line()
