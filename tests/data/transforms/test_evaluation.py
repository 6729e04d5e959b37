import numpy as np
import pytest

from segtrain.data import IMAGENET_MEAN, IMAGENET_STD, EvalTransform, LabelContract
from segtrain.errors import ConfigError

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)
TARGET = RNG.integers(1, 5, (40, 60)).astype(np.int64)


def test_evaluation_checks_normalization_and_size():
    labels = LabelContract(6)
    for mean, std, size, sentence in (
        ((123.0,) * 3, (0.2,) * 3, None, r"augmentation\.mean must be at most 1, got .* as 255"),
        ((0.5,) * 3, (0.2, 0.0, 0.2), None, r"augmentation\.std must be above 0 and at most 1"),
        ((0.5,) * 3, (0.2,) * 3, (0, 4), r"evaluation\.size must be at least 1, got \[0, 4\]"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            EvalTransform(mean, std, labels, size)


def test_evaluation_resizes_the_image_only():
    labels = LabelContract(6)
    images, target = EvalTransform(IMAGENET_MEAN, IMAGENET_STD, labels, size=(20, 30))(
        IMAGE, TARGET
    )
    assert images.shape == (3, 20, 30)
    np.testing.assert_array_equal(target.numpy(), TARGET)
    transform = EvalTransform(IMAGENET_MEAN, IMAGENET_STD, labels)
    images = transform.normalization(transform(IMAGE, TARGET)[0])
    expected = (IMAGE[3, 4] / 255 - IMAGENET_MEAN) / np.array(IMAGENET_STD)
    np.testing.assert_allclose(images[:, 3, 4].numpy(), expected, atol=1e-5)
