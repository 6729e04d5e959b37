"""A file per image says which pixels count; ``names`` says which samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segtrain.cli.main import run_command
from segtrain.data import FileDataset, FolderDataset, ListDataset, scan_dataset
from segtrain.data.loading.memory_cache import CachedDataset
from segtrain.data.shards.dataset import ShardDataset
from segtrain.data.shards.writer import make_shards
from segtrain.errors import ConfigError, DataError, SegtrainError
from segtrain.inference import Predictor
from tests.helpers import TINY

SIZE = (24, 30)
PLACES = {"images": "i", "masks": "m", "valid": "v"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six samples: the left third does not count, and there the mask holds a wrong value."""
    rng = np.random.default_rng(0)
    for folder in ("i", "m", "v"):
        (tmp_path / folder).mkdir()
    for number in range(6):
        mask = rng.integers(0, 2, SIZE, dtype=np.uint8)
        mask[:, :10] = 77
        valid = np.full(SIZE, 255, np.uint8)
        valid[:, :10] = 0
        pixels = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        for folder, values in (("i", pixels), ("m", mask), ("v", valid)):
            Image.fromarray(values).save(tmp_path / folder / f"{number:02d}.png")
    return tmp_path


def folder(root: Path, places: dict[str, Any] = PLACES, **given: Any) -> FolderDataset:
    given = {"num_classes": 2, **given}
    return FolderDataset(root=str(root), train=places, split="train", **given)


def check(dataset: FileDataset, root: Path) -> None:
    for index, files in enumerate(dataset.files):
        target = dataset[index].target
        mask = np.array(Image.open(root / "m" / f"{files.name}.png"))
        assert (target[:, :10] == 255).all()
        assert (target[:, 10:] == mask[:, 10:]).all()


def test_other_pixels_are_ignored(root: Path) -> None:
    check(folder(root), root)
    with pytest.raises(DataError, match="the mask holds value 77"):
        folder(root, {"images": "i", "masks": "m"})[0]


def test_a_scan_counts_the_other_pixels_only(root: Path) -> None:
    report = scan_dataset(folder(root))
    assert not report.findings
    assert report.ignored_pixels == 6 * 24 * 10
    assert report.image_pixels.sum() == 6 * 24 * 20
    # The result is cached until the file of the pixels that count changes.
    Image.fromarray(np.full(SIZE, 1, np.uint8)).save(root / "v" / "00.png")
    (finding,) = scan_dataset(folder(root)).findings
    assert "00.png: the mask holds value 77" in finding.text


@pytest.mark.parametrize("kind", ["compressed", "decoded"])
def test_a_cache_holds_the_same_targets(root: Path, kind: Any) -> None:
    dataset = folder(root)
    cached = CachedDataset(dataset, kind)
    cached.fill()
    for index in range(6):
        assert (cached[index].target == dataset[index].target).all()


def test_shards_hold_the_same_targets(root: Path) -> None:
    pytest.importorskip("webdataset")
    make_shards(folder(root), root / "shards", "train", seed=None)
    places = {"shards": "train-index.jsonl"}
    shards = ShardDataset(root=str(root / "shards"), train=places, split="train", num_classes=2)
    check(shards, root)
    assert scan_dataset(shards).ignored_pixels == 6 * 24 * 10


def test_colours(root: Path) -> None:
    for path in (root / "m").iterdir():
        ids = np.array(Image.open(path))
        Image.fromarray(np.stack([ids * 3, ids, ids], 2)).save(path)
    dataset = folder(root, palette=[[0, 0, 0], [3, 1, 1]])
    target = dataset[0].target
    assert set(np.unique(target)) == {0, 1, 255}
    report = scan_dataset(dataset)
    assert not report.findings
    assert report.ignored_pixels == 6 * 24 * 10
    pytest.importorskip("webdataset")
    with pytest.raises(DataError, match=r"mask of colours .* cannot be written to shards"):
        make_shards(dataset, root / "shards", "train")


def test_multi_label(root: Path) -> None:
    for path in (root / "m").iterdir():
        ids = np.array(Image.open(path))
        np.save(path.with_suffix(".npy"), np.stack([ids, 1 - ids], 2).astype(np.int64))
        path.unlink()
    dataset = folder(root, multi_label=True)
    target = dataset[0].target
    assert (target[:, :10] == 255).all()
    assert (target[:, 10:].sum(2) == 1).all()
    assert scan_dataset(dataset).ignored_pixels == 6 * 24 * 10


def test_a_list_names_the_file_in_a_third_column(root: Path) -> None:
    (root / "t.tsv").write_text(
        "".join(f"i/{n:02d}.png\tm/{n:02d}.png\tv/{n:02d}.png\n" for n in range(6))
    )
    (root / "names.lst").write_text("00\n03\n")
    for section, number in (
        ({"list": "t.tsv", "valid": "."}, 6),
        ({"list": "names.lst", **{key: f"{place}/{{}}.png" for key, place in PLACES.items()}}, 2),
    ):
        dataset = ListDataset(root=str(root), train=section, split="train", num_classes=2)
        assert len(dataset) == number
        assert (dataset[1].target[:, :10] == 255).all()
    (root / "t.tsv").write_text("i/00.png\tm/00.png\n")
    with pytest.raises(DataError, match="2 columns instead of image, mask and valid"):
        ListDataset(
            root=str(root), train={"list": "t.tsv", "valid": "."}, split="train", num_classes=2
        )


def test_pairing_by_expression(root: Path) -> None:
    expressions = {"images": r"(\d+)", "masks": r"m/(\d+)"}
    with pytest.raises(ConfigError, match=r"dataset\.pairing\.valid is missing"):
        folder(root, pairing=expressions)
    check(folder(root, pairing={**expressions, "valid": r"v/(\d+)"}), root)


def test_a_missing_or_wrong_file_is_named(root: Path) -> None:
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(root / "v" / "01.png")
    with pytest.raises(DataError, match=r"v/01\.png: the file of the pixels that count is 9 x 9"):
        folder(root)[1]
    (root / "v" / "02.png").unlink()
    with pytest.raises(DataError, match=r"dataset\.train\.valid: .*02\.png"):
        folder(root)
    assert [files.name for files in folder(root, max_bad=0.5).files] == [
        *("00", "01", "03", "04", "05")
    ]


def test_names_choose_samples(root: Path) -> None:
    chosen = folder(root, {**PLACES, "names": ["03", "01"]})
    assert [files.name for files in chosen.files] == ["01", "03"]
    (root / "train.txt").write_text("04\n\n05\n")
    assert len(folder(root, {**PLACES, "names": "train.txt"})) == 2
    for names, message in (
        (["03", "x9", "y9"], r"no sample 'x9' \(1 more are missing\)"),
        ([3], r"no sample '3'; did you mean '03'\?"),
        ([], "it lists no sample"),
        ("absent.txt", r"absent\.txt cannot be read"),
    ):
        with pytest.raises(SegtrainError, match=rf"^dataset\.train\.names: .*{message}"):
            folder(root, {**PLACES, "names": names})


def test_prediction_leaves_other_pixels_out(root: Path) -> None:
    words = [
        *(f"plugins=[{TINY}]", "model=tiny", "dataset=folder", f"dataset.root={root}"),
        *("dataset.num_classes=2", "trainer.batch_size=2", "loader.num_workers=0"),
        *(f"dataset.{s}.{k}={v}" for s in ("train", "val") for k, v in PLACES.items()),
        *("dataset.allow_overlap=true", "trainer.max_steps=1", f"run_dir={root / 'run'}"),
    ]
    assert (
        run_command(
            "train", [w.replace("dataset.train.valid", "++dataset.train.valid") for w in words]
        )
        == 0
    )
    result = json.loads((root / "run/results.json").read_text())
    counts = np.load(root / "run/per_image.npz")
    assert (counts["tp"] + counts["fn"]).sum() == 6 * 24 * 20
    assert 0 <= result["mIoU"] <= 1
    given = [f"checkpoint={root / 'run'}", f"input={root / 'i'}", f"output={root / 'out'}"]
    given += [f"plugins=[{TINY}]"]
    assert run_command("predict", [*given, f"valid={root / 'v'}"]) == 0
    ids = np.array(Image.open(root / "out/ids/00.png"))
    assert (ids[:, :10] == 255).all()
    assert (ids[:, 10:] < 2).all()
    image = np.array(Image.open(root / "i/00.png"))
    assert (np.array(Image.open(root / "out/overlay/00.png"))[:, :10] == image[:, :10]).all()
    predictor = Predictor.from_checkpoint(root / "run", device="cpu")
    with pytest.raises(DataError, match=r"valid: it is 3 x 3 .* but the image is 24 x 30"):
        predictor(image, np.ones((3, 3)))
    (root / "v" / "00.png").unlink()
    assert run_command("predict", [*given, f"valid={root / 'v'}"]) == 3
