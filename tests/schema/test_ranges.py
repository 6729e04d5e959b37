"""Ranges beside the types of a dataclass, those of the augmentation above all."""

from __future__ import annotations

import math
from typing import Any

import pytest

from segtrain.errors import ConfigError
from segtrain.schema.ranges import Range
from segtrain.schema.sections import AugmentationConfig
from segtrain.schema.values import build_dataclass


@pytest.mark.fault("F50")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scale": [2.0, 0.5]}, "scale must have the smaller number first, got [2.0, 0.5]"),
        ({"scale": [0.0, 1.0]}, "scale must be above 0, got [0.0, 1.0]"),
        ({"crop_size": [0, 4]}, "crop_size must be at least 1, got [0, 4]"),
        ({"cat_max_ratio": 0}, "cat_max_ratio must be above 0 and at most 1, got 0.0"),
        ({"flip": 1.5}, "flip must be from 0 to 1, got 1.5"),
        ({"vertical_flip": -0.1}, "vertical_flip must be from 0 to 1, got -0.1"),
        ({"rotate": 181}, "rotate must be from 0 to 180, got 181.0"),
        ({"brightness": -1.0}, "brightness must be at least 0, got -1.0"),
        ({"contrast": -1.0}, "contrast must be at least 0, got -1.0"),
        ({"saturation": -1.0}, "saturation must be at least 0, got -1.0"),
        ({"hue": 0.7}, "hue must be from 0 to 0.5, got 0.7"),
        ({"mix_prob": 2}, "mix_prob must be from 0 to 1, got 2.0"),
        ({"mean": [123.0, 117.0, 104.0]}, "mean must be at most 1, got [123.0, 117.0, 104.0]; it"),
        ({"std": [58.0, 57.0, 57.0]}, "std must be above 0 and at most 1, got [58.0, 57.0, 57.0]"),
        ({"std": [1.0, 0.0, 1.0]}, "std must be above 0 and at most 1, got [1.0, 0.0, 1.0]"),
    ],
)
def test_an_augmentation_out_of_range_is_refused_with_the_key(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        build_dataclass(AugmentationConfig, given, "augmentation")
    assert str(caught.value).startswith(f"augmentation.{message}")


@pytest.mark.parametrize(
    "given",
    [{"cat_max_ratio": 1}, {"flip": 0}, {"flip": 1}, {"hue": 0.5}, {"scale": [1, 1]}, {"mean": []}],
)
def test_the_ends_of_a_range_are_allowed(given: dict[str, Any]) -> None:
    build_dataclass(AugmentationConfig, given, "augmentation")


@pytest.mark.parametrize("bounds", [Range(0), Range(high=1), Range(0, 1, open_low=True)])
def test_nan_is_in_no_range(bounds: Range) -> None:
    with pytest.raises(ConfigError, match=r"flip must be .*got nan"):
        bounds.check("flip", math.nan)
