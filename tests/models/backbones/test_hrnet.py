"""The trunk of HRNet, and its ImageNet weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from segtrain.errors import ConfigError, ResourceError
from segtrain.models.backbones.hrnet import VARIANTS, HRNet, HRNetVariant, imagenet_trunk
from tests.models.backbones.helpers import (
    put_weights,
)


@pytest.mark.parametrize("size", [(32, 32), (33, 31), (1, 1), (75, 117)])
def test_trunk_accepts_any_size(size: tuple[int, int]) -> None:
    trunk = HRNet("w18_small_v1").eval()
    with torch.no_grad():
        branches = trunk(torch.randn(1, 3, *size))
    for stride, branch in zip((4, 8, 16, 32), branches, strict=True):
        assert tuple(branch.shape[-2:]) == tuple(-(-side // stride) for side in size)


def test_a_custom_variant() -> None:
    trunk = HRNet(HRNetVariant(8, (1, 1, 1), 1, 1, 16)).eval()
    with torch.no_grad():
        assert [branch.shape[1] for branch in trunk(torch.randn(1, 3, 32, 32))] == [8, 16, 32, 64]


@pytest.mark.parametrize("variant", ["w18_small_v1", "w18_small_v2"])
def test_an_hrnet_takes_timms(hf_cache: Path, variant: str) -> None:
    name = {"w18_small_v1": "hrnet_w18_small", "w18_small_v2": "hrnet_w18_small_v2"}[variant]
    state = put_weights(hf_cache, name)
    trunk = HRNet(variant)
    loaded = trunk.pretrained()
    assert list(loaded) == list(trunk.state_dict())
    for key, value in loaded.items():
        assert torch.equal(value, state[key]), key


@pytest.mark.parametrize("variant", ["w18", "w32", "w48"])
def test_every_published_hrnet_has_a_name_in_timm(hf_cache: Path, variant: str) -> None:
    with pytest.raises(ResourceError, match=rf"timm/hrnet_{variant}\."):
        imagenet_trunk(VARIANTS[variant])


def test_a_custom_hrnet_has_no_imagenet_weights() -> None:
    with pytest.raises(ConfigError, match="no ImageNet weights for an HRNet"):
        HRNet(HRNetVariant(8, (1, 1, 1), 1, 1, 16)).pretrained()
