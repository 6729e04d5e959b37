"""Stems for images with another number of channels than three."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from segtrain.models.layers.stem import widen


@pytest.mark.parametrize("in_channels", [1, 2, 3, 4, 6, 7, 13])
def test_timm_has_the_same_rule(in_channels: int) -> None:
    manipulate = pytest.importorskip("timm.models._manipulate")
    weight = torch.randn(8, 3, 3, 3)
    expected = manipulate.adapt_input_conv(in_channels, weight)
    assert torch.allclose(widen(weight, in_channels), expected, rtol=0, atol=1e-6)


def test_three_channels_stay_as_they_are() -> None:
    weight = torch.randn(8, 3, 3, 3)
    assert widen(weight, 3) is weight


def test_a_grey_image_gives_the_features_of_three_equal_channels() -> None:
    weight, grey = torch.randn(8, 3, 3, 3).double(), torch.randn(2, 1, 9, 9).double()
    expected = F.conv2d(grey.expand(-1, 3, -1, -1), weight)
    assert torch.allclose(F.conv2d(grey, widen(weight, 1)), expected, rtol=0, atol=1e-12)


def test_repeated_channels_give_the_same_features() -> None:
    weight, images = torch.randn(8, 3, 3, 3).double(), torch.randn(2, 3, 9, 9).double()
    twice = F.conv2d(torch.cat([images, images], dim=1), widen(weight, 6))
    assert torch.allclose(twice, F.conv2d(images, weight), rtol=0, atol=1e-12)


@pytest.mark.parametrize("in_channels", [2, 4, 5, 6, 10])
def test_equal_channels_keep_the_scale(in_channels: int) -> None:
    """With equal channels, the sums of the filters agree up to the remaining channels."""
    weight = torch.ones(1, 3, 1, 1)
    assert widen(weight, in_channels).sum().item() == pytest.approx(3)


def test_a_stem_for_other_channels_can_be_widened_too() -> None:
    weight = torch.arange(4.0).reshape(1, 4, 1, 1)
    assert widen(weight, 2).flatten().tolist() == [0.0, 2.0]
