import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from segtrain.data import (
    LabelContract,
    Reader,
    read_image,
    read_mask,
    write_mask,
    write_palette_mask,
)
from segtrain.data.labels.mask_facts import NAN
from segtrain.errors import DataError

IDS = np.array([[1, 2, 255], [0, 2, 1]], dtype=np.uint8)


@pytest.mark.fault("F33")
def test_palette_mask_gives_indices(tmp_path):
    write_palette_mask(tmp_path / "m.png", IDS, [[200, 0, 0], [0, 200, 0], [9, 9, 9]])
    with Image.open(tmp_path / "m.png") as image:
        assert image.mode == "P"
        assert image.convert("RGB").getpixel((1, 1)) == (9, 9, 9)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), IDS)


@pytest.mark.fault("F33")
@pytest.mark.parametrize("ids", [IDS, np.array([[1, 300, 65535]])])
def test_written_masks_read_back(tmp_path, ids):
    write_mask(tmp_path / "m.png", ids)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), ids)


@pytest.mark.fault("F33")
def test_one_bit_mask(tmp_path):
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png").tolist() == [[1, 0]]


@pytest.mark.fault("F33")
def test_grey_png_of_four_bits_is_not_stretched(tmp_path):
    import struct
    import zlib

    def chunk(kind, body):
        data = kind + body
        return struct.pack(">I", len(body)) + data + struct.pack(">I", zlib.crc32(data))

    header = struct.pack(">IIBBBBB", 4, 1, 4, 0, 0, 0, 0)  # 4 x 1 pixels, 4 bits, grey
    rows = zlib.compress(bytes([0, 0x01, 0x2F]))
    content = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    (tmp_path / "m.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    assert read_mask(tmp_path / "m.png").tolist() == [[0, 1, 2, 15]]


@pytest.mark.fault("F33")
def test_masks_of_colours_keep_them_and_lose_transparency(tmp_path):
    for mode in ("RGB", "RGBA"):
        Image.new(mode, (3, 2), (1, 2, 3, 0)[: len(mode)]).save(tmp_path / "m.png")
        assert read_mask(tmp_path / "m.png")[0, 0].tolist() == [1, 2, 3]
    Image.new("LA", (3, 2), (4, 0)).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png")[0].tolist() == [4, 4, 4]


@pytest.mark.fault("F28")
@pytest.mark.parametrize("suffix", ["jpg", "webp", "tif", "jp2"])
def test_lossy_masks_are_refused(tmp_path, suffix):
    file = tmp_path / f"m.{suffix}"
    Image.new("L", (16, 16)).save(file, **({"compression": "jpeg"} if suffix == "tif" else {}))
    with pytest.raises(DataError, match=rf"m\.{suffix}.*changes class ids.*PNG"):
        read_mask(file)


def test_a_lossless_webp_is_a_mask(tmp_path):
    Image.new("RGB", (4, 4), (9, 8, 7)).save(tmp_path / "m.webp", lossless=True)
    assert read_mask(tmp_path / "m.webp")[0, 0].tolist() == [9, 8, 7]


@pytest.mark.fault("F33")
def test_masks_of_floats_hold_whole_numbers(tmp_path):
    file = tmp_path / "m.tif"
    Image.fromarray(np.array([[0, 7], [np.nan, 300]], dtype=np.float32)).save(file)
    raw = read_mask(file)
    assert raw.tolist() == [[0, 7], [NAN, 300]]
    labels = LabelContract(301, ignore_label=-1)
    assert labels.to_ids(raw, "m.tif").tolist() == [[0, 7], [-1, 300]]
    Image.fromarray(np.array([[0, 0.5]], dtype=np.float32)).save(file)
    with pytest.raises(DataError, match=r"m\.tif: the mask holds 0\.5 at 1 pixels.*whole numbers"):
        read_mask(file)


@pytest.mark.fault("F33")
def test_masks_of_48_bit_colours_are_refused(tmp_path):
    cv2 = pytest.importorskip("cv2")
    cv2.imwrite(str(tmp_path / "m.png"), np.zeros((4, 4, 3), np.uint16))
    with pytest.raises(DataError, match=r"m\.png.*16 bits per channel.*no palette"):
        read_mask(tmp_path / "m.png")


def test_arrays_and_matlab_files(tmp_path):
    np.save(tmp_path / "m.npy", IDS.astype(np.int64))
    np.testing.assert_array_equal(read_mask(tmp_path / "m.npy"), IDS)
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    with pytest.raises(DataError, match=r"objects\.npy.*cannot be read"):  # a pickle
        read_mask(tmp_path / "objects.npy")
    scipy_io = pytest.importorskip("scipy.io")
    scipy_io.savemat(tmp_path / "sbd.mat", {"GTcls": {"Segmentation": IDS, "Boundaries": [0]}})
    np.testing.assert_array_equal(read_mask(tmp_path / "sbd.mat"), IDS)
    scipy_io.savemat(tmp_path / "plain.mat", {"LabelMap": IDS.astype(np.uint16), "names": ["a"]})
    np.testing.assert_array_equal(read_mask(tmp_path / "plain.mat"), IDS)


@pytest.mark.fault("F28")
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_truncated_files_are_named(tmp_path, name, kept):
    rng = np.random.default_rng(0)
    file = tmp_path / name
    Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)).save(file)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(DataError, match=rf"{name}: the image file cannot be read"):
        read_image(file)
    with pytest.raises(DataError, match=name):
        read_mask(file)


@pytest.mark.fault("F34")
def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(DataError, match=r"no\.png: the image file does not exist"):
        read_image(tmp_path / "no.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(DataError, match=r"text\.png: the mask file cannot be read"):
        read_mask(tmp_path / "text.png")
    with pytest.raises(DataError, match=r"cannot be read"):
        read_image(tmp_path)


@pytest.mark.fault("F30")
@pytest.mark.parametrize(("orientation", "turns"), [(3, 2), (6, -1), (8, 1)])
def test_exif_orientation_is_applied(tmp_path, orientation, turns):
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    image = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image, np.rot90(pixels, turns))
    assert Reader().size(tmp_path / "a.png") == image.shape[:2]


@pytest.mark.fault("F44")
@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 7, [7, 7, 7]),
        ("RGBA", (1, 2, 3, 0), [1, 2, 3]),
        ("LA", (9, 0), [9, 9, 9]),
        ("1", 1, [255, 255, 255]),
        ("I;16", 0x1234, [0x12, 0x12, 0x12]),
        ("CMYK", (0, 255, 255, 0), [255, 0, 0]),
    ],
)
def test_images_become_rgb_bytes(tmp_path, mode, colour, expected):
    file = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new(mode, (3, 2), colour).save(file)
    image = read_image(file)
    assert (image.shape, image.dtype) == ((2, 3, 3), np.uint8)
    assert image[0, 0].tolist() == expected


@pytest.mark.fault("F30")
def test_exif_of_a_mask_is_applied_as_well(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(IDS).save(tmp_path / "m.png", exif=exif)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), np.rot90(IDS, -1))
    np.testing.assert_array_equal(Reader(exif="ignore").mask(tmp_path / "m.png"), IDS)


@pytest.mark.fault("F30")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_those_of_pillow(tmp_path, orientation):
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        expected = np.array(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)


@pytest.mark.fault("F44")
@pytest.mark.parametrize("shape", [(5, 7, 5), (5, 5, 7)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_any_number_of_channels(tmp_path, shape, dtype):
    planes = np.arange(5 * 5 * 7).reshape(shape).astype(dtype)
    kind = {"planarconfig": "separate"} if shape[2] == 7 else {"planarconfig": "contig"}
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="minisblack", **kind)
    pixels = planes.transpose(1, 2, 0) if shape[2] == 7 else planes
    wanted = {np.uint8: (None, pixels), np.uint16: (None, pixels / np.float32(65535)),
              np.float32: ((0, 100), pixels / np.float32(100))}  # fmt: skip
    span, expected = wanted[dtype]
    image = Reader(channels=5, value_range=span).image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image, expected)
    assert image.dtype == (np.uint8 if dtype == np.uint8 else np.float32)
    assert Reader(channels=5).size(tmp_path / "a.tif") == (5, 7)
    with pytest.raises(DataError, match=r"a\.tif: the image has 5 channels.*dataset\.channels=5"):
        read_image(tmp_path / "a.tif")


def test_a_fourth_band_is_transparency_only_if_the_file_says_so(tmp_path):
    pixels = np.arange(4 * 5 * 4, dtype=np.uint8).reshape(4, 5, 4)
    kind = {"photometric": "minisblack", "planarconfig": "contig"}
    tifffile.imwrite(tmp_path / "bands.tif", pixels, **kind)
    with pytest.raises(DataError, match=r"4 channels, but dataset\.channels=3"):
        read_image(tmp_path / "bands.tif")
    tifffile.imwrite(tmp_path / "rgba.tif", pixels, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(read_image(tmp_path / "rgba.tif"), pixels[..., :3])


def test_pages_of_one_size_are_channels(tmp_path):
    planes = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for plane in planes:
            file.write(plane, contiguous=False)
    image = Reader(channels=4).image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image, planes.transpose(1, 2, 0))
    with tifffile.TiffWriter(tmp_path / "b.tif") as file:  # with a smaller copy, like an overview
        file.write(planes[0])
        file.write(planes[0, ::2, ::2])
    np.testing.assert_array_equal(read_mask(tmp_path / "b.tif"), planes[0])


def test_nan_marks_pixels_without_data(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.array([[1.0, np.nan, np.inf]], dtype=np.float32))
    image = Reader(channels=1, value_range=(0, 2)).image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.ravel(), [0.5, np.nan, 1.0])


def test_floats_need_a_range(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0.5, 2.0]], dtype=np.float32))
    with pytest.raises(DataError, match=r"0\.5 to 2.*dataset\.value_range=\[LOW,HIGH\]"):
        read_image(tmp_path / "a.tif")
    image = Reader(channels=1, value_range=(0, 2)).image(tmp_path / "a.tif")
    assert image.tolist() == [[[0.25], [1.0]]]


def test_value_range_keeps_sixteen_bits(tmp_path):
    cv2 = pytest.importorskip("cv2")
    pixels = np.array([[[100, 40_000, 65_535]]], dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), pixels[..., ::-1])
    assert read_image(tmp_path / "a.png").tolist() == [[[0, 156, 255]]]
    image = Reader(value_range=(0, 65_535)).image(tmp_path / "a.png")
    np.testing.assert_allclose(image, pixels / 65_535, rtol=1e-6)


def test_colours_become_grey(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    grey = Reader(channels=1).image(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        expected = np.array(image.convert("L"))
    assert np.abs(grey[..., 0].astype(int) - expected).max() <= 1


@pytest.mark.fault("F41")
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_images_beyond_the_limit_are_refused_from_their_header(tmp_path, suffix):
    file = tmp_path / f"a.{suffix}"
    Image.new("L", (300, 200)).save(file)
    for read in (Reader(max_pixels=59_999).image, Reader(max_pixels=59_999).size):
        with pytest.raises(DataError, match=r"200 x 300 are 60,000 pixels.*max_pixels=59,999"):
            read(file)
    assert Reader(max_pixels=60_000, channels=1).image(file).shape == (200, 300, 1)


def test_the_limit_of_pillow_does_not_apply(tmp_path, monkeypatch):
    Image.new("L", (300, 200)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_image(tmp_path / "a.png").shape == (200, 300, 3)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_ids_that_do_not_fit_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="-1"):
        write_mask(tmp_path / "m.png", np.array([[-1]]))
    with pytest.raises(ValueError, match="300"):
        write_palette_mask(tmp_path / "m.png", np.array([[300]]), [])
