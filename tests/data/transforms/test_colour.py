import numpy as np
import pytest

from segtrain.data.transforms.colour import Jitter, draw_jitter, shift_colours


def test_no_strength_draws_nothing():
    rng = np.random.default_rng(0)
    assert draw_jitter(rng, 0.0, 0.0, 0.0, 0.0) == Jitter()
    assert rng.random() == np.random.default_rng(0).random()


def test_factors_are_never_negative():
    drawn = [draw_jitter(np.random.default_rng(seed), 2.0, 0.1, 0.0, 0.2) for seed in range(200)]
    assert 0 <= min(jitter.brightness for jitter in drawn) < 0.1
    assert 2.5 < max(jitter.brightness for jitter in drawn) <= 3
    assert all(0.9 <= jitter.contrast <= 1.1 and jitter.saturation == 1 for jitter in drawn)
    assert -0.2 <= min(jitter.hue for jitter in drawn) < 0 < max(jitter.hue for jitter in drawn)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_hue(dtype):
    image = np.zeros((4, 4, 3), dtype)
    image[..., 0] = 255 if dtype == np.uint8 else 1
    found = shift_colours(image, Jitter(hue=1 / 3))
    assert found.dtype == dtype
    np.testing.assert_allclose(found[0, 0] / image.max(), [0, 1, 0], atol=1e-6)  # red is green
