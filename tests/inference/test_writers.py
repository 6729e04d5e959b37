"""Every output, read by an independent library and compared with the arrays of the predictor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from segtrain.errors import CheckpointError
from segtrain.inference.writers.base import Target
from segtrain.inference.writers.pictures import Format, TiffPicture
from tests.inference.pointwise import picture, predictor, write

IMAGE = picture(50, 70)


@pytest.fixture(autouse=True)
def one_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in/a").mkdir(parents=True)
    Image.fromarray(IMAGE).save("in/a/x.png")


def read(name: str) -> np.ndarray:
    return np.array(Image.open(Path("out") / name))


def leftovers() -> list[Path]:
    return [path for path in Path().rglob(".*") if path.is_file()]


def test_probabilities_and_uncertainty() -> None:
    chosen = predictor()
    p = chosen.probabilities(IMAGE).astype(np.float64)
    assert np.allclose(p.sum(0), 1)
    np.testing.assert_array_equal(p.argmax(0), chosen(IMAGE))
    write(chosen, "in", ["probabilities", "uncertainty"])
    stored = np.load("out/probabilities/a/x.npy")
    assert stored.dtype == np.float16
    np.testing.assert_allclose(stored, p, atol=1e-3)
    entropy = -(p * np.log(p)).sum(0) / np.log(4)
    ordered = np.sort(p, axis=0)
    margin = 1 - (ordered[-1] - ordered[-2])
    for name, wanted in (("entropy", entropy), ("margin", margin)):
        found = read(f"uncertainty/{name}/a/x.png")
        assert found.dtype == np.uint8
        assert np.abs(found - wanted * 255).max() <= 0.501
        assert np.ptp(found) > 100
    write(chosen, "in", ["probabilities"], probabilities_format="uint8")
    found = tifffile.imread("out/probabilities/a/x.tif")
    assert (found.dtype, found.shape) == (np.uint8, (50, 70, 4))
    np.testing.assert_allclose(found.transpose(2, 0, 1) / 255, p, atol=0.51 / 255)
    assert not leftovers()


@pytest.mark.parametrize("multi_label", [False, True])
def test_scores_of_single_logits(*, multi_label: bool) -> None:
    chosen = predictor(2 if multi_label else 1, multi_label=multi_label)
    p = chosen.probabilities(IMAGE).astype(np.float64)
    assert p.shape == (2, 50, 70)
    if multi_label:
        np.testing.assert_array_equal((p > 0.5).transpose(1, 2, 0), chosen(IMAGE))
        q = np.clip(p, 1e-12, 1 - 1e-12)
        entropy = -(q * np.log2(q) + (1 - q) * np.log2(1 - q)).mean(0)
        margin = (1 - np.abs(2 * p - 1)).max(0)
    else:
        np.testing.assert_array_equal(p[1] > 0.5, chosen(IMAGE))
        np.testing.assert_allclose(p[0], 1 - p[1], atol=1e-6)
        entropy = -(p * np.log2(p)).sum(0)
        margin = 1 - np.abs(p[1] - p[0])
    write(chosen, "in", ["uncertainty"])
    assert np.abs(read("uncertainty/entropy/a/x.png") - entropy * 255).max() <= 0.51
    assert np.abs(read("uncertainty/margin/a/x.png") - margin * 255).max() <= 0.51


def test_original_label_values() -> None:
    chosen, ids = predictor(), predictor()(IMAGE)
    write(chosen, "in", ["labels"])
    np.testing.assert_array_equal(read("labels/a/x.png"), ids)
    label_map = {"20-22": 0, 7: 1, 300: 2, "other": 3, 9: "ignore"}
    write(chosen, "in", ["labels"], label_map=label_map)
    np.testing.assert_array_equal(read("labels/a/x.png"), np.array([20, 7, 300, 0])[ids])
    colours = {"0x804000": 0, "0x000001": 1, "0xFFFFFF": 2, "0x00FF00": 3}
    write(chosen, "in", ["labels"], label_map=colours)
    table = np.array([[128, 64, 0], [0, 0, 1], [255, 255, 255], [0, 255, 0]])
    np.testing.assert_array_equal(read("labels/a/x.png"), table[ids])
    names = {"car": "vehicle"}  # the keys of an export
    write(chosen, "in", ["labels"], label_map=names)
    np.testing.assert_array_equal(read("labels/a/x.png"), ids)
    with pytest.raises(CheckpointError, match=r"no raw value for the class 'class_1'; leave lab"):
        write(chosen, "in", ["labels"], label_map={0: 0, 2: 2, 3: 3})


def test_original_values_of_multi_label_masks() -> None:
    chosen = predictor(2, multi_label=True)
    write(chosen, "in", ["labels", "ids"], label_map={0: "no", 255: "yes"})
    for name in ("class_0", "class_1"):
        ids = read(f"ids/{name}/a/x.png")
        np.testing.assert_array_equal(read(f"labels/{name}/a/x.png"), ids.astype(int) * 255)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
@pytest.mark.parametrize("kind", ["classes", "one logit", "multi-label"])
def test_regions(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    features = pytest.importorskip("rasterio.features")
    from pycocotools.coco import COCO

    multi = kind == "multi-label"
    chosen = predictor({"classes": 4, "one logit": 1, "multi-label": 2}[kind], multi_label=multi)
    ids = chosen(IMAGE)
    write(chosen, "in", ["geojson", "coco"])
    coco = COCO("out/coco.json")
    assert [image["file_name"] for image in coco.imgs.values()] == ["a/x.png"]
    content = json.loads(Path("out/geojson/a/x.geojson").read_text())
    assert content["type"] == "FeatureCollection"
    assert len(content["features"]) == len(coco.anns)
    for class_id in range(0 if kind != "one logit" else 1, chosen.labels.num_ids):
        wanted = ids[..., class_id] == 1 if multi else ids == class_id
        shapes = [
            one["geometry"]
            for one in content["features"]
            if one["properties"]["class_id"] == class_id
        ]
        drawn = features.rasterize(shapes, out_shape=(50, 70))
        np.testing.assert_array_equal(drawn > 0, wanted)
        masks = [coco.annToMask(one) for one in coco.loadAnns(coco.getAnnIds(catIds=[class_id]))]
        np.testing.assert_array_equal(np.sum(masks, 0), wanted)
        assert coco.cats[class_id]["name"] == chosen.labels.names[class_id]
    write(chosen, "in", ["coco"], min_area=100)
    assert all(one["area"] >= 100 for one in COCO("out/coco.json").anns.values())
    capsys.readouterr()


def test_a_failure_leaves_nothing_half_written(monkeypatch: pytest.MonkeyPatch) -> None:
    every = ["ids", "color", "overlay", "probabilities", "uncertainty", "labels", "geojson"]
    write(predictor(), "in", ["ids"])
    before = read("ids/a/x.png")

    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("segtrain.inference.writers.region_writer.RegionWriter.write", fail)
    with pytest.raises(MemoryError):
        write(predictor(3), "in", every)
    np.testing.assert_array_equal(read("ids/a/x.png"), before)
    assert [path.name for path in Path("out").rglob("*") if path.is_file()] == ["x.png"]


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_tiff_files_in_strips(channels: int) -> None:
    shape = (150, 41) if channels == 1 else (150, 41, channels)
    pixels = np.random.default_rng(0).integers(0, 60000, shape, dtype=np.uint16)
    target = Target("x", "x.tif", 150, 41, as_tiff=True)
    file = TiffPicture(Path("x.tif"), target, Format("uint16", channels))
    for start in range(0, 150, 70):
        file.write(slice(start, min(start + 70, 150)), pixels[start : start + 70])
    file.finish()
    np.testing.assert_array_equal(tifffile.imread("x.tif"), pixels)
    assert not leftovers()


def test_palettes_in_tiff_files() -> None:
    target = Target("x", "x.tif", 2, 3, as_tiff=True)
    form = Format("uint8", palette=[(10, 20, 30), (200, 0, 7)])
    file = TiffPicture(Path("x.tif"), target, form)
    file.write(slice(0, 2), np.array([[0, 1, 1], [1, 0, 0]]))
    file.finish()
    colours = Image.open("x.tif").convert("RGB")
    assert np.array(colours)[0].tolist() == [[10, 20, 30], [200, 0, 7], [200, 0, 7]]
