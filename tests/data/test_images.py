import numpy as np
import pytest
from PIL import Image

from segtrain.data import image_size, read_image, read_mask, write_mask, write_palette_mask
from segtrain.errors import DataError

IDS = np.array([[1, 2, 255], [0, 2, 1]], dtype=np.uint8)


def test_palette_mask_gives_indices(tmp_path):
    write_palette_mask(tmp_path / "m.png", IDS, [[200, 0, 0], [0, 200, 0], [9, 9, 9]])
    with Image.open(tmp_path / "m.png") as image:
        assert image.mode == "P"
        assert image.convert("RGB").getpixel((1, 1)) == (9, 9, 9)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), IDS)


@pytest.mark.parametrize("ids", [IDS, np.array([[1, 300, 65535]])])
def test_written_masks_read_back(tmp_path, ids):
    write_mask(tmp_path / "m.png", ids)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), ids)


def test_one_bit_mask(tmp_path):
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png").tolist() == [[1, 0]]


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


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_masks_of_several_channels_are_refused(tmp_path, mode):
    Image.new(mode, (3, 2)).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=rf"m\.png.*mode {mode} .*PNG"):
        read_mask(tmp_path / "m.png")


def test_float_and_jpeg_masks_are_refused(tmp_path):
    Image.new("F", (3, 2)).save(tmp_path / "m.tif")
    with pytest.raises(DataError, match=r"m\.tif.*mode F"):
        read_mask(tmp_path / "m.tif")
    Image.new("L", (3, 2)).save(tmp_path / "m.jpg")
    with pytest.raises(DataError, match=r"m\.jpg.*JPEG.*PNG"):
        read_mask(tmp_path / "m.jpg")


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


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(DataError, match=r"no\.png: the image file does not exist"):
        read_image(tmp_path / "no.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(DataError, match=r"text\.png: the mask file cannot be read"):
        read_mask(tmp_path / "text.png")
    with pytest.raises(DataError, match=r"cannot be read"):
        read_image(tmp_path)


@pytest.mark.parametrize(("orientation", "turns"), [(3, 2), (6, -1), (8, 1)])
def test_exif_orientation_is_applied(tmp_path, orientation, turns):
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    image = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image, np.rot90(pixels, turns))
    assert image_size(tmp_path / "a.png") == image.shape[:2]


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


def test_ids_that_do_not_fit_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="-1"):
        write_mask(tmp_path / "m.png", np.array([[-1]]))
    with pytest.raises(ValueError, match="300"):
        write_palette_mask(tmp_path / "m.png", np.array([[300]]), [])
