"""Metrics of boundaries and topology, beside MONAI, the authors' formulas and published numbers."""

from __future__ import annotations

import csv
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from segtrain.errors import ConfigError
from segtrain.metrics import MaskMetric, betti_numbers, build_metrics
from tests.helpers import SHARED

Pairs = list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]
SURFACE = ["boundary_iou", "boundary_f", "nsd", "hd95", "assd", "cldice"]


def metric(name: str, **params: Any) -> MaskMetric:
    (found,) = build_metrics([{"name": name, **params}])
    assert isinstance(found, MaskMetric)
    return found


def disc(radius: float, middle: tuple[int, int] = (20, 20), size: int = 41) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:size, :size]
    return np.hypot(rows - middle[0], columns - middle[1]) <= radius


def square(first: int, last: int, size: int = 30) -> NDArray[np.bool_]:
    mask = np.zeros((size, size), bool)
    mask[first:last, first:last] = True
    return mask


@pytest.mark.parametrize("name", SURFACE)
def test_a_perfect_prediction(name: str) -> None:
    value = metric(name).image_value(disc(10), disc(10))
    assert value == (0.0 if name in ("hd95", "assd") else 1.0)


@pytest.mark.parametrize("name", SURFACE)
def test_a_class_on_one_side_only(name: str) -> None:
    empty = np.zeros((41, 41), bool)
    worst = math.hypot(41, 41) if name in ("hd95", "assd") else 0.0
    assert metric(name).image_value(disc(10), empty) == worst
    assert metric(name).image_value(empty, disc(10)) == worst
    assert math.isnan(metric(name).image_value(empty, empty))


def test_squares_by_hand() -> None:
    small, large = square(10, 20), square(8, 22)  # borders of 36 and 52 pixels, 2 apart
    assert metric("hd95", percentile=100).image_value(small, large) == pytest.approx(2 * 2**0.5)
    assert metric("nsd", tolerance=2).image_value(small, large) == pytest.approx(1 - 4 * 3 / 88)
    assert metric("nsd", tolerance=1).image_value(small, large) == 0.0
    # With a width of 3 pixels both bands are frames of 3; they share one ring, of 36 pixels.
    width = 3 / math.hypot(30, 30)
    frames = (100 - 16) + (196 - 64) - 36
    value = metric("boundary_iou", width=width).image_value(small, large)
    assert value == pytest.approx(36 / frames)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of MONAI about itself
def test_distances_agree_with_monai(masks: Pairs) -> None:
    monai = pytest.importorskip("monai.metrics")
    for pair in masks:
        one, two = (torch.from_numpy(side)[None, None] for side in pair)
        given = {"include_background": True}
        expected = {
            "hd95": monai.compute_hausdorff_distance(one, two, percentile=95, **given),
            "assd": monai.compute_average_surface_distance(one, two, symmetric=True, **given),
            "nsd": monai.compute_surface_dice(one, two, class_thresholds=[1.0], **given),
        }
        for name, value in expected.items():
            assert metric(name).image_value(*pair) == pytest.approx(float(value), abs=1e-5)


def test_distances_agree_with_medpy(masks: Pairs) -> None:
    binary = pytest.importorskip("medpy.metric.binary")
    for pair in masks:
        assert metric("hd95", percentile=100).image_value(*pair) == pytest.approx(binary.hd(*pair))


def test_boundary_iou_is_the_authors_formula(masks: Pairs) -> None:
    cv2 = pytest.importorskip("cv2")

    def boundary(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:  # mask_to_boundary of the authors
        height, width = mask.shape
        dilation = max(round(0.02 * math.hypot(height, width)), 1)
        padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=dilation)
        return mask.astype(np.uint8) - eroded[1 : height + 1, 1 : width + 1]

    for pair in masks:
        one, two = (boundary(side) > 0 for side in pair)
        expected = (one & two).sum() / (one | two).sum()
        assert metric("boundary_iou").image_value(*pair) == pytest.approx(expected)


def test_boundary_f_by_dilated_borders(masks: Pairs) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    for pair in masks:
        limit = math.ceil(0.0075 * math.hypot(*pair[0].shape))
        rows, columns = np.mgrid[-limit : limit + 1, -limit : limit + 1]
        near = np.hypot(rows, columns) <= limit
        one, two = (side & ~ndimage.binary_erosion(side) for side in pair)
        precision = one[ndimage.binary_dilation(two, near)].sum() / one.sum()
        recall = two[ndimage.binary_dilation(one, near)].sum() / two.sum()
        expected = 2 * precision * recall / (precision + recall)
        assert metric("boundary_f").image_value(*pair) == pytest.approx(expected)


def test_cldice_is_the_authors_formula(masks: Pairs) -> None:
    morphology = pytest.importorskip("skimage.morphology")
    for prediction, target in masks:
        lines = [morphology.skeletonize(side) for side in (prediction, target)]
        precision = np.sum(lines[0] * target) / np.sum(lines[0])
        recall = np.sum(lines[1] * prediction) / np.sum(lines[1])
        expected = 2 * precision * recall / (precision + recall)
        assert metric("cldice").image_value(prediction, target) == pytest.approx(expected)


def test_betti_numbers_by_hand() -> None:
    ring = disc(15) & ~disc(9)
    assert betti_numbers(ring) == (1, 1)
    assert betti_numbers(ring | disc(4)) == (2, 1)
    assert betti_numbers(np.zeros((5, 5))) == (0, 0)
    assert betti_numbers(np.ones((5, 5))) == (1, 0)
    diagonal = np.eye(4)  # one part by its corners, which closes no hole
    assert betti_numbers(diagonal) == (1, 0)
    corners = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    assert betti_numbers(corners) == (1, 1)
    assert metric("betti0_error").image_value(ring | disc(4), ring) == 1
    assert metric("betti1_error").image_value(disc(15), ring) == 1
    empty = np.zeros_like(ring)
    assert metric("betti0_error").image_value(empty, ring) == 1
    assert math.isnan(metric("betti0_error").image_value(empty, empty))


def test_betti_numbers_as_published() -> None:
    folder = SHARED / "topomortar" / "betti"
    tables = sorted(folder.glob("*.csv")) if folder.is_dir() else []
    if not tables:
        pytest.skip(f"there are no masks at {folder}")
    with tables[0].open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    for row in rows:
        mask = np.array(Image.open(folder / f"{row['ID']}.png"))
        assert betti_numbers(mask) == (int(row["Betti0"]), int(row["Betti1"])), row["ID"]


def test_betti_numbers_agree_with_scikit_image(masks: Pairs) -> None:
    measure = pytest.importorskip("skimage.measure")
    for _, target in masks:
        parts, euler = (
            measure.label(target, connectivity=2).max(),
            measure.euler_number(target, 2),
        )
        assert betti_numbers(target) == (parts, parts - euler)


def test_wrong_parameters_and_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    for spec, message in (
        ({"name": "nsd", "tolerance": -1}, r"tolerance must be finite and not negative"),
        ({"name": "hd95", "percentile": 101}, "percentile must be from 0 to 100, got 101"),
        ({"name": "nsd", "tolerence": 1}, "did you mean 'tolerance'"),
        ("hd59", "did you mean 'hd95'"),
    ):
        with pytest.raises(ConfigError, match=r"^evaluation\.metrics\[0\].*" + message):
            build_metrics([spec])
    with pytest.raises(ConfigError, match="'iou' is named twice"):
        build_metrics(["mIoU", "iou"])
    monkeypatch.setitem(__import__("sys").modules, "skimage.morphology", None)
    with pytest.raises(ConfigError, match="scikit-image: pip install 'segtrain"):
        build_metrics(["cldice"])
