"""Files of the pixels that count: how they are read, found, counted, cached and written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segtrain.data import (
    DATASETS,
    FileDataset,
    FolderDataset,
    LabelContract,
    Reader,
    SampleFiles,
    TrainTransform,
    TrainView,
    check_report,
    make_shards,
    scan_dataset,
)
from segtrain.data.loading.memory_cache import CachedDataset
from segtrain.data.scan.scan import leave_out_unreadable
from segtrain.data.shards.dataset import ShardDataset
from segtrain.errors import ConfigError, DataError, SizeError
from segtrain.schema.sections import AugmentationConfig

HALF = np.array([[0, 0, 1, 1]] * 3, np.uint8)
"""A valid file: the left half does not count."""


def save(path: Path, pixels: Any, **keys: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, pixels)
    else:
        Image.fromarray(np.asarray(pixels)).save(path, **keys)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three images; the masks hold 1, and 9 outside the half that counts."""
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        save(tmp_path / f"i/{name}.png", rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
        save(tmp_path / f"m/{name}.png", np.where(HALF, 1, 9).astype(np.uint8))
        save(tmp_path / f"v/{name}_mask.png", HALF * 255)
    return tmp_path


def folder(root: Path, **keys: Any) -> FolderDataset:
    section = {"images": "i", "masks": "m", "valid": "v", **keys.pop("section", {})}
    return FolderDataset(root=str(root), num_classes=2, train=section, **keys)


# ------------------------------------------------------------------ reading


def test_what_counts_in_a_file(tmp_path: Path) -> None:
    grey = np.array([[0, 1, 255]], np.uint8)
    colours = np.zeros((1, 3, 4), np.uint8)
    colours[0, 1, 2] = colours[0, 2, 0] = 1
    colours[..., 3] = 255  # opaque, and not a colour
    palette = Image.fromarray(np.array([[1, 0, 0]], np.uint8))
    palette.putpalette([255, 255, 255, 0, 0, 0])  # index 0 is white, index 1 is black
    palette.save(tmp_path / "palette.png")
    files = [
        save(tmp_path / "grey.png", grey),
        save(tmp_path / "grey.gif", grey),
        save(tmp_path / "bits.png", grey > 0),
        save(tmp_path / "deep.png", grey.astype(np.uint16)),
        save(tmp_path / "rgb.tif", colours[..., :3]),
        save(tmp_path / "rgba.png", colours),
        save(tmp_path / "floats.npy", np.array([[np.nan, 0.5, -1]])),
        save(tmp_path / "channels.npy", colours[..., :2] + colours[..., 2:3]),
        tmp_path / "palette.png",
    ]
    for file in files:
        found = Reader().valid(file)
        assert (found.dtype, found.tolist()) == (bool, [[False, True, True]]), file


def test_a_turned_file(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = save(tmp_path / "v.png", np.array([[1, 0, 0]], np.uint8), exif=exif)
    assert Reader().valid(file).tolist() == [[True], [False], [False]]
    assert Reader(exif="ignore").valid(file).tolist() == [[True, False, False]]


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    lossy = save(tmp_path / "v.jpg", HALF)
    with pytest.raises(
        DataError, match=r"v\.jpg: the valid file is a JPEG file, whose compression"
    ):
        Reader().valid(lossy)
    with pytest.raises(DataError, match=r"absent\.png: the valid file does not exist"):
        Reader().valid(tmp_path / "absent.png")


# ------------------------------------------------------------------ targets and counts


def test_pixels_that_do_not_count_are_ignored_whatever_their_value(root: Path) -> None:
    dataset = folder(root)
    assert dataset[0].target.tolist() == [[255, 255, 1, 1]] * 3
    assert dataset[0].image.shape == (3, 4, 3)
    report = scan_dataset(dataset)
    check_report(report)
    assert report.class_pixels.tolist() == [0, 18]
    assert report.ignored_pixels == 18
    assert report.invalid_pixels.tolist() == [6, 6, 6]
    assert report.areas.tolist() == [6, 6, 6]


def test_a_wrong_value_that_counts_is_found_with_its_number_of_pixels(root: Path) -> None:
    save(root / "m/b.png", np.array([[9, 9, 7, 7]] + [[9, 9, 1, 1]] * 2, np.uint8))
    message = r"m/b\.png: the mask holds value 7 \(2 pixels\), but"
    with pytest.raises(DataError, match=message):
        check_report(scan_dataset(folder(root)))
    with pytest.raises(DataError, match=message):
        folder(root)[1]


@pytest.mark.parametrize(
    ("labels", "raw", "expected"),
    [
        (LabelContract(1, label_map={0: 0, 255: 1}), [[7, 255, 0]], [[255, 1, 0]]),
        (LabelContract(2, ignore_label=-1), [[7, 1, 0]], [[-1, 1, 0]]),
        (
            LabelContract(2, palette=[[0, 0, 0], [9, 0, 0]]),
            [[[1, 2, 3], [9, 0, 0], [0, 0, 0]]],
            [[255, 1, 0]],
        ),
        (
            LabelContract(2, multi_label=True),
            [[[7, 8], [1, 0], [0, 255]]],
            [[[255, 255], [1, 0], [255, 255]]],
        ),
    ],
)
def test_every_kind_of_contract(labels: LabelContract, raw: Any, expected: Any) -> None:
    values, valid = np.array(raw, np.uint8), np.array([[False, True, True]])
    assert labels.to_ids(values, "m.png", valid).tolist() == expected
    facts = labels.count(values, valid)
    assert labels.explain(facts, "m.png") is None
    assert labels.explain(labels.count(values), "m.png") is not None
    assert facts.invalid == 1
    assert type(facts).from_json(facts.to_json()) == facts
    pixels, ignored = labels.class_pixels(facts)
    target = np.array(expected)
    assert ignored == (target == labels.ignore_label).reshape(3, -1).any(1).sum()
    channels = target.shape[2] if labels.multi_label else labels.num_ids
    assert pixels.tolist() == [
        int((target[..., id_] == 1 if labels.multi_label else target == id_).sum())
        for id_ in range(channels)
    ]


def test_facts_without_a_valid_file_are_stored_as_before() -> None:
    assert LabelContract(2).count(np.array([[0, 1]])).to_json() == [
        [1, 2],
        [[(0, 1), (1, 1)]],
        False,
    ]


def test_the_advice_is_about_pixels_that_count(root: Path) -> None:
    for name in ("a", "b", "c"):
        save(root / f"m/{name}.png", np.where(HALF, 255, 1).astype(np.uint8))
    with pytest.raises(DataError, match=r"255 \(18 pixels\) and never 1.*label_map=\{0:0,255:1\}"):
        check_report(scan_dataset(folder(root)))


def test_nothing_counts(root: Path) -> None:
    save(root / "v/b_mask.png", HALF * 0)
    (finding,) = scan_dataset(folder(root)).findings
    assert (finding.kind, finding.sample) == ("ignored", 1)


def test_the_scan_is_stored_until_the_valid_file_changes(root: Path, counted: list[Any]) -> None:
    for expected in (3, 3):
        assert scan_dataset(folder(root)).invalid_pixels.sum() == 18
        assert len(counted) == expected
    save(root / "v/b_mask.png", np.array([[0, 1, 1, 1]] + [[0, 0, 1, 1]] * 2, np.uint8))
    save(root / "m/b.png", np.ones((3, 4), np.uint8))
    assert scan_dataset(folder(root)).invalid_pixels.tolist() == [6, 5, 6]
    assert len(counted) == 4
    without = folder(root, section={"valid": None}, label_map={9: 0, 1: 1})
    assert scan_dataset(without).invalid_pixels.sum() == 0
    assert len(counted) == 7


def test_another_size(root: Path) -> None:
    save(root / "v/b_mask.png", np.ones((4, 3), np.uint8))
    dataset = folder(root)
    message = (
        rf"^{root}/v/b_mask\.png: the valid file is 4 x 3 \(height x width\), but its image"
        rf" {root}/i/b\.png is 3 x 4; turn the valid file by 90 degrees"
    )
    with pytest.raises(SizeError, match=message):
        dataset[1]
    report = scan_dataset(dataset)
    (finding,) = report.findings
    assert (finding.kind, finding.file) == ("size", str(root / "v/b_mask.png"))
    with pytest.raises(DataError, match=message):
        check_report(report)
    dataset.max_bad = 0.5
    fewer = leave_out_unreadable(dataset, report)
    assert [files.name for files in fewer.files] == ["a", "c"]
    save(root / "m/a.png", np.ones((5, 5), np.uint8))  # then it is the mask that is wrong
    with pytest.raises(DataError, match=r"m/a\.png: the mask is 5 x 5"):
        check_report(scan_dataset(folder(root)))


def test_a_damaged_file(root: Path) -> None:
    file = root / "v/b_mask.png"
    file.write_bytes(file.read_bytes()[:40])
    (finding,) = scan_dataset(folder(root)).findings
    assert (finding.kind, finding.file) == ("unreadable", str(file))


def test_augmentation_ignores_them_too(root: Path) -> None:
    dataset = folder(root)
    augmentation = AugmentationConfig(scale=(1.0, 1.0), crop_size=(3, 4), flip=1.0)
    view = TrainView(dataset, TrainTransform(dataset.labels, augmentation), seed=0)
    item: Any = view[0, 0]
    assert item["target"].tolist() == [[1, 1, 255, 255]] * 3


# ------------------------------------------------------------------ folders


def test_every_image_needs_a_valid_file(root: Path) -> None:
    assert [files.valid and files.valid.name for files in folder(root).files] == [
        "a_mask.png",
        "b_mask.png",
        "c_mask.png",
    ]
    (root / "v/b_mask.png").rename(root / "v/x_mask.png")
    with pytest.raises(DataError) as caught:
        folder(root)
    assert str(caught.value) == (
        f"dataset.train: 1 image files have no valid file ({root}/i/b.png), 1 valid files have no"
        f" image ({root}/v/x_mask.png); rename them, or set dataset.unpaired=skip to leave them out"
    )
    dataset = folder(root, max_bad=0.7)
    assert [files.name for files in dataset.files] == ["a", "c"]
    assert dataset.left_out == [
        f"{root}/i/b.png: the image has no valid file",
        f"{root}/v/x_mask.png: the valid file has no image",
    ]
    assert len(folder(root, section={"names": ["a", "c"]})) == 2  # others need no valid file
    with pytest.raises(DataError, match=r"1 image files have no valid file"):
        folder(root, section={"names": ["a", "b"]})


def test_an_image_without_mask_and_valid_file_is_left_out_once(root: Path) -> None:
    (root / "m/b.png").unlink()
    (root / "v/b_mask.png").unlink()
    dataset = folder(root, max_bad=0.4)
    assert dataset.left_out == [f"{root}/i/b.png: the image has no mask"]


def test_pairing_by_a_third_expression(root: Path) -> None:
    for name in ("a", "b", "c"):
        (root / f"v/{name}_mask.png").rename(root / f"v/fov-of-{name}.png")
    pairing = {"images": r"i/(\w)", "masks": r"m/(\w)", "valid": r"fov-of-(\w)"}
    dataset = folder(root, pairing=pairing, section={"names": ["a", "b"]})
    assert [files.valid and files.valid.name for files in dataset.files] == [
        "fov-of-a.png",
        "fov-of-b.png",
    ]
    del pairing["valid"]
    with pytest.raises(ConfigError, match=r"dataset\.pairing\.valid is missing; give one for"):
        folder(root, pairing=pairing)
    with pytest.raises(DataError, match=r"dataset\.train\.valid=w: .* is not a directory"):
        folder(root, section={"valid": "w"})


def test_a_mask_for_each_class(root: Path) -> None:
    save(root / "n/a.png", np.where(HALF, 0, 9).astype(np.uint8))
    dataset = FolderDataset(
        root=str(root), num_classes=2, multi_label=True, class_names=["one", "two"],
        train={"images": "i", "masks": {"one": "m", "two": "n"}, "valid": "v"},
    )  # fmt: skip
    assert dataset[0].target.tolist() == [[[255, 255]] * 2 + [[1, 0]] * 2] * 3
    report = scan_dataset(dataset)
    check_report(report)
    assert (report.class_pixels.tolist(), report.ignored_pixels) == ([18, 0], 18)
    assert report.areas.tolist() == [6, 6, 6]
    save(root / "n/a.png", np.ones((2, 2), np.uint8))
    assert [finding.kind for finding in scan_dataset(dataset).findings] == ["size"]


# ------------------------------------------------------------------ lists


@pytest.mark.parametrize(
    ("name", "content", "places"),
    [
        ("t.tsv", "image\tmask\tvalid\ni/a.png\tm/a.png\tv/a_mask.png\n", {}),
        ("t.csv", "i/a.png,m/a.png,v/a_mask.png\n", {}),
        ("t.lst", "i/a.png m/a.png v/a_mask.png\n", {}),
        ("t.lst", "a.png\ta.png\ta_mask.png\n", {"images": "i", "masks": "m", "valid": "v"}),
        ("t.jsonl", '{"valid": "v/a_mask.png", "image": "i/a.png", "mask": "m/a.png"}', {}),
        ("t.txt", "a\n", {"images": "i/{}.png", "masks": "m/{}.png", "valid": "v/{}_mask.png"}),
        ("t.txt", "a 1 1\n", {"images": "i/{}.png", "masks": "m/{}.png", "valid": "v/{}_mask.png"}),
    ],
)
def test_a_third_column(root: Path, name: str, content: str, places: dict[str, str]) -> None:
    (root / name).write_text(content)
    spec = {"name": "list", "root": str(root), "num_classes": 2, "train": {"list": name, **places}}
    dataset: Any = DATASETS.build(spec, split="train")
    assert [files.valid for files in dataset.files] == [root / "v/a_mask.png"]
    assert dataset[0].target.tolist() == [[255, 255, 1, 1]] * 3


def test_a_path_with_spaces_before_a_third_column(root: Path) -> None:
    (root / "i/a.png").rename(root / "i/a 1.png")
    (root / "t.lst").write_text("i/a 1.png m/a.png v/a_mask.png\ni/b.png m/b.png v/b_mask.png")
    spec = {"name": "list", "root": str(root), "num_classes": 2, "train": {"list": "t.lst"}}
    dataset: Any = DATASETS.build(spec, split="train")
    assert [files.name for files in dataset.files] == ["i/a 1", "i/b"]


@pytest.mark.parametrize(
    ("content", "places", "message"),
    [
        ("i/a.png\tm/a.png\tv/a_mask.png\ni/b.png\tm/b.png", {},
         r"line 2: it names no valid file, unlike the lines before it"),
        ("i/a.png\tm/a.png\ni/b.png\tm/b.png\tv/b_mask.png", {},
         r"line 2: it names a valid file, unlike the lines before it"),
        ("i/a.png\tm/a.png\tv/x.png", {}, r"line 1: the valid file .*v/x\.png does not exist"),
        ("i/a.png\tm/a.png\t../x.png", {}, r"'\.\./x\.png' leads outside dataset\.root"),
        ("a", {"images": "i/{}.png", "masks": "m/{}.png", "valid": "v"},
         r"images and valid must both be templates"),
    ],
)  # fmt: skip
def test_lines_that_are_wrong(
    root: Path, content: str, places: dict[str, str], message: str
) -> None:
    (root / "t.lst").write_text(content)
    spec = {"name": "list", "root": str(root), "num_classes": 2}
    with pytest.raises((DataError, ConfigError), match=message):
        DATASETS.build({**spec, "train": {"list": "t.lst", **places}}, split="train")


# ------------------------------------------------------------------ memory and shards


@pytest.mark.parametrize("kind", ["compressed", "decoded"])
def test_in_memory(root: Path, kind: Any) -> None:
    dataset = folder(root)
    expected = [sample.target.tolist() for sample in dataset]
    cached = CachedDataset(dataset, kind)
    size = cached.expected_bytes
    cached.fill()
    assert cached.num_bytes == size
    shutil.rmtree(root)
    assert [cached[index].target.tolist() for index in range(3)] == expected


@pytest.mark.parametrize("is_indexed", [True, False])
@pytest.mark.parametrize("multi_label", [True, False])
def test_in_shards(root: Path, is_indexed: bool, multi_label: bool) -> None:
    pytest.importorskip("webdataset")
    save(root / "n/a.png", np.where(HALF, 0, 9).astype(np.uint8))
    options: dict[str, Any] = {"num_classes": 2, "multi_label": multi_label}
    masks = {"class_0": "m", "class_1": "n"} if multi_label else "m"
    section = {"images": "i", "masks": masks, "valid": "v"}
    files = FolderDataset(root=str(root), train=section, **options)
    make_shards(files, root / "out", "train", seed=None)
    if not is_indexed:
        (root / "out/train-index.jsonl").unlink()
    shards = "train-index.jsonl" if is_indexed else "train-000000.tar"
    dataset = ShardDataset(root=str(root / "out"), train={"shards": shards}, **options)
    for one, other in zip(files, dataset, strict=True):
        assert one.name == other.name
        np.testing.assert_array_equal(one.target, other.target)
    for index in range(3):
        assert dataset.files[index].valid is not None
        assert len(dataset.files[index].masks) == len(files.files[index].masks)
    report, expected = scan_dataset(dataset), scan_dataset(files)
    assert report.findings == ()
    assert report.image_pixels.tolist() == expected.image_pixels.tolist()
    assert report.invalid_pixels.tolist() == [6, 6, 6]
    assert report.ignored_pixels == expected.ignored_pixels


def test_a_shard_is_not_written_with_a_valid_file_of_another_size(root: Path) -> None:
    pytest.importorskip("webdataset")
    save(root / "v/b_mask.png", np.ones((3, 5), np.uint8))
    with pytest.raises(DataError, match=r"v/b_mask\.png: the valid file is 3 x 5"):
        make_shards(folder(root), root / "out", "train")


def test_some_samples_without_a_valid_file(root: Path) -> None:
    """As from shards, or from a dataset class of one's own."""
    files = [
        SampleFiles(root / "i/a.png", (root / "m/a.png",), "a", root / "v/a_mask.png"),
        SampleFiles(root / "i/b.png", (root / "m/b.png",), "b"),
    ]
    dataset = FileDataset(LabelContract(10), files)
    report = scan_dataset(dataset)
    assert report.invalid_pixels.tolist() == [6, 0]
    assert dataset[1].target.tolist() == [[9, 9, 1, 1]] * 3
