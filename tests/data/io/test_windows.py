"""Windows of image files hold what the reader gives for the whole file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from segtrain.data import Reader
from segtrain.data.io.windows import open_raster
from segtrain.data.io.windows import raster as raster_module
from segtrain.errors import DataError

rasterio = pytest.importorskip("rasterio")
SHAPE = (70, 90)
WINDOWS = [(slice(0, 40), slice(0, 50)), (slice(30, 70), slice(10, 90)), (slice(5, 6), slice(3, 4))]
rng = np.random.default_rng(0)
RGB = rng.integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
DEEP = rng.integers(0, 65536, (*SHAPE, 4), dtype=np.uint16)
FLOATS = np.where(rng.random((*SHAPE, 1)) < 0.1, -9999, rng.random((*SHAPE, 2))).astype(np.float32)
RANGE = {"channels": 2, "value_range": (0.0, 1.0)}
KINDS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "one strip": (RGB, {"rowsperstrip": 70}, {}),
    "strips": (RGB, {"rowsperstrip": 16, "compression": "zlib", "predictor": True}, {}),
    "tiles": (RGB, {"tile": (32, 48), "compression": "zlib"}, {}),
    "planes": (np.moveaxis(RGB, 2, 0), {"planarconfig": "separate", "photometric": "rgb"}, {}),
    "planes of tiles": (
        np.moveaxis(RGB, 2, 0),
        {"planarconfig": "separate", "photometric": "rgb", "tile": (32, 32)},
        {},
    ),
    "big endian": (DEEP[..., :3], {"byteorder": ">", "photometric": "rgb"}, {}),
    "four channels": (DEEP, {"photometric": "minisblack", "planarconfig": "contig"},
                      {"channels": 4}),
    "grey as RGB": (RGB[..., 0], {"rowsperstrip": 8}, {}),
    "RGB as grey": (RGB, {}, {"channels": 1}),
    "alpha": (np.dstack([RGB, RGB[..., :1]]), {"extrasamples": ["unassalpha"]}, {}),
    "floats without data": (
        FLOATS,
        {"extratags": [(42113, "s", 0, "-9999", True)], "planarconfig": "contig",
         "photometric": "minisblack"},
        RANGE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("backend", ["rasterio", "tifffile"])
@pytest.mark.parametrize("kind", KINDS)
def test_windows_equal_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, backend: str
) -> None:
    if backend == "tifffile":
        monkeypatch.setattr(raster_module, "load_rasterio", lambda: None)
    pixels, how, rules = KINDS[kind]
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, **({"photometric": "rgb"} if pixels is RGB else {}) | how)
    reader = Reader(**rules)
    whole = reader.image(path)
    with open_raster(path, reader) as raster:
        assert (raster.height, raster.width, raster.channels) == whole.shape
        assert raster.dtype == pixels.dtype
        for rows, columns in [*WINDOWS, *WINDOWS]:
            found = raster.read(rows, columns)
            wanted = whole[rows, columns]
            if found.dtype != wanted.dtype:  # no pixel of this window lacks data
                wanted = wanted * np.float32(255)
            np.testing.assert_array_equal(found, wanted)
        raster.read(slice(0, 70), slice(0, 90))
        assert raster.values == reader.values(path)


def test_pages_are_channels(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for index in range(5):
            writer.write(RGB[..., 0] // (index + 1), contiguous=False)
    reader = Reader(channels=5)
    with open_raster(path, reader) as raster:
        window = (slice(20, 60), slice(7, 33))
        np.testing.assert_array_equal(raster.read(*window), reader.image(path)[window])


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "palette.png", "palette.tif"])
def test_other_formats(tmp_path: Path, name: str) -> None:
    image = Image.fromarray(RGB)
    image = image.convert("P") if name.startswith("palette") else image
    image = image.convert("L") if name == "a.jpg" else image  # decoders differ in chroma
    image.save(tmp_path / name)
    whole = Reader().image(tmp_path / name)
    with open_raster(tmp_path / name, Reader()) as raster:
        for window in WINDOWS:
            found = raster.read(*window).astype(int)
            assert np.abs(found - whole[window]).max() <= (2 if name == "a.jpg" else 0)


def test_what_marks_pixels_without_data(tmp_path: Path) -> None:
    path, data = tmp_path / "a.tif", rng.integers(1, 256, (1, *SHAPE), dtype=np.uint8)
    data[0, 10:20, :30] = 0
    how = {"driver": "GTiff", "height": 70, "width": 90, "count": 1, "dtype": "uint8"}
    transform = rasterio.Affine(0.5, 0, 500000, 0, -0.5, 5400000)
    with rasterio.open(path, "w", **how, nodata=0, crs="EPSG:32632", transform=transform) as file:
        file.write(data)
    with open_raster(path, Reader(channels=1)) as raster:
        assert raster.georeference is not None
        assert raster.georeference.transform == (0.5, 0, 500000, 0, -0.5, 5400000)
        assert raster.georeference.has_nodata
        window = (slice(5, 25), slice(20, 40))
        valid = raster.valid(*window)
        assert valid is not None
        np.testing.assert_array_equal(valid, data[0][window] != 0)
        np.testing.assert_array_equal(np.isnan(raster.read(*window)[..., 0]), ~valid)
    tifffile.imwrite(path, RGB)
    with open_raster(path, Reader()) as raster:
        assert raster.georeference is None
        assert raster.valid(*window) is None


def test_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def message(name: str) -> str:
        with pytest.raises(DataError) as caught:
            open_raster(tmp_path / name, Reader())
        return str(caught.value)

    assert "the image file does not exist" in message("absent.tif")
    (tmp_path / "broken.tif").write_bytes(b"II*\0nothing")
    Image.fromarray(RGB).save(tmp_path / "a.png")
    Image.fromarray(RGB).convert("P").save(tmp_path / "palette.tif")
    assert "the image file cannot be read" in message("broken.tif")
    monkeypatch.setattr(raster_module, "load_rasterio", lambda: None)
    assert "the image file cannot be read" in message("broken.tif")
    for name in ("a.png", "palette.tif"):
        assert 'the package rasterio: pip install "segtrain[geo]"' in message(name)
    turned = [(274, "H", 1, 6, True)]
    tifffile.imwrite(tmp_path / "turned.tif", RGB, photometric="rgb", extratags=turned)
    assert "stored turned or mirrored" in message("turned.tif")
