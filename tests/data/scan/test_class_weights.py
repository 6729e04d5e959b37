"""The formulas against counts by hand, and the range that each promises."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from segtrain.data.scan.class_weights import (
    AUTO_METHOD,
    METHODS,
    class_weights,
    describe_weights,
    effective_number,
    inverse_frequency,
    inverse_log,
    median_frequency,
    pixel_share,
)
from segtrain.errors import ConfigError
from segtrain.schema.sections import WEIGHT_METHODS

# Three images of 100 pixels that have a class, all but the last.
PIXELS = np.array([[80, 20, 0, 0], [90, 0, 10, 0], [30, 15, 5, 0]])
TARGETS = [  # the same counts, pixel by pixel
    [0] * 80 + [1] * 20,
    [0] * 90 + [2] * 10,
    [0] * 30 + [1] * 15 + [2] * 5,
]
AREAS = np.array([len(target) for target in TARGETS])


def by_hand(method: str) -> list[float]:
    """From the pixels themselves, in plain Python, for the classes 0 to 2."""
    whole = [value for target in TARGETS for value in target]
    found = []
    for class_id in range(3):
        holding = [target for target in TARGETS if class_id in target]
        share = whole.count(class_id) / len(whole)
        if method == "inverse_frequency":
            found.append(1 / share)
        elif method == "inverse_log":
            found.append(1 / math.log(1.02 + share))
        elif method == "effective_number":
            found.append(1 / sum(0.999**power for power in range(len(holding))))
        else:
            found.append(sum(map(len, holding)) / whole.count(class_id))
    return found


def test_the_words_of_the_config_are_the_methods() -> None:
    assert tuple(METHODS) == WEIGHT_METHODS
    assert AUTO_METHOD in METHODS


@pytest.mark.parametrize("method", WEIGHT_METHODS)
def test_against_a_count_by_hand(method: str) -> None:
    expected = np.array(by_hand(method))
    found = class_weights(method, PIXELS)
    assert found[:3] == pytest.approx(expected / expected.mean(), rel=1e-12)
    assert found[3] == 1.0  # it occurs nowhere
    assert found.dtype == np.float64


def test_the_scale_of_the_formulas_themselves() -> None:
    present = PIXELS[:, :3]
    assert inverse_frequency(present, AREAS) == pytest.approx(np.array([1.25, 250 / 35, 250 / 15]))
    frequency = np.array([200 / 250, 35 / 150, 15 / 150])
    assert median_frequency(present, AREAS) == pytest.approx(frequency[1] / frequency)
    assert inverse_log(np.array([[1, 0]]), np.array([1])) == pytest.approx(
        [50.4983, 1.4222][::-1], rel=1e-4
    )  # the ends of the range that the paper of ENet gives: 1 to 50
    assert effective_number(present, AREAS, beta=0.9) == pytest.approx(
        [0.1 / (1 - 0.9**3), 0.1 / (1 - 0.9**2), 0.1 / (1 - 0.9**2)]
    )


def test_effective_number_between_its_limits() -> None:
    images = np.array([[1, 0]] * 90 + [[1, 1]] * 10)
    areas = images.sum(1)
    assert effective_number(images, areas, beta=0.0) == pytest.approx([1, 1])
    nearly_one = effective_number(images, areas, beta=1 - 1e-9)
    assert nearly_one[1] / nearly_one[0] == pytest.approx(10, rel=1e-5)  # as 1 / n


@pytest.mark.parametrize("method", WEIGHT_METHODS)
def test_pixels_of_one_share_weigh_the_same(method: str) -> None:
    assert class_weights(method, np.full((4, 5), 7)) == pytest.approx(np.ones(5))


@pytest.mark.parametrize("method", [*WEIGHT_METHODS, "auto"])
def test_what_every_method_promises(method: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        pixels = (rng.random((8, 6)) ** 12 * 1e6).astype(np.int64) * (rng.random((8, 6)) < 0.5)
        found = class_weights(method, pixels)
        present = pixels.any(0)
        assert np.isfinite(found).all()
        assert (found > 0).all()
        assert (found[~present] == 1).all()
        if present.any():
            assert found[present].mean() == pytest.approx(1)
            assert found.max() <= max(present.sum(), 1) + 1e-9


def test_the_range_of_auto() -> None:
    extreme = np.array([[10**12, 1]])
    common, rare = class_weights("auto", extreme)
    assert rare / common == pytest.approx(math.log(2.02) / math.log(1.02))
    assert rare / common < 36
    common, rare = class_weights("inverse_frequency", extreme)
    assert rare / common == pytest.approx(1e12)


def test_auto_is_the_method_that_it_says() -> None:
    assert (class_weights("auto", PIXELS) == class_weights(AUTO_METHOD, PIXELS)).all()


def test_multi_label_counts_whole_images() -> None:
    yes = np.array([[50, 10], [0, 10]])  # of two images with 100 pixels
    areas = np.array([100, 100])
    assert pixel_share(yes, areas) == pytest.approx([0.25, 0.1])
    found = class_weights("median_frequency", yes, areas)  # 50 of 100, and 20 of 200
    assert found[1] / found[0] == pytest.approx(5)
    found = class_weights("inverse_log", yes, areas)
    assert found[1] / found[0] == pytest.approx(math.log(1.27) / math.log(1.12))


def test_nothing_to_count() -> None:
    empty: NDArray[Any] = np.zeros((2, 3), dtype=np.int64)
    for pixels in (empty, empty[:0]):
        assert (class_weights("auto", pixels) == 1).all()
        assert (pixel_share(pixels) == 0).all()


def test_an_unknown_method() -> None:
    with pytest.raises(
        ConfigError, match="unknown method 'inverse_freq'; did you mean 'inverse_fre"
    ):
        class_weights("inverse_freq", PIXELS)


def test_what_is_given_is_not_changed() -> None:
    before = PIXELS.copy()
    for method in WEIGHT_METHODS:
        class_weights(method, PIXELS)
    assert (before == PIXELS).all()


def test_a_description_has_plain_numbers() -> None:
    found = describe_weights("inverse_log", ["a", "b"], np.float32([0.5, 1.5]), [0.9, 0.1])  # type: ignore[arg-type]
    assert found["pixel_share"] == {"a": 0.9, "b": 0.1}
    assert type(found["class_weights"]["a"]) is float
