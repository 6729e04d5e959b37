"""DICOM files as images and as masks."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array
from pydicom.pixels.processing import convert_color_space
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from segtrain.cli.main import run_command
from segtrain.data import read_mask
from segtrain.data.io.reader import Reader
from segtrain.errors import DataError
from tests.cases.helpers import advised, open_folder, problem
from tests.helpers import TINY

SHAPE = (12, 10)
HU = (-1000.0, 1000.0)
WORDS = ("dataset.num_classes=2", "dataset.value_range=[-1000,1000]")


def stored(seed: int, dtype: Any = np.uint16, high: int = 4096, channels: int = 0) -> np.ndarray:
    shape = (*SHAPE, channels) if channels else SHAPE
    return np.random.default_rng(seed).integers(0, high, shape).astype(dtype)


def dicom(pixels: np.ndarray, kind: str = "MONOCHROME2", bits: int = 0, **more: Any) -> Any:
    """Return a data set with these pixels."""
    found = pydicom.Dataset()
    found.file_meta = pydicom.dataset.FileMetaDataset()
    found.file_meta.TransferSyntaxUID = more.pop("syntax", ExplicitVRLittleEndian)
    found.file_meta.MediaStorageSOPClassUID = found.SOPClassUID = SecondaryCaptureImageStorage
    found.file_meta.MediaStorageSOPInstanceUID = found.SOPInstanceUID = "1.2.3"
    found.Modality = "CT"
    found.Rows, found.Columns = pixels.shape[:2]
    found.SamplesPerPixel = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.ndim == 3:
        found.PlanarConfiguration = 0
    found.PhotometricInterpretation = kind
    found.BitsAllocated = pixels.dtype.itemsize * 8
    found.BitsStored = bits or found.BitsAllocated
    found.HighBit = found.BitsStored - 1
    found.PixelRepresentation = int(pixels.dtype.kind == "i")
    for name, value in more.items():
        setattr(found, name, value)
    if "PixelData" not in found:
        found.PixelData = pixels.tobytes()
        found["PixelData"].VR = "OW"
    return found


def save(path: Path, *given: Any, **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dicom(*given, **more).save_as(path, enforce_file_format=True)
    return path


def image_of(path: Path, channels: int = 1, span: Any = HU) -> np.ndarray:
    return Reader(channels=channels, value_range=span).image(path)


def series(root: Path, name: str = "{}.dcm", mask: str = "{}.dcm", files: int = 4) -> Path:
    """Write slices of a CT with their masks."""
    for number in range(files):
        pixels = stored(number)
        path = root / "images" / name.format(f"s{number}")
        save(path, pixels, bits=12, RescaleSlope="1", RescaleIntercept="-1024")
        save(root / "masks" / mask.format(f"s{number}"), (pixels > 1024).astype(np.uint8))
    return root


# ------------------------------------------------- values


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless]
)
@pytest.mark.parametrize("line", [("1", "-1024"), ("0.5", "7")])
def test_values_become_hounsfield_units(tmp_path: Path, syntax: str, line: Any) -> None:
    values = stored(0)
    given = values.astype(">u2") if syntax == ExplicitVRBigEndian else values
    file = dicom(given, bits=12, RescaleSlope=line[0], RescaleIntercept=line[1])
    if syntax == RLELossless:
        file.compress(RLELossless)
    else:
        file.file_meta.TransferSyntaxUID = syntax
    file.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    units = values * float(line[0]) + float(line[1])
    np.testing.assert_allclose(image_of(tmp_path / "a.dcm")[..., 0], (units + 1000) / 2000, 1e-5)
    own = pydicom.dcmread(tmp_path / "a.dcm")
    np.testing.assert_allclose(apply_modality_lut(own.pixel_array, own), units)


def test_signed_values_keep_their_sign(tmp_path: Path) -> None:
    values = (stored(0).astype(np.int32) - 2048).astype(np.int16)
    path = save(tmp_path / "a.dcm", values)
    assert Reader().values(path) == ("int16", values.min(), values.max())
    np.testing.assert_allclose(image_of(path)[..., 0], (values + 1000.0) / 2000, rtol=1e-5)


def test_a_slope_of_one_keeps_integers(tmp_path: Path) -> None:
    path = save(tmp_path / "a.dcm", stored(0), RescaleSlope="1", RescaleIntercept="0")
    assert Reader().values(path).dtype == "uint16"


def test_a_table_of_values_is_applied(tmp_path: Path) -> None:
    table = pydicom.Dataset()
    table.LUTDescriptor = [16, 0, 16]
    table.LUTData = [n * n * 100 for n in range(16)]
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    table.ModalityLUTType = "US"
    values = stored(0, np.uint8, 16)
    path = save(tmp_path / "a.dcm", values, ModalityLUTSequence=[table])
    expected = values.astype(np.float64) ** 2 * 100
    np.testing.assert_allclose(image_of(path, span=(0.0, 30000.0))[..., 0], expected / 30000, 1e-5)


@pytest.mark.parametrize(
    ("dtype", "bits", "total"), [(np.uint8, 8, 255), (np.uint16, 12, 4095), (np.int16, 16, -1)]
)
def test_white_that_is_zero_is_inverted(tmp_path: Path, dtype: Any, bits: int, total: int) -> None:
    values = stored(0, dtype, 200) - dtype(100 if dtype == np.int16 else 0)
    path = save(tmp_path / "a.dcm", values, "MONOCHROME1", bits)
    expected = total - values.astype(np.float64)
    np.testing.assert_allclose(image_of(path)[..., 0], (expected + 1000) / 2000, rtol=1e-5)
    np.testing.assert_array_equal(read_mask(path), values)  # a mask is what is stored


def test_white_that_is_zero_is_inverted_in_units(tmp_path: Path) -> None:
    values = stored(0)
    line = {"RescaleSlope": "2", "RescaleIntercept": "-10"}
    path = save(tmp_path / "a.dcm", values, "MONOCHROME1", 12, **line)
    expected = (4095.0 - values) * 2 - 10
    np.testing.assert_allclose(image_of(path)[..., 0], (expected + 1000) / 2000, rtol=1e-5)


@pytest.mark.parametrize("kind", ["RGB", "YBR_FULL"])
@pytest.mark.parametrize("planar", [0, 1])
def test_colours_become_rgb(tmp_path: Path, kind: str, planar: int) -> None:
    colours = stored(0, np.uint8, 256, 3)
    values = colours if kind == "RGB" else convert_color_space(colours, "RGB", kind)
    data = (values.transpose(2, 0, 1) if planar else values).tobytes()
    path = save(tmp_path / "a.dcm", values, kind, PlanarConfiguration=planar, PixelData=data)
    found = Reader().image(path)
    np.testing.assert_array_equal(found, pixel_array(path))
    np.testing.assert_allclose(found.astype(int), colours, atol=1)  # YBR is rounded


def test_a_palette_gives_colours_to_images_and_indices_to_masks(tmp_path: Path) -> None:
    values = stored(0, np.uint8, 4)
    table: dict[str, Any] = {}
    for colour, start in (("Red", 0), ("Green", 40), ("Blue", 90)):
        name = f"{colour}PaletteColorLookupTable"
        table[f"{name}Descriptor"] = [4, 0, 8]
        table[f"{name}Data"] = bytes(range(start, start + 4))
    path = save(tmp_path / "a.dcm", values, "PALETTE COLOR", **table)
    found = Reader().image(path)
    own = pydicom.dcmread(path)
    np.testing.assert_array_equal(found, apply_color_lut(own.pixel_array, own))
    np.testing.assert_array_equal(found, np.stack([values, values + 40, values + 90], 2))
    np.testing.assert_array_equal(read_mask(path), values)


def test_twelve_bits_without_a_range_have_a_line_to_paste(tmp_path: Path) -> None:
    series(tmp_path)
    for number in range(4):
        save(tmp_path / f"images/s{number}.dcm", stored(number), bits=12)
    message = problem(tmp_path, WORDS[0])
    assert message is not None
    assert "set dataset.value_range=[0,4095]" in message


# ------------------------------------------------- files


@pytest.mark.parametrize("name", ["{}.dcm", "{}.DICOM", "{}", "1.2.840.{}.77"])
@pytest.mark.parametrize("kind", ["dicom", "png"])
def test_files_are_found_by_suffix_or_content(tmp_path: Path, name: str, kind: str) -> None:
    series(tmp_path, name, name)
    for path in [*(tmp_path / "masks").iterdir()] if kind == "png" else []:
        bare = path.name.removesuffix(".dcm").removesuffix(".DICOM")
        Image.fromarray(read_mask(path)).save(path.with_name(f"{bare}.png"))
        path.unlink()
    index = tmp_path / "images/DICOMDIR"
    index.write_bytes((tmp_path / "images" / name.format("s0")).read_bytes())
    (tmp_path / "images/README").write_text("x" * 300)
    (tmp_path / "images/notes.1").write_text("x")
    dataset = open_folder(tmp_path, *WORDS)
    assert len(dataset) == 4
    assert dataset.notes == [
        "dataset.train.images: other files are passed over: 2 without ending and 1 .1"
    ]
    for number, sample in enumerate(dataset):
        values = stored(number)
        np.testing.assert_array_equal(sample.target, values > 1024)
        np.testing.assert_allclose(sample.image[..., 0], (values - 24.0) / 2000, rtol=1e-5)


def test_training_on_dicom_files(tmp_path: Path) -> None:
    series(tmp_path, "{}", "{}.dcm", 8)
    words = ["dataset=folder", f"dataset.root={tmp_path}", WORDS[0], "dataset.val_share=0.4"]
    words += ["dataset.value_range=[-150,250]", "dataset.clip=true"]
    words += ["dataset.train.images=images", "dataset.train.masks=masks", "run_dir=run"]
    words += [f"plugins=[{TINY}]", "model=tiny", "trainer.max_steps=2", "trainer.batch_size=2"]
    words += ["trainer.device=cpu", "loader.num_workers=0", "augmentation.crop_size=[8,8]"]
    assert run_command("train", words) == 0
    given = ["checkpoint=run/checkpoints/last.pt", "output=out", "device=cpu"]
    assert run_command("predict", [*given, f"input={tmp_path}/images/s0"]) == 0
    assert Path("out/ids/s0.png").is_file()


def test_a_window_clips_values(tmp_path: Path) -> None:
    series(tmp_path)
    window = [WORDS[0], "dataset.value_range=[-150,250]"]
    message = problem(tmp_path, *window)
    assert message is not None
    (word,) = advised(message, -1)
    assert word == "dataset.clip=true"
    assert problem(tmp_path, *window, word) is None
    found = open_folder(tmp_path, *window, word)[1].image[..., 0]
    np.testing.assert_allclose(found, ((stored(1) - 874.0) / 400).clip(0, 1), atol=1e-6)
    assert {0, 1} < set(found.ravel())
    alone = problem(tmp_path, WORDS[0], word)
    assert alone == "dataset.clip=true needs dataset.value_range, the two values to clip at; set it"


# ------------------------------------------------- what cannot be read


def test_the_number_of_pixels_is_limited_before_decoding(tmp_path: Path) -> None:
    path = save(tmp_path / "a.dcm", stored(0), Rows=60000, Columns=60000)
    for read in (Reader().image, Reader().mask, Reader().size):
        with pytest.raises(DataError, match="60000 x 60000 are 3,600,000,000 pixels, more than"):
            read(path)
    assert Reader().size(save(path, stored(0))) == SHAPE


def test_several_frames(tmp_path: Path) -> None:
    values = stored(0)
    data = values.tobytes() * 3
    path = save(tmp_path / "a.dcm", values, NumberOfFrames=3, PixelData=data)
    for read in (Reader().image, Reader().mask, Reader().size):
        with pytest.raises(DataError, match=r"a\.dcm: the DICOM file has 3 frames; write each"):
            read(path)


def test_a_file_without_pixels(tmp_path: Path) -> None:
    file = dicom(stored(0), Modality="RTSTRUCT")
    for name in ("Rows", "Columns", "PixelData"):
        delattr(file, name)
    file.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(DataError, match=r"\(modality RTSTRUCT\) has no pixels; remove it, or"):
        Reader().image(tmp_path / "a.dcm")


@pytest.mark.parametrize("kept", [100, 131, 140, 300, -20, -1])
def test_truncated_files(tmp_path: Path, kept: int) -> None:
    path = save(tmp_path / "a.dcm", stored(0))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError) as caught:
        image_of(path)
    assert str(caught.value).startswith(f"{path}: the ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGExtended12Bit])
def test_a_compression_without_a_decoder_names_the_package(
    tmp_path: Path, syntax: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = encapsulate([b"\xff\xd8\xff\xc3" + bytes(40)])
    file = dicom(stored(0), syntax=syntax, bits=12, PixelData=frame)
    file["PixelData"].is_undefined_length = True
    file["PixelData"].VR = "OB"
    file.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(DataError) as caught:
        image_of(tmp_path / "a.dcm")
    assert str(caught.value) == (
        f"{tmp_path}/a.dcm: a DICOM file with {syntax.name} compression needs the package"
        " pylibjpeg: pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg"
    )


def test_lossy_compression_is_for_images_alone(tmp_path: Path) -> None:
    values = np.full(SHAPE, 90, np.uint8)
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "JPEG", quality=95)
    frame = encapsulate([stream.getvalue()])
    file = dicom(values, syntax=JPEGBaseline8Bit, PixelData=frame)
    file["PixelData"].is_undefined_length = True
    file["PixelData"].VR = "OB"
    file.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    np.testing.assert_allclose(Reader(channels=1).image(tmp_path / "a.dcm")[..., 0], values, atol=1)
    with pytest.raises(
        DataError, match=r"the mask is a DICOM \(JPEG Baseline \(Process 1\)\) file"
    ):
        read_mask(tmp_path / "a.dcm")


def test_files_without_pydicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series(tmp_path)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    message = problem(tmp_path, *WORDS)
    assert message is not None
    assert 'a DICOM file needs the package pydicom: pip install "segtrain[dicom]"' in message
