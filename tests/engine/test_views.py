"""Scales, flips and windows, against formulas on the full resolution."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from segtrain.engine.views import ModelViews, averaged
from segtrain.errors import ConfigError
from segtrain.schema.sections import ViewConfig

CPU = torch.device("cpu")
WEIGHT = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(3))


def model(images: Tensor) -> dict[str, Tensor]:
    """A convolution that tells left from right, at a quarter of the resolution."""
    return {"out": F.conv2d(images, WEIGHT[:, : images.shape[1]], stride=4, padding=1)}


def views_of(**views: Any) -> ModelViews:
    return ModelViews(model, ViewConfig(**views), device=CPU)


def images() -> Tensor:
    return torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))


def probabilities(found: ModelViews, size: tuple[int, int]) -> Tensor:
    logits = found.logits(images(), size, False)
    strips = [strip.softmax(1).clone() for _, strip in logits.strips()]
    ids = torch.cat(strips, 2).argmax(1)
    assert (ids == logits.ids()).float().mean() > 0.999
    return torch.cat(strips, 2)


def upsampled(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(logits, size=size, mode="bilinear").softmax(1)


def test_of_the_whole_image_are_the_logits_of_the_model() -> None:
    expected = upsampled(model(images())["out"], (96, 128))
    torch.testing.assert_close(probabilities(views_of(), (96, 128)), expected)


def test_scales_average_probabilities_at_the_size_of_the_result() -> None:
    expected = torch.zeros(2, 5, 90, 100)
    for scale in (0.5, 1.0, 1.25):
        size = [round(96 * scale), round(128 * scale)]
        scaled = F.interpolate(images(), size=size, mode="bilinear", antialias=scale < 1)
        expected += upsampled(model(scaled)["out"], (90, 100)) / 3
    found = probabilities(views_of(scales=(0.5, 1.0, 1.25)), (90, 100))
    torch.testing.assert_close(found, expected)


def test_a_flip_averages_probabilities() -> None:
    flipped = model(images().flip(3))["out"].flip(3).softmax(1)
    expected = (model(images())["out"].softmax(1) + flipped) / 2
    found = views_of(flip=True).logits(images(), (24, 32), False)
    torch.testing.assert_close(found.views[0].softmax(1), expected)


def test_a_flip_makes_the_result_symmetric() -> None:
    symmetric = images() + images().flip(3)
    found = views_of(flip=True).logits(symmetric, (96, 128), False).views[0].softmax(1)
    torch.testing.assert_close(found, found.flip(3))


@pytest.mark.parametrize("flip", [False, True])
def test_windows_equal_the_whole_but_for_the_pixels_around_them(flip: bool) -> None:
    whole = views_of(flip=flip).logits(images(), (96, 128), False).views[0]
    windows = views_of(window=(64, 64), stride=(32, 32), flip=flip)
    found = windows.logits(images(), (96, 128), False).views[0]
    inside = [row for row in range(24) if row % 8 not in (0, 7)]
    columns = [column for column in range(32) if column % 8 not in (0, 7)]
    torch.testing.assert_close(found[:, :, inside][..., columns], whole[:, :, inside][..., columns])


@pytest.mark.parametrize("channels", [1, 3])
def test_probabilities_of_labels_are_averaged_one_by_one(channels: int) -> None:
    parts = [torch.randn(2, channels, 4), torch.tensor(200.0).expand(2, channels, 4)]
    found = averaged(parts, multi_label=channels > 1)
    torch.testing.assert_close(found.sigmoid(), (parts[0].sigmoid() + 1) / 2)
    assert bool(torch.isfinite(averaged([parts[1], parts[1]], multi_label=True)).all())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"window": (100, 64)}, r"window must be multiples of 32 above 0, such as \[128, 64\]"),
        ({"window": (32, 64)}, "window must be at least 64"),
        ({"stride": (32, 32)}, "set window as well"),
        ({"window": (64, 64), "stride": (96, 32)}, "larger than window"),
        ({"scales": ()}, "scales is empty"),
        ({"scales": (1.0, 0.0)}, "scales must be from 0.1 to 10"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ViewConfig(**given)
