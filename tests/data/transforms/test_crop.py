"""Crops that are cut in the source, compared with the usual order: resize all, pad, crop."""

import numpy as np
import pytest

from segtrain.data.transforms.crop import Crop, Span, cut, draw_span

cv2 = pytest.importorskip("cv2")
HEIGHT, WIDTH = 90, 120
SEEDS = 4000


def plain_span(rng, source, wanted, scale):
    """Start and end of a crop in source coordinates in the usual order, and its place and size."""
    scaled = int(source * scale)
    if scaled >= wanted:
        start = rng.integers(scaled - wanted + 1)
        return start / scale, (start + wanted) / scale, 0, wanted
    return 0, source, rng.integers(wanted - scaled + 1), scaled


@pytest.mark.parametrize(("source", "wanted"), [(HEIGHT, 64), (WIDTH, 64), (HEIGHT, 150), (64, 64)])
def test_scales_and_positions_are_distributed_as_in_the_usual_order(source, wanted):
    ours, plain = np.zeros((SEEDS, 4)), np.zeros((SEEDS, 4))
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        span = draw_span(rng, source, wanted, float(rng.uniform(0.5, 2.0)))
        ours[seed] = span.start, span.start + span.length, span.place, span.size
        rng = np.random.default_rng(seed + SEEDS)
        plain[seed] = plain_span(rng, source, wanted, float(rng.uniform(0.5, 2.0)))
    for column in range(4):
        for one, two in ((ours, plain), (plain, ours)):
            grid = np.quantile(two[:, column], np.linspace(0.02, 0.98, 49)) + 0.51
            share = np.abs(
                (one[:, column, None] <= grid).mean(0) - (two[:, column, None] <= grid).mean(0)
            )
            # The bound of the two-sample Kolmogorov-Smirnov test at a level of 0.001.
            assert share.max() < 1.95 * np.sqrt(2 / SEEDS)
    scales = [(two[:, 3] / (two[:, 1] - two[:, 0])) for two in (ours, plain)]
    assert (
        np.abs(
            np.quantile(scales[0], [0.1, 0.5, 0.9]) - np.quantile(scales[1], [0.1, 0.5, 0.9])
        ).max()
        < 0.04
    )


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.0, 1.5, 2.0])
def test_the_pixels_are_those_of_the_resized_image(scale):
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8), (0, 0), 3)
    size = (round(HEIGHT * scale), round(WIDTH * scale))
    resized = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    rows, columns = (Span(start, round(36 / scale), 0, 36) for start in (12, 20))
    found = cut(image, Crop(rows, columns, (36, 36)), 0)
    top, left = round(rows.start * scale), round(columns.start * scale)
    expected = resized[top : top + 36, left : left + 36]
    if scale == 1.0:
        np.testing.assert_array_equal(found, expected)
    # Interpolation repeats the pixels at the edge of the window, which the whole image continues.
    assert np.abs(found[1:-1, 1:-1].astype(int) - expected[1:-1, 1:-1]).max() <= 4


def test_pixels_without_a_source_are_filled():
    image = np.full((10, 20, 3), 7, np.uint8)
    crop = Crop(Span(0, 10, 3, 5), Span(0, 20, 2, 10), (12, 16))
    found = cut(image, crop, np.array([1, 2, 3]))
    assert (found[3:8, 2:12] == 7).all()
    found[3:8, 2:12] = [1, 2, 3]
    assert (found == [1, 2, 3]).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("angle", [0.0, 30.0])
@pytest.mark.parametrize("channels", [None, 1, 7, 150])
def test_masks_take_the_nearest_label(dtype, angle, channels):
    rng = np.random.default_rng(0)
    shape = (HEIGHT, WIDTH) if channels is None else (HEIGHT, WIDTH, channels)
    mask = (rng.integers(0, 2, shape) * 200).astype(dtype)
    crop = Crop(Span(10, 20, 0, 50), Span(5, 40, 0, 50), (50, 50), angle, mirrored=True)
    found = cut(mask, crop, 255, nearest=True)
    assert (found.shape, found.dtype) == ((50, 50, *shape[2:]), dtype)
    assert set(np.unique(found)) <= {0, 200, 255}
    assert found.flags.c_contiguous


def test_a_quarter_turn_is_exact():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (30, 30, 5), dtype=np.uint8)
    whole = Span(0, 30, 0, 30)
    for angle, turns in ((90.0, 1), (180.0, 2), (-90.0, -1)):
        found = cut(image, Crop(whole, whole, (30, 30), angle), 0)
        np.testing.assert_array_equal(found, np.rot90(image, turns))


def test_sides_longer_than_opencv_can_rotate():
    image = np.zeros((8, 33_000), np.uint8)
    image[:, 32_000:] = 9
    columns = Span(31_990, 20, 0, 20)
    found = cut(image, Crop(Span(0, 8, 0, 8), columns, (8, 20), 180.0), 0)
    np.testing.assert_array_equal(found, image[:, 31_990:32_010][::-1, ::-1])
    outside = cut(image, Crop(Span(0, 8, 40, 8), Span(0, 8, 40, 8), (48, 48), 90.0), 3)
    assert (outside == 3).sum() == 48 * 48 - 64


def test_both_flips():
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    spans = Span(0, 2, 0, 2), Span(0, 3, 0, 3)
    for mirrored, upside_down in ((True, False), (False, True), (True, True)):
        found = cut(image, Crop(*spans, (2, 3), 0.0, mirrored, upside_down), 0)
        expected = image[:: -1 if upside_down else 1, :: -1 if mirrored else 1]
        np.testing.assert_array_equal(found, expected)


def test_a_rotation_keeps_the_scale():
    """A disc in the middle of a stretched crop is the same disc with and without a rotation."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    mask = ((rows - 44.5) ** 2 + (columns - 59.5) ** 2 < 400).astype(np.uint8)
    spans = Span(30, 30, 0, 60), Span(45, 30, 0, 60)
    plain = cut(mask, Crop(*spans, (60, 60)), 255, nearest=True)
    turned = cut(mask, Crop(*spans, (60, 60), 33.0), 255, nearest=True)
    assert (plain != turned).mean() < 0.03
