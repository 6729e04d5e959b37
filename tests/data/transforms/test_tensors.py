import numpy as np
import pytest
import torch

from segtrain.data import IMAGENET_MEAN, IMAGENET_STD, Normalization
from segtrain.data.transforms.tensors import channels_first, planes
from segtrain.errors import ConfigError


def test_the_default_is_that_of_imagenet():
    normalization = Normalization(None, None)
    assert (normalization.mean, normalization.std) == (IMAGENET_MEAN, IMAGENET_STD)


@pytest.mark.parametrize("key", ["mean", "std"])
def test_a_number_per_channel_is_needed(key):
    given = {"mean": None, "std": None, key: [0.5]}
    with pytest.raises(ConfigError, match=rf"augmentation\.{key} must have one number per channel"):
        Normalization(**given)
    with pytest.raises(ConfigError, match=rf"augmentation\.{key} is not set"):
        Normalization(**{"mean": [0.5], "std": [0.5], key: None}, channels=1)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 130])
def test_normalization_is_the_plain_formula(dtype, channels):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, channels)).astype(dtype)
    image = image if dtype == np.uint8 else image / np.float32(255)
    mean, std = np.linspace(0.1, 0.9, channels), np.linspace(0.2, 0.5, channels)
    given = planes(image)
    assert (given.shape, given.dtype) == ((channels, 5, 7), torch.from_numpy(image).dtype)
    kept = given.clone()
    found = Normalization(mean.tolist(), std.tolist(), channels)(given)
    assert (found.shape, found.dtype) == ((channels, 5, 7), torch.float32)
    assert torch.equal(given, kept)
    pixels = image / 255 if dtype == np.uint8 else image
    expected = ((pixels - mean) / std).transpose(2, 0, 1)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_channels_first_copies():
    mask = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    found = channels_first(mask)
    assert found.tolist() == mask.transpose(2, 0, 1).tolist()
    found[:] = 0
    assert mask.any()
