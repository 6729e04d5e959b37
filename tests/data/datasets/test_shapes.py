import inspect

import numpy as np
import pytest

from segtrain.data import DATASETS, ShapesDataset
from segtrain.errors import ConfigError


@pytest.mark.parametrize("name", DATASETS.names())
def test_constructors_are_schemas(name):
    assert "split" in DATASETS.schema(name)
    parameters = inspect.signature(DATASETS.get(name)).parameters
    assert all(p.kind in (p.KEYWORD_ONLY, p.VAR_KEYWORD) for p in parameters.values())
    assert all(p.annotation is not p.empty for p in parameters.values())


def test_the_registered_names():
    assert {"shapes", "folder", "list", "coco"} <= set(DATASETS.names())


def test_shapes_are_deterministic():
    first, again = ShapesDataset()[7], ShapesDataset()[7]
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.target, again.target)
    for other in (ShapesDataset()[8], ShapesDataset(seed=1)[7], ShapesDataset(split="val")[7]):
        assert (first.image != other.image).any()


def test_the_test_split_of_shapes():
    with pytest.raises(ConfigError, match=r"dataset\.num_test=0, so there is no test split"):
        ShapesDataset(split="test")
    test = ShapesDataset(split="test", num_test=3)
    assert (len(test), test[2].name) == (3, "test_00002")
    for split in ("train", "val"):
        without, beside = ShapesDataset(split=split), ShapesDataset(split=split, num_test=3)
        np.testing.assert_array_equal(without[2].image, beside[2].image)
        assert (test[2].image != beside[2].image).any()


def test_shapes_are_imbalanced_and_have_ignored_borders():
    dataset = ShapesDataset()
    targets = np.stack([dataset[index].target for index in range(200)])
    counts = np.bincount(targets.ravel(), minlength=256)
    share = counts[:6] / counts[:6].sum()
    assert set(np.unique(targets)) == {0, 1, 2, 3, 4, 5, 255}
    assert share[0] > 0.7
    assert share[5] < 0.005
    with_dot = (targets == 5).any(axis=(1, 2)).mean()
    assert 0.15 < with_dot < 0.45
    assert 0.01 < counts[255] / counts.sum() < 0.1


def test_no_object_touches_the_background():
    """The ignored border separates each class from the background."""
    target = ShapesDataset()[0].target
    for one, two in ((target[1:], target[:-1]), (target[:, 1:], target[:, :-1])):
        meets = ((one == 0) & (two > 0) & (two < 6)) | ((two == 0) & (one > 0) & (one < 6))
        assert meets.mean() < 0.002


def test_shapes_of_another_size_and_ignore_label():
    image, target, name = ShapesDataset(split="val", size=(40, 64), ignore_label=-1)[0]
    assert (image.shape, image.dtype, name) == ((40, 64, 3), np.uint8, "val_00000")
    assert (target.shape, target.dtype) == ((40, 64), np.int64)
    assert -1 in target
    assert 255 not in target


def test_shapes_arguments():
    assert (len(ShapesDataset(num_train=3)), len(ShapesDataset(split="val", num_val=2))) == (3, 2)
    with pytest.raises(IndexError):
        ShapesDataset(num_train=3)[3]
    for wrong in ({"size": (8, 96)}, {"seed": -1}, {"split": "other"}, {"num_test": -1}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            ShapesDataset(**wrong)
