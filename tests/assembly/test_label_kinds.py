"""One logit, several classes at once, and images of any kind: from files to predictions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import segtrain
from segtrain import Predictor
from segtrain.cli.main import run_command
from segtrain.data import LabelContract, read_mask
from segtrain.errors import DataError
from segtrain.metrics import MetricCollector

STEPS = ["trainer.max_steps=40", "optimizer.lr=0.03", "trainer.ema_decay=null"]
SIZE = 32
Train = Callable[..., int]


@pytest.fixture
def train(small: list[str], tmp_path: Path) -> Train:
    def run(*words: str) -> int:
        plain = [word for word in small if not word.startswith("dataset.")]
        folder = ["dataset=folder", f"dataset.root={tmp_path}", f"run_dir={tmp_path / 'run'}"]
        return run_command("train", [*plain, *folder, *STEPS, *words])

    return run


def two_discs(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Two bits per pixel: inside a red disc, inside a green one; they overlap."""
    rng = np.random.default_rng(index)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    bits = np.zeros((SIZE, SIZE, 2), dtype=bool)
    for channel in range(2):
        row, column = rng.uniform(10, SIZE - 10, 2)
        bits[..., channel] = (rows - row) ** 2 + (columns - column) ** 2 < 64
    image = np.full((SIZE, SIZE, 3), 20, dtype=np.uint8)
    image[..., :2] += (200 * bits).astype(np.uint8)
    return image, bits


def folders(root: Path, *kinds: str) -> dict[str, Path]:
    found = {kind: root / kind for kind in kinds}
    for path in found.values():
        path.mkdir(parents=True)
    return found


def test_binary_masks_with_one_logit(tmp_path: Path, train: Train) -> None:
    for split, start, count in (("train", 0, 8), ("val", 100, 3)):
        places = folders(tmp_path, f"images/{split}", f"masks/{split}")
        for index in range(start, start + count):
            image, bits = two_discs(index)
            Image.fromarray(image[..., 0]).save(places[f"images/{split}"] / f"{index}.png")
            mask = Image.fromarray((255 * bits[..., 0]).astype(np.uint8))
            mask.save(places[f"masks/{split}"] / f"{index}.png")
    words = ["dataset.num_classes=1", "dataset.label_map={0:0,255:1}", "loss=bce"]
    assert train(*words, "dataset.class_names=[disc]") == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert list(results["per_class_iou"]) == ["background", "disc"]
    assert results["per_class_iou"]["disc"] > 0.6
    ids = Predictor.from_checkpoint(tmp_path / "run")(tmp_path / "images/val/100.png")
    assert set(np.unique(ids)) == {0, 1}
    words = [f"checkpoint={tmp_path / 'run'}", f"output={tmp_path / 'scores.json'}"]
    assert run_command("evaluate", words) == 0
    assert json.loads((tmp_path / "scores.json").read_text())["mIoU"] == results["best"]["mIoU"]


def write_multi_label(root: Path, *, files: bool) -> list[str]:
    for split, start, count in (("train", 0, 8), ("val", 100, 3)):
        places = folders(root, f"images/{split}", f"red/{split}", f"green/{split}", f"all/{split}")
        for index in range(start, start + count):
            image, bits = two_discs(index)
            Image.fromarray(image).save(places[f"images/{split}"] / f"{index}.png")
            np.save(places[f"all/{split}"] / f"{index}.npy", bits)
            for channel, name in enumerate(("red", "green")):
                if bits[..., channel].any() and not (name == "green" and index == 0):
                    mask = Image.fromarray((255 * bits[..., channel]).astype(np.uint8))
                    mask.save(places[f"{name}/{split}"] / f"{index}.png")
    words = ["dataset.num_classes=2", "dataset.multi_label=true", "dataset.class_names=[red,green]"]
    for split in ("train", "val"):
        masks = f"{{red:red/{split},green:green/{split}}}" if files else f"all/{split}"
        words.append(f"dataset.{split}.masks={masks}")
    return [*words, "dataset.label_map={0:0,255:1}"] if files else words


@pytest.mark.parametrize("files", [True, False])
def test_several_classes_per_pixel(tmp_path: Path, train: Train, *, files: bool) -> None:
    words = write_multi_label(tmp_path, files=files)
    assert train(*words, "loss=bce", "trainer.log_images=1") == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert min(results["per_class_iou"].values()) > 0.6
    checkpoint = tmp_path / "run" / "checkpoints" / "last.pt"  # the one that the results are of
    found = Predictor.from_checkpoint(checkpoint)(tmp_path / "images/val/100.png")
    assert (found.shape, found.dtype) == ((SIZE, SIZE, 2), np.uint8)
    out = tmp_path / "out"
    words = [f"checkpoint={checkpoint}", f"input={tmp_path / 'images/val'}", f"output={out}"]
    assert run_command("predict", words) == 0
    np.testing.assert_array_equal(read_mask(out / "ids/green/100.png"), found[..., 1])
    # The scores are those of the written masks.
    collector = MetricCollector([], class_names=["red", "green"], multi_label=True)
    for index in range(100, 103):
        written = np.stack(
            [read_mask(out / f"ids/{name}/{index}.png") for name in ("red", "green")]
        )
        truth = two_discs(index)[1].transpose(2, 0, 1)
        collector.update(
            torch.from_numpy(written)[None],
            torch.from_numpy(truth.astype(np.uint8))[None],
            [str(index)],
        )
    assert collector.result().iou == pytest.approx(list(results["per_class_iou"].values()))


def test_dice_with_sigmoids_learns_several_classes(tmp_path: Path, train: Train) -> None:
    words = write_multi_label(tmp_path, files=False)
    assert train(*words, "loss=dice", "loss.activation=sigmoid") == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["loss=cross_entropy"], "needs exactly one class per pixel"),
        (["loss=dice"], "loss.activation=sigmoid"),
        (["loss=bce", "model.tasks=true"], "made from class ids"),
        (["loss=bce", "dataset.multi_label=false"], "multi_label=true"),
        (["loss=bce", "dataset.num_classes=3", "dataset.class_names=null"], "3, but has 2"),
    ],
)
def test_what_does_not_fit_several_classes(
    tmp_path: Path,
    train: Train,
    words: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train(*write_multi_label(tmp_path, files=False), *words) in (2, 3)
    assert sentence in capsys.readouterr().err.splitlines()[-1]


def test_five_channels_of_sixteen_bits(tmp_path: Path, train: Train) -> None:
    for split, start, count in (("train", 0, 8), ("val", 100, 3)):
        places = folders(tmp_path, f"images/{split}", f"masks/{split}")
        for index in range(start, start + count):
            image, bits = two_discs(index)
            planes = np.repeat(image.astype(np.uint16) * 16, 2, axis=2)[..., :5]
            file = places[f"images/{split}"] / f"{index}.tif"
            tifffile.imwrite(file, planes, photometric="minisblack", planarconfig="contig")
            mask = Image.fromarray(bits[..., 0].astype(np.uint8))
            mask.save(places[f"masks/{split}"] / f"{index}.png")
    words = ["dataset.num_classes=2", "dataset.channels=5", "dataset.value_range=[0,4095]"]
    statistics = [f"augmentation.{key}={[0.2] * 5}" for key in ("mean", "std")]
    plain = ["augmentation.saturation=0", "augmentation.hue=0", "trainer.log_images=1"]
    assert train(*words, *statistics, *plain) == 0
    predictor = Predictor.from_checkpoint(tmp_path / "run")
    file = tmp_path / "images/val/100.tif"
    ids = predictor(file)
    assert ids.shape == (SIZE, SIZE)
    assert (ids == two_discs(100)[1][..., 0]).mean() > 0.9
    assert predictor.overlay(predictor.reader.image(file), ids).shape == (SIZE, SIZE, 3)


def test_an_image_of_other_channels_than_the_model_takes(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    model = segtrain.build_model("hrnet_w18_small_v1", num_classes=2, in_channels=5)
    statistics = {"mean": [0.5] * 5, "std": [1.0] * 5}
    predictor = Predictor(model, LabelContract(2), device="cpu", **statistics)
    with pytest.raises(DataError, match=r"a\.png: this model takes images of 5 channels"):
        predictor(tmp_path / "a.png")
