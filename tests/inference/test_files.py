"""Files of every kind: large ones in windows, GeoTIFF files, videos, and files that fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from segtrain.errors import ConfigError, DataError, NumericError
from segtrain.inference import files as files_module
from segtrain.inference.writers import pictures as pictures_module
from segtrain.schema.sections import ViewConfig
from tests.helpers import ROOT
from tests.inference.pointwise import picture, predictor, write

rasterio = pytest.importorskip("rasterio")
features = pytest.importorskip("rasterio.features")
warp = pytest.importorskip("rasterio.warp")
EVERY = ["ids", "color", "overlay", "probabilities", "uncertainty", "labels", "geojson", "coco"]
IMAGE = picture(600, 500)
PLACE = rasterio.Affine(0.5, 0, 500000, 0, -0.5, 5400000)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_geotiff(name: str, pixels: np.ndarray, **keys: object) -> None:
    """Write ``(H, W, C)`` with rasterio."""
    height, width, count = pixels.shape
    how = {"driver": "GTiff", "height": height, "width": width, "count": count,
           "dtype": pixels.dtype, "crs": "EPSG:32632", "transform": PLACE}  # fmt: skip
    with rasterio.open(name, "w", **how | keys) as file:
        file.write(np.moveaxis(pixels, 2, 0))


@pytest.mark.parametrize("backend", ["rasterio", "tifffile"])
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
def test_a_large_image_equals_the_whole_one(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend == "tifffile":
        for module in ("segtrain.data.io.windows.raster", "segtrain.inference.writers.pictures"):
            monkeypatch.setattr(f"{module}.load_rasterio", lambda: None)
    monkeypatch.setattr("segtrain.inference.rasters.WINDOW", (128, 192))
    monkeypatch.setattr("segtrain.inference.rasters._WRITTEN_PIXELS", 500 * 37)
    tifffile.imwrite("a.tif", IMAGE, photometric="rgb", rowsperstrip=50, compression="zlib")
    whole = predictor()
    ids, p = whole(IMAGE), whole.probabilities(IMAGE)
    write(predictor(max_pixels=500 * 400), "a.tif", EVERY)
    np.testing.assert_array_equal(tifffile.imread("out/ids/a.tif"), ids)
    np.testing.assert_array_equal(tifffile.imread("out/labels/a.tif"), ids)
    np.testing.assert_array_equal(tifffile.imread("out/overlay/a.tif"), whole.overlay(IMAGE, ids))
    colours = np.array(Image.open("out/color/a.tif").convert("RGB"))
    np.testing.assert_array_equal(colours, whole.colorize(ids))
    np.testing.assert_allclose(np.load("out/probabilities/a.npy"), p, atol=1e-3)
    small = {path.relative_to("out") for path in Path("out").rglob("*.tif")}
    geojson, coco = Path("out/geojson/a.geojson").read_text(), Path("out/coco.json").read_text()
    write(whole, "a.tif", EVERY)
    assert {path.with_suffix(".tif").relative_to("out") for path in Path("out").rglob("*.png")} == small  # noqa: E501  # fmt: skip
    assert geojson == Path("out/geojson/a.geojson").read_text()
    assert coco == Path("out/coco.json").read_text()
    assert not [path for path in Path().rglob(".*") if path.is_file()]


@pytest.mark.parametrize("max_pixels", [10**8, 50 * 50])
def test_geotiff_in_geotiff_out(max_pixels: int) -> None:
    image = picture(60, 80)
    image[10:20, :30] = 0
    write_geotiff("a.tif", image, nodata=0)
    chosen = predictor(max_pixels=max_pixels)
    write(chosen, "a.tif", [*EVERY], ignored=True, probabilities_format="uint8")
    wanted = chosen(image).copy()
    wanted[10:20, :30] = 255
    for name in ("ids", "color", "overlay", "probabilities", "uncertainty/entropy", "labels"):
        with rasterio.open(f"out/{name}/a.tif") as file:
            assert (file.crs, file.transform, file.shape) == ("EPSG:32632", PLACE, (60, 80))
            assert file.nodata == (255 if name in ("ids", "color", "labels") else None)
            if name in ("ids", "color", "labels"):
                np.testing.assert_array_equal(file.read(1), wanted)
            if name == "color":
                for index, colour in enumerate(chosen.labels.colours):
                    assert file.colormap(1)[index][:3] == colour
            if name == "overlay":
                assert not file.read()[:, 10:20, :30].any()
    content = json.loads(Path("out/geojson/a.geojson").read_text())
    drawn = np.full((60, 80), 255)
    for one in content["features"]:
        for x, y in one["geometry"]["coordinates"][0]:
            assert 8.9 < x < 9.1  # longitude and latitude
            assert 48.7 < y < 48.8
        back = warp.transform_geom("OGC:CRS84", "EPSG:32632", one["geometry"])
        shape = features.rasterize([back], out_shape=(60, 80), transform=PLACE)
        drawn[shape > 0] = one["properties"]["class_id"]
    np.testing.assert_array_equal(drawn, wanted)


def test_a_mask_of_valid_pixels_in_the_file() -> None:
    image, mask = picture(40, 50), np.full((40, 50), 255, np.uint8)
    mask[:7] = 0
    write_geotiff("a.tif", np.dstack([image, mask]), photometric="rgb", alpha="yes")
    write(predictor(), "a.tif", ["ids"], ignored=True)
    found = tifffile.imread("out/ids/a.tif")
    assert (found[:7] == 255).all()
    np.testing.assert_array_equal(found[7:], predictor()(image)[7:])


def test_without_rasterio(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: E501  # fmt: skip
    said: list[str] = []
    monkeypatch.setattr(files_module.logger, "warning", lambda text, *a: said.append(text % a))
    for module in (files_module, pictures_module):
        monkeypatch.setattr(module, "load_rasterio", lambda: None)
    write_geotiff("a.tif", picture(40, 50))
    write(predictor(), "a.tif", ["ids"])
    (text,) = said
    assert "a.tif is a GeoTIFF, but" in text
    assert 'pip install "segtrain[geo]"' in text
    np.testing.assert_array_equal(Image.open("out/ids/a.png"), predictor()(picture(40, 50)))


@pytest.mark.parametrize("large", [False, True])
def test_valid_files(*, large: bool) -> None:
    valid = np.zeros((60, 80), np.uint8)
    valid[5:50, 20:] = 9
    tifffile.imwrite("a.tif", picture(60, 80), photometric="rgb")
    Image.fromarray(valid).save("valid.png")
    chosen = predictor(max_pixels=1000 if large else 10**6)
    write(chosen, "a.tif", ["ids"], ignored=True, valid=Path("valid.png"))
    found = np.array(Image.open(f"out/ids/a.{'tif' if large else 'png'}"))
    np.testing.assert_array_equal(found, np.where(valid, predictor()(picture(60, 80)), 255))
    Image.fromarray(valid[:9]).save("valid.png")
    with pytest.raises(DataError, match=r"valid file is 9 x 80 .*image a\.tif is 60 x 80; resize"):
        write(chosen, "a.tif", ["ids"], ignored=True, valid=Path("valid.png"))


def test_any_number_of_channels_and_values() -> None:
    deep = picture(60, 80, 5).astype(np.uint16) * 100
    keys = {"channels": 5, "reading": {"value_range": (0.0, 25500.0)}}
    write_geotiff("a.tif", deep)
    write(predictor(**keys), "a.tif", ["ids"])
    whole = tifffile.imread("out/ids/a.tif")
    write(predictor(**keys, max_pixels=1000), "a.tif", ["ids", "overlay"])
    np.testing.assert_array_equal(tifffile.imread("out/ids/a.tif"), whole)
    np.testing.assert_array_equal(whole, predictor(**keys)("a.tif"))
    for most in (1000, 10**6):
        with pytest.raises(DataError, match=r"a\.tif: this model takes images of 4 channels"):
            write(predictor(channels=4, max_pixels=most), "a.tif", ["ids"])


def test_large_images_of_other_formats() -> None:
    Image.fromarray(picture(60, 80)).save("a.png")
    write(predictor(max_pixels=1000), "a.png", ["ids"])
    np.testing.assert_array_equal(tifffile.imread("out/ids/a.tif"), predictor()(picture(60, 80)))
    image = Image.fromarray(picture(60, 80))
    image.getexif()[274] = 6
    image.save("b.jpg", exif=image.getexif())
    with pytest.raises(DataError, match=r"b\.jpg: .* stored turned or mirrored \(orientation 6\)"):
        write(predictor(max_pixels=1000), "b.jpg", ["ids"])
    np.save("c.npy", picture(60, 80))
    with pytest.raises(DataError, match=r"c\.npy: 60 x 80 are 4,800 pixels, more than dataset\.ma"):
        write(predictor(max_pixels=1000), "c.npy", ["ids"])


def test_a_video() -> None:
    cv2 = pytest.importorskip("cv2")
    Path("in/sub").mkdir(parents=True)
    writer = cv2.VideoWriter("in/sub/a.avi", cv2.VideoWriter_fourcc(*"MJPG"), 12, (79, 51))
    for shift in range(3):
        writer.write(np.ascontiguousarray(picture(51, 79 + shift)[:, shift:, ::-1]))
    writer.release()
    done = write(predictor(), "in", ["ids", "overlay"])
    assert done.num_images == 3
    assert sorted(path.name for path in Path("out/ids/sub").iterdir()) == [
        *("a_000001.png", "a_000002.png", "a_000003.png")
    ]
    capture = cv2.VideoCapture("in/sub/a.avi")
    drawn = cv2.VideoCapture("out/overlay/sub/a.mp4")
    assert drawn.get(cv2.CAP_PROP_FPS) == 12
    for number in (1, 2, 3):
        frame = np.ascontiguousarray(capture.read()[1][..., ::-1])
        ids = predictor()(frame)
        np.testing.assert_array_equal(Image.open(f"out/ids/sub/a_00000{number}.png"), ids)
        shown = drawn.read()[1][:51, :79, ::-1].astype(float)
        assert np.abs(shown - predictor().overlay(frame, ids)).mean() < 12
    assert not drawn.read()[0]
    assert not [path for path in Path().rglob(".*") if path.is_file()]


def test_a_video_that_fails_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter("a.avi", cv2.VideoWriter_fourcc(*"MJPG"), 12, (64, 48))
    for _ in range(3):
        writer.write(picture(48, 64))
    writer.release()
    chosen, calls = predictor(), []
    whole = chosen._predict

    def second_fails(pixels: np.ndarray, **keys: bool) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise NumericError("logits")
        return whole(pixels, **keys)

    monkeypatch.setattr(chosen, "_predict", second_fails)
    with pytest.raises(NumericError, match=r"^a\.avi, frame 2: logits"):
        write(chosen, "a.avi", ["ids", "overlay"])
    assert [path.name for path in Path("out").rglob("*.*")] == ["a_000001.png"]


def test_windows_are_not_resized(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(files_module.logger, "warning", lambda text, *a: said.append(text % a))
    tifffile.imwrite("a.tif", picture(60, 80), photometric="rgb")
    chosen = predictor(max_pixels=1000)
    chosen.size = (7, 9)
    write(chosen, "a.tif", ["ids"])
    np.testing.assert_array_equal(tifffile.imread("out/ids/a.tif"), predictor()(picture(60, 80)))
    assert "in windows at the resolution of the file; size=[7,9] is not used" in said[0]


@pytest.mark.fault("F49")
def test_logits_that_are_not_finite() -> None:
    chosen = predictor(max_pixels=10**6)
    chosen.model.head.bias.data[1] = float("nan")
    Image.fromarray(picture(60, 80)).save("a.png")
    for given in (chosen, predictor(max_pixels=1000)):
        given.model.head.bias.data[1] = float("inf")
        with pytest.raises(NumericError, match=r"a\.png: the model's logits are NaN or infinite;"):
            write(given, "a.png", ["ids"])
    with pytest.raises(NumericError, match=r"^the model's logits are NaN or infinite; check"):
        chosen(picture(6, 8))
    assert not list(Path("out").rglob("*.*"))


@pytest.mark.slow
def test_memory_of_a_huge_image() -> None:
    """A TIFF of 20,000 x 20,000 x 3 needs less than 2 GB in all, with logits of a quarter."""
    script = """
import resource
import tifffile
from tests.inference.pointwise import picture, predictor, write
band = picture(25, 2500).repeat(8, 0).repeat(8, 1).tobytes()
tifffile.imwrite("a.tif", shape=(20000, 20000, 3), dtype="uint8", photometric="rgb")
with tifffile.TiffFile("a.tif") as file:
    offset = file.pages[0].dataoffsets[0]
with open("a.tif", "r+b") as stream:
    stream.seek(offset)
    for _ in range(100):
        stream.write(band)
given = predictor()
given.model.stride = 4
write(given, "a.tif", ["ids", "color", "overlay", "uncertainty"])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)
"""
    command = [sys.executable, "-c", script]
    result = subprocess.run(
        command, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert float(result.stdout.split()[-1]) < 2


def test_windows_and_a_flip_of_a_small_image() -> None:
    given = predictor()
    expected = given(IMAGE)
    given.views = given.views.with_views(ViewConfig(window=(128, 64), flip=True))
    assert np.array_equal(given(IMAGE), expected)  # the model judges each pixel alone


def test_several_scales_of_a_large_image_are_refused() -> None:
    given = predictor(max_pixels=1000)
    given.views = given.views.with_views(ViewConfig(scales=(0.5, 1.0)))
    tifffile.imwrite("a.tif", IMAGE, photometric="rgb")
    with pytest.raises(ConfigError, match="need the whole image at once"):
        write(given, "a.tif", ["ids"])
