"""The stand-in does what OpenCV does, as far as the loaders use it."""

from __future__ import annotations

import io
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.helpers import load_benchmark

STAND_IN: ModuleType = load_benchmark("opencv_stand_in")
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (24, 30, 3), dtype=np.uint8)
MASK = RNG.integers(0, 12, (24, 30), dtype=np.uint8)


def both(call: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    return call(STAND_IN), call(cv2)


@pytest.mark.parametrize("code", [0, 1, -1])
def test_flip(code: int) -> None:
    for pixels in (IMAGE, MASK):
        assert np.array_equal(*both(lambda library, pixels=pixels: library.flip(pixels, code)))


@pytest.mark.parametrize("size", [(60, 48), (14, 16)])  # no pixel is between two sources
def test_resize(size: tuple[int, int]) -> None:
    one, other = both(lambda library: library.resize(IMAGE, size, interpolation=cv2.INTER_LINEAR))
    assert one.dtype == other.dtype
    assert np.abs(one.astype(int) - other).max() <= 1
    nearest = cv2.INTER_NEAREST_EXACT
    assert np.array_equal(*both(lambda library: library.resize(MASK, size, interpolation=nearest)))


def test_normalization() -> None:
    def call(library: Any) -> NDArray[Any]:
        part, found = library.split(IMAGE)[1], np.empty((24, 30), np.float32)
        library.addWeighted(part, 0.017, part, 0, -2.1, found, library.CV_32F)
        return found

    np.testing.assert_allclose(*both(call), atol=1e-6)


def test_look_up() -> None:
    table = RNG.integers(0, 256, 256, dtype=np.uint8)
    assert np.array_equal(*both(lambda library: library.LUT(MASK, table)))


def test_decode() -> None:
    stream = io.BytesIO()
    Image.fromarray(IMAGE).save(stream, "PNG")
    data = np.frombuffer(stream.getvalue(), np.uint8)
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    assert np.array_equal(STAND_IN.imdecode(data, flags), IMAGE)
    assert STAND_IN.imdecode(data, cv2.IMREAD_GRAYSCALE).shape == (24, 30)
    assert STAND_IN.imdecode(data[:40], flags) is None


def test_the_rest_is_refused() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"cv2.distanceTransform needs OpenCV") as error:
        STAND_IN.distanceTransform(MASK)
    assert error.value.name == "cv2"
    assert STAND_IN.install() == cv2.__version__
