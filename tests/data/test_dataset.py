import numpy as np
import pytest

from segtrain.data import FileDataset, LabelContract
from segtrain.data.dataset import explain_shapes, read_masks
from segtrain.errors import DataError

MASKS = {"a": np.ones((2, 3), np.uint8), "b": np.full((2, 3), 4, np.uint8)}


def read(name, *, all_channels=False):
    return MASKS[name] + 100 * all_channels


def image_size():
    return 5, 6


def test_a_single_mask_is_read_as_it_is():
    single = read_masks(["a"], read, image_size, multi_label=False)
    np.testing.assert_array_equal(single, MASKS["a"])
    channels = read_masks(["a"], read, image_size, multi_label=True)
    np.testing.assert_array_equal(channels, MASKS["a"] + 100)


def test_classes_without_a_mask_get_zeros():
    found = read_masks([None, "b", "a"], read, image_size, multi_label=True)
    for mask, expected in zip(found, (np.zeros((2, 3)), MASKS["b"], MASKS["a"]), strict=True):
        np.testing.assert_array_equal(mask, expected)
    (empty,) = read_masks([None], read, image_size, multi_label=True)
    assert (empty.shape, empty.dtype, empty.any()) == ((5, 6), np.uint8, False)


@pytest.mark.fault("F29")
def test_shapes_must_agree(make_files):
    files = make_files(np.zeros((2, 8)), size=(4, 4))
    with pytest.raises(DataError, match=r"masks/00\.png.*2 x 8.*images/00\.png.*4 x 4"):
        FileDataset(LabelContract(2), files)[0]


@pytest.mark.fault("F29")
def test_rotated_masks_are_recognised(make_files):
    files = make_files(np.zeros((2, 8)), size=(8, 2))
    with pytest.raises(DataError, match="turn the mask"):
        FileDataset(LabelContract(2), files)[0]


@pytest.mark.fault("F30")
@pytest.mark.parametrize(("exif", "other"), [("apply", "ignore"), ("ignore", "apply")])
def test_the_advice_for_rotated_masks_depends_on_exif(make_files, exif, other):
    (files,) = make_files(np.zeros((2, 8)), size=(8, 2))
    assert f"set dataset.exif={other}" in explain_shapes((8, 2), (2, 8), files, exif == "apply")
