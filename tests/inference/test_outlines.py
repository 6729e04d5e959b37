"""Outlines of regions give the regions back, whatever shape they have."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco
from scipy import ndimage

from segtrain.inference.writers.outlines import Outlines
from segtrain.inference.writers.regions import Region, shoelace

NOISE = [np.random.default_rng(seed).integers(0, 3, (19, 23)) for seed in range(4)]
RING = np.ones((6, 6), int)
RING[1:5, 1:5] = 0
RING[2:4, 2:4] = 1
RING[0, 0] = RING[3, 3] = 0
CORNERS = np.array([[1, 1, 1, 0], [1, 0, 1, 1], [1, 1, 0, 1], [0, 1, 1, 1]])
MAPS = {
    "one class": np.zeros((4, 5), int),
    "one pixel": np.ones((1, 1), int),
    "ring in a ring": RING,
    "holes that touch": CORNERS,
    "checkerboard": np.indices((7, 8)).sum(0) % 2,
    "ignored pixels": np.where(NOISE[0] == 2, 255, NOISE[0]),
    **{f"noise {number}": noise for number, noise in enumerate(NOISE)},
    "large": ndimage.zoom(NOISE[1], 3, order=0),
}


def regions(ids: np.ndarray, band: int, **keys: int) -> list[Region]:
    outlines, found = Outlines(ids.shape[1], num_ids=3, **keys), []
    for start in range(0, len(ids), band):
        outlines.add(ids[start : start + band])
        found.extend(outlines.closed())
    return [*found, *outlines.regions()]


def labelled(ids: np.ndarray) -> tuple[np.ndarray, int]:
    """The regions of an independent implementation."""
    found, total = np.zeros(ids.shape, int), 0
    for class_id in range(3):
        parts, number = ndimage.label(ids == class_id)
        found[parts > 0] = parts[parts > 0] + total
        total += number
    return found, total


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize(("band", "enough"), [(1, 1), (4, 1), (4, 10**9), (1000, 1)])
def test_regions_are_drawn_back(
    name: str, band: int, enough: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segtrain.inference.writers.outlines._ENOUGH", enough)
    features = pytest.importorskip("rasterio.features")
    ids = MAPS[name]
    found = regions(ids, band)
    wanted, number = labelled(ids)
    assert len(found) == number
    drawn = np.full(ids.shape, 255 if 255 in ids else -9)
    for region in found:
        polygon = {"type": "Polygon", "coordinates": [[*r.tolist(), r[0].tolist()] for r in region.rings]}  # noqa: E501  # fmt: skip
        inside = features.rasterize([polygon], out_shape=ids.shape, dtype=np.uint8) > 0
        assert inside.sum() == region.area == sum(map(shoelace, region.rings))
        assert len(np.unique(wanted[inside])) == 1
        drawn[inside] = region.class_id
        lengths = region.run_lengths(*ids.shape)
        packed = coco.frPyObjects({"counts": lengths, "size": [*ids.shape]}, *ids.shape)
        np.testing.assert_array_equal(coco.decode(packed), inside)
        assert all(length > 0 for length in lengths[1:])
        assert coco.toBbox(packed).tolist() == [*region.box]
        for index, ring in enumerate(region.rings):
            assert (shoelace(ring) > 0) == (index == 0)
            assert len(np.unique(ring, axis=0)) == len(ring)  # it does not touch itself
    np.testing.assert_array_equal(drawn, ids)


def test_small_regions_and_first_classes_are_left_out() -> None:
    outlines = Outlines(6, num_ids=2, first=1)
    outlines.add(RING)
    assert [region.area for region in outlines.regions(min_area=4)] == [19]
    assert {region.class_id for region in regions(RING, 2, first=1)} == {1}
