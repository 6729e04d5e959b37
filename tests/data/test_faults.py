"""Faults of real data: each ends the run before the first step, with the file and a fix.

``tests/fault_table.py`` names the faults, F28 to F45.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import resource
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import Tensor

import segtrain
from segtrain import Predictor
from segtrain.cli.main import run_command
from segtrain.data import DATASETS, read_image
from segtrain.losses import LOSSES
from tests.helpers import TINY

WORDS = [
    f"plugins=[{TINY}]",
    "model=tiny",
    "dataset=folder",
    "dataset.num_classes=4",
    "trainer.batch_size=2",
    "trainer.max_steps=2",
    "trainer.log_images=0",
    "trainer.device=cpu",
    "loader.num_workers=0",
]
SHAPE = (24, 32)
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder without faults: six images for training, two for validation."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for kind in ("images", "masks"):
            (tmp_path / kind / split).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(image_of(tmp_path, split, index))
            ids = rng.integers(0, 4, SHAPE, dtype=np.uint8)
            Image.fromarray(ids).save(mask_of(tmp_path, split, index))
    return tmp_path


def image_of(root: Path, split: str = "train", index: int = 0, suffix: str = "png") -> Path:
    return root / "images" / split / f"{split}{index}.{suffix}"


def mask_of(root: Path, split: str = "train", index: int = 0) -> Path:
    return root / "masks" / split / f"{split}{index}.png"


@pytest.fixture
def run(root: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Train; return the exit code and the last line, and check that a failed run wrote nothing."""

    def start(*words: str) -> tuple[int, str]:
        logging.getLogger(
            "segtrain"
        ).handlers.clear()  # they write to the stream of an earlier test
        given = [*WORDS, f"dataset.root={root}", f"run_dir={root / 'run'}", *words]
        code = run_command("train", given)
        text = capsys.readouterr().err
        assert "Traceback" not in text
        assert code == 0 or not (root / "run").exists()
        return code, text.strip().splitlines()[-1] if text.strip() else ""

    return start


def assert_refused(run: Run, *parts: str | Path, words: tuple[str, ...] = (), code: int = 3) -> str:
    found, line = run(*words)
    assert (found, [str(part) for part in parts if str(part) not in line]) == (code, []), line
    return line


def test_data_without_faults(run: Run) -> None:
    assert run()[0] == 0


# ---------------------------------------------------------------------- files


@pytest.mark.fault("F28")
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99, 0.999])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated_images(root: Path, run: Run, suffix: str, share: float) -> None:
    image_of(root, index=3).unlink()
    file = image_of(root, index=3, suffix=suffix)
    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 256, (*SHAPE, 3), dtype=np.uint8)).save(file)
    content = file.read_bytes()
    file.write_bytes(content[: min(int(len(content) * share), len(content) - 1)])
    assert_refused(run, file, "truncated", "replace it")
    code, _ = run("dataset.max_bad=0.2")
    assert code == 0
    assert str(file) in (root / "run" / "left_out.txt").read_text()


@pytest.mark.fault("F28")
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99, 0.999])
def test_truncated_masks(root: Path, run: Run, share: float) -> None:
    content = mask_of(root).read_bytes()
    mask_of(root).write_bytes(content[: min(int(len(content) * share), len(content) - 1)])
    assert_refused(run, mask_of(root), "truncated", "replace it")


@pytest.mark.fault("F28")
@pytest.mark.parametrize("kind", ["images", "masks"])
def test_inspect_names_truncated_files(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(root)
    file = image_of(root) if kind == "images" else mask_of(root)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    words = ["dataset=folder", "dataset.num_classes=4", f"dataset.root={root}"]
    assert run_command("inspect", words) == 3
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert str(file) in line
    assert "truncated" in line


@pytest.mark.fault("F28")
def test_masks_of_lossy_files(root: Path, run: Run) -> None:
    mask_of(root).unlink()
    file = mask_of(root).with_suffix(".jpg")
    Image.new("L", SHAPE[::-1]).save(file)
    assert_refused(run, file, "JPEG", "PNG")


@pytest.mark.fault("F29")
@pytest.mark.parametrize("shape", [(12, 16), (12, 64), (32, 24), (48, 16)])
def test_masks_of_another_size(root: Path, run: Run, shape: tuple[int, int]) -> None:
    Image.new("L", shape[::-1]).save(mask_of(root))
    turned = ("turn the mask",) if shape == SHAPE[::-1] else ()
    sizes = (f"{shape[0]} x {shape[1]}", "24 x 32")
    assert_refused(run, mask_of(root), image_of(root), *sizes, *turned)


@pytest.mark.fault("F30")
@pytest.mark.parametrize(("orientation", "turns"), [(3, 2), (6, -1), (8, 1)])
def test_exif_orientation(root: Path, run: Run, orientation: int, turns: int) -> None:
    pixels = read_image(image_of(root))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(image_of(root), exif=exif)
    upright = np.rot90(pixels, turns)
    np.testing.assert_array_equal(read_image(image_of(root)), upright)
    if turns == 2:  # the sizes do not tell whether the mask was drawn on the turned image
        assert_refused(run, image_of(root), "turns it by 180 degrees", "dataset.exif=apply")
        assert run("dataset.exif=apply")[0] == 0
        return
    assert_refused(run, image_of(root), "32 x 24", "dataset.exif=ignore")
    assert run("dataset.exif=ignore")[0] == 0


@pytest.mark.fault("F30")
def test_the_orientation_of_a_mask_is_applied(root: Path, run: Run) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for file in (image_of(root), mask_of(root)):
        with Image.open(file) as image:
            image.save(file, exif=exif)
    assert run("augmentation.crop_size=[24,24]")[0] == 0


# ---------------------------------------------------------------------- label values


@pytest.mark.fault("F31")
@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("value", [7, 254])
def test_values_out_of_range(root: Path, run: Run, split: str, value: int) -> None:
    ids = np.zeros(SHAPE, np.uint8)
    ids[0, :3] = value
    Image.fromarray(ids).save(mask_of(root, split))
    says = (f"value {value} (3 pixels)", "dataset.num_classes=4", "dataset.ignore_label=255")
    assert_refused(run, mask_of(root, split), *says)


@pytest.mark.fault("F32")
def test_ids_with_gaps(root: Path, run: Run) -> None:
    for split, count in (("train", 6), ("val", 2)):
        for index in range(count):
            file = mask_of(root, split, index)
            with Image.open(file) as mask:
                ids = np.array([0, 7, 11, 255], np.uint8)[np.array(mask)]
            Image.fromarray(ids).save(file)
    fix = "'dataset.label_map={0:0,7:1,11:2}'"
    assert_refused(run, fix, words=("dataset.num_classes=3",))
    assert run("dataset.num_classes=3", fix.strip("'"))[0] == 0
    Image.new("L", SHAPE[::-1], 8).save(mask_of(root))
    shutil.rmtree(root / "run")
    assert_refused(run, mask_of(root), "value 8", words=("dataset.num_classes=3", fix.strip("'")))


IDS = np.arange(24 * 32).reshape(SHAPE) % 4


def as_mode(mode: str) -> Image.Image:
    grey = Image.fromarray(IDS.astype(np.uint8))
    if mode == "P":
        grey.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0, 0, 0, 200] + [0] * 756)
        return grey
    if mode == "LA":
        return Image.merge("LA", [grey, Image.new("L", grey.size, 7)])
    if mode == "1":
        return Image.fromarray(IDS % 2 == 1)
    if mode == "I;16":
        return Image.fromarray((IDS + 300).astype(np.uint16))
    return Image.fromarray(IDS.astype(np.float32))


@pytest.mark.fault("F33")
@pytest.mark.parametrize("mode", ["P", "LA", "1", "I;16", "F"])
def test_mask_modes(root: Path, mode: str) -> None:
    file = mask_of(root).with_suffix(".tif" if mode == "F" else ".png")
    mask_of(root).unlink()
    as_mode(mode).save(file)
    keys = {"label_map": {"300-303": "0-3", "0-3": "0-3"}} if mode == "I;16" else {}
    target = build(root, **keys)[0].target
    np.testing.assert_array_equal(target, IDS % 2 if mode == "1" else IDS)


def build(root: Path, **keys: Any) -> segtrain.SegmentationDataset:
    places = {"images": "images/train", "masks": "masks/train"}
    spec = {"name": "folder", "root": str(root), "num_classes": 4, "train": places, **keys}
    return DATASETS.build(spec, split="train")


@pytest.mark.fault("F33")
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_masks_of_colours_need_a_palette(root: Path, run: Run, mode: str) -> None:
    colours = np.array([[0, 0, 0], [200, 0, 0], [0, 200, 0], [0, 0, 200]], np.uint8)
    for split, count in (("train", 6), ("val", 2)):
        for index in range(count):
            Image.fromarray(colours[IDS]).convert(mode).save(mask_of(root, split, index))
    line = assert_refused(
        run, mask_of(root), "dataset.palette, which gives each class its colour, is not set"
    )
    fix = line[line.index("'dataset.palette=") + 1 : line.rindex("'")]
    assert run(fix)[0] == 0
    Image.new("RGB", SHAPE[::-1], (1, 2, 3)).save(mask_of(root, index=4))
    shutil.rmtree(root / "run")
    assert_refused(run, mask_of(root, index=4), "colour (1, 2, 3) (768 pixels)", words=(fix,))


# ---------------------------------------------------------------------- sets of files


@pytest.mark.fault("F34")
def test_files_without_a_partner(root: Path, run: Run) -> None:
    mask_of(root).unlink()
    image_of(root, index=1).unlink()
    mask_of(root, index=2).rename(mask_of(root, index=2).with_name("TRAIN2.png"))
    shutil.copy(image_of(root, index=3), image_of(root, index=3, suffix="bmp"))
    line = assert_refused(
        run, image_of(root), mask_of(root, index=1), "TRAIN2.png", image_of(root, index=2)
    )
    assert str(image_of(root, index=3, suffix="bmp")) in line
    assert "dataset.train" in line


@pytest.mark.fault("F35")
def test_too_few_samples(root: Path, run: Run) -> None:
    assert_refused(run, "6 samples", "batch_size 8", words=("trainer.batch_size=8",))
    for index in range(2):
        image_of(root, "val", index).unlink()
    assert_refused(run, "dataset.val.images", "no image files")


@pytest.mark.fault("F36")
def test_the_splits_overlap(root: Path, run: Run) -> None:
    shutil.copy(image_of(root, index=5), image_of(root, "val", 0))
    says = (image_of(root, index=5), image_of(root, "val", 0), "in both")
    assert_refused(run, *says, "dataset.allow_overlap=true")
    assert run("dataset.allow_overlap=true")[0] == 0


@pytest.mark.fault("F37")
@pytest.mark.parametrize("which", ["one image", "one batch", "all but one"])
def test_only_ignored_pixels(root: Path, run: Run, which: str) -> None:
    for index in range({"one image": 1, "one batch": 2, "all but one": 5}[which]):
        Image.new("L", SHAPE[::-1], 255).save(mask_of(root, index=index))
    assert run("trainer.max_steps=6", "trainer.log_every=1")[0] == 0
    lines = (root / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines if "loss" in line and "step" in line
              and "evaluation" not in line]  # fmt: skip
    assert len(losses) == 6
    assert np.isfinite(losses).all()


@pytest.mark.fault("F38")
def test_a_class_without_pixels(root: Path, run: Run, messages: list[str]) -> None:
    for split, count in (("train", 6), ("val", 2)):
        for index in range(count):
            Image.fromarray((IDS % 3).astype(np.uint8)).save(mask_of(root, split, index))
    assert run("trainer.max_steps=30", "optimizer.lr=0.05", "trainer.ema_decay=null")[0] == 0
    results = json.loads((root / "run" / "results.json").read_text())
    iou = results["per_class_iou"]
    assert results["mIoU"] == pytest.approx(np.mean([v for v in iou.values() if v is not None]))
    assert iou["class_3"] is None  # by now the model has learned not to predict it
    assert "no pixel of class_3 in the train split" in messages


@pytest.mark.fault("F40")
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 5)])
def test_images_smaller_than_the_crop(root: Path, run: Run, shape: tuple[int, int]) -> None:
    for index in range(6):
        Image.new("RGB", shape[::-1]).save(image_of(root, index=index))
        Image.new("L", shape[::-1]).save(mask_of(root, index=index))
    assert run("augmentation.crop_size=[16,16]")[0] == 0


def png_of_zeros(file: Path, height: int, width: int) -> None:
    """Write a grey PNG file of one colour, which is small for any image size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        data = kind + body
        return len(body).to_bytes(4, "big") + data + zlib.crc32(data).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    packer = zlib.compressobj(9)
    row = bytes(1 + width)
    rows = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    content = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


@pytest.mark.fault("F41")
@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_decompression_bomb(root: Path, run: Run, kind: str) -> None:
    file = image_of(root) if kind == "images" else mask_of(root)
    png_of_zeros(file, 10_000, 20_000)
    assert file.stat().st_size < 300_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert_refused(run, file, "200,000,000 pixels", "dataset.max_pixels=178,956,970")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


@pytest.mark.fault("F41")
def test_the_limit_can_be_raised(root: Path, run: Run) -> None:
    words = ("dataset.max_pixels=700",)
    assert_refused(run, image_of(root), "24 x 32 are 768 pixels", words=words)
    assert run("dataset.max_pixels=768")[0] == 0


@pytest.mark.fault("F42")
@pytest.mark.parametrize("name", ["ü ñ 図", 'it\'s "quoted"', "n" * 200, "[1] {2},3=4", " x "])
def test_unusual_names(root: Path, run: Run, name: str) -> None:
    for file in (image_of(root), mask_of(root)):
        file.rename(file.with_name(f"{name}.png"))
    assert run()[0] == 0
    mask = mask_of(root).with_name(f"{name}.png")
    Image.new("L", SHAPE[::-1], 9).save(mask)
    shutil.rmtree(root / "run")
    assert_refused(run, mask, "value 9")


@pytest.mark.fault("F43")
def test_links(root: Path, run: Run) -> None:
    target = root / "elsewhere.png"
    image_of(root).rename(target)
    image_of(root).symlink_to(target)
    (root / "images" / "train" / "loop").symlink_to(root / "images" / "train")
    assert run()[0] == 0
    target.unlink()
    shutil.rmtree(root / "run")
    assert_refused(run, image_of(root), "a link to", "does not exist")


@pytest.mark.fault("F43")
@pytest.mark.parametrize("kind", ["images", "masks"])
def test_entries_that_are_not_files(root: Path, run: Run, kind: str) -> None:
    file = image_of(root) if kind == "images" else mask_of(root)
    file.unlink()
    os.mkfifo(file)
    assert_refused(run, file, "a named pipe")
    file.unlink()
    file.mkdir()
    partner = mask_of(root) if kind == "images" else image_of(root)
    assert_refused(run, partner, "have no")


@pytest.mark.fault("F44")
@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "I;16", "1", "P", "LA"])
def test_channels_of_images(root: Path, run: Run, mode: str) -> None:
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, SHAPE, dtype=np.uint8)
    deep = Image.fromarray(grey.astype(np.uint16) << 8)
    image = deep if mode == "I;16" else Image.fromarray(grey).convert(mode)
    image_of(root).unlink()
    file = image_of(root, suffix="tif" if mode == "CMYK" else "png")
    image.save(file)
    pixels = read_image(file)
    assert (pixels.shape, pixels.dtype) == ((*SHAPE, 3), np.uint8)
    if mode != "1":
        assert np.abs(pixels.astype(int) - grey[..., None]).max() <= 1
    assert run()[0] == 0


@pytest.mark.fault("F44")
def test_another_number_of_channels_is_named(root: Path, run: Run) -> None:
    image_of(root).unlink()
    file = image_of(root, suffix="tif")
    kind = {"photometric": "minisblack", "planarconfig": "contig"}
    tifffile.imwrite(file, np.zeros((*SHAPE, 5), np.uint8), **kind)
    assert_refused(run, file, "5 channels", "dataset.channels=5")


# ------------------------------------------------------------------ values that would be ignored


MULTI_LABEL = (
    "dataset.num_classes=2",
    "dataset.multi_label=true",
    "loss=bce",
    *(
        f"dataset.{split}.masks={{class_0:masks/{split},class_1:masks/{split}}}"
        for split in ("train", "val")
    ),
)


@pytest.mark.fault("F32")
@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (("dataset.num_classes=2",), "{0:0,255:1}"),
        (("dataset.num_classes=1", "loss=bce"), "{0:0,255:1}"),
        (("dataset.num_classes=2", "dataset.label_map={0:0,other:1}"), "{0:0,255:1,other:1}"),
        (MULTI_LABEL, "{0:0,255:1}"),
    ],
)
def test_binary_masks_whose_object_would_be_ignored(
    root: Path, run: Run, words: tuple[str, ...], fix: str
) -> None:
    for split, count in (("train", 6), ("val", 2)):
        for index in range(count):
            mask = Image.fromarray((255 * (IDS > 1)).astype(np.uint8))
            mask.save(mask_of(root, split, index))
    line = assert_refused(run, "hold 255", f"'dataset.label_map={fix}'", words=words)
    words = tuple(word for word in words if "label_map" not in word)
    assert run(*words, line[line.rindex("'dataset.") + 1 : -1])[0] == 0


@pytest.mark.fault("F32")
def test_a_map_that_does_not_fit_is_removed(root: Path, run: Run) -> None:
    words = ("dataset.label_map={0:0,255:1}",)
    assert_refused(run, "already hold class ids", "set dataset.label_map=null", words=words)
    assert run(*words, "dataset.label_map=null")[0] == 0


@pytest.mark.fault("F33")
def test_black_and_white_in_colours(root: Path, run: Run) -> None:
    for split, count in (("train", 6), ("val", 2)):
        for index in range(count):
            mask = Image.fromarray((255 * (IDS > 1)).astype(np.uint8)).convert("RGB")
            mask.save(mask_of(root, split, index))
    for given in ((), ("dataset.label_map={0:0,255:1}",)):
        fix = "'dataset.label_map={0x000000:0,0xFFFFFF:1}'"
        assert_refused(run, fix, words=("dataset.num_classes=2", *given))
    assert run("dataset.num_classes=2", fix.strip("'"))[0] == 0


@pytest.mark.fault("F29")
def test_images_of_several_sizes(root: Path, run: Run) -> None:
    for file, mode in ((image_of(root), "RGB"), (mask_of(root), "L")):
        Image.new(mode, (40, 20)).save(file)
    line = assert_refused(run, "2 sizes", "20 x 40", "24 x 32", "augmentation.crop_size=[20,32]")
    assert run(line[line.index("augmentation.crop_size") :].split(" ")[0])[0] == 0
    shutil.rmtree(root / "run")
    assert run("trainer.batch_size=1")[0] == 0


@pytest.mark.fault("F28")
def test_a_damaged_image_is_left_out_if_allowed(root: Path, run: Run) -> None:
    content = image_of(root).read_bytes()
    middle = len(content) // 2
    image_of(root).write_bytes(content[:middle] + bytes(100) + content[middle + 100 :])
    assert run("dataset.max_bad=0.2", "trainer.max_steps=6")[0] == 0
    assert str(image_of(root)) in (root / "run" / "left_out.txt").read_text()


# ---------------------------------------------------------------------- while training


@pytest.mark.fault("F45")
@pytest.mark.parametrize("fault", ["vanishes", "truncated", "another label", "another size"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_changes(
    root: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    workers: int,
) -> None:
    monkeypatch.setattr(LOSSES, "_factories", dict(LOSSES._factories))
    mask = mask_of(root, index=2)
    content = mask.read_bytes()

    @segtrain.register_loss("spoils")
    class Spoils(segtrain.PixelLoss):
        """Cross entropy; in its sixth call a file changes."""

        steps = 0

        def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
            Spoils.steps += 1
            if Spoils.steps == 6:
                spoil(fault, mask, content)
            return torch.nn.functional.cross_entropy(logits, target, reduction="none")

    words = [*WORDS, f"dataset.root={root}", f"run_dir={root / 'run'}", "loss=spoils"]
    words += ["model.aux=false", "trainer.max_steps=40", "trainer.checkpoint_every=2"]
    assert run_command("train", [*words, f"loader.num_workers={workers}"]) == 3
    assert str(mask) in capsys.readouterr().err.strip().splitlines()[-1]
    assert multiprocessing.active_children() == []  # they would wait until they are collected
    predictor = Predictor.from_checkpoint(root / "run" / "checkpoints" / "last.pt")
    assert predictor(image_of(root)).shape == SHAPE


def spoil(fault: str, mask: Path, content: bytes) -> None:
    if fault == "vanishes":
        mask.unlink()
    elif fault == "truncated":
        mask.write_bytes(content[:-30])
    else:
        shape = SHAPE[::-1] if fault == "another label" else (5, 5)
        Image.new("L", shape, 9).save(mask)
