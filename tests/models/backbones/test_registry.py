"""Backbones by name, custom ones and families of libraries."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segtrain.errors import ConfigError
from segtrain.models.backbones import Backbone
from segtrain.models.backbones.registry import BackboneRegistry, Family, check_architecture


def test_a_custom_backbone() -> None:
    registry = BackboneRegistry()

    @registry.register("halves")
    class Halves(Backbone):
        channels, strides = (4,), (2,)

        def __init__(self, *, width: int = 4, **common: Any) -> None:
            super().__init__(**common)
            self.conv = nn.Conv2d(self.in_channels, width, 3, stride=2, padding=1)

        def forward(self, images: Tensor) -> list[Tensor]:
            return [self.conv(images)]

    backbone = registry.build({"name": "halves", "width": 4}, in_channels=2)
    assert backbone(torch.zeros(1, 2, 5, 5))[0].shape == (1, 4, 3, 3)
    with pytest.raises(ConfigError, match="no ImageNet weights for Halves"):
        backbone.pretrained()
    with pytest.raises(ConfigError, match="in_channels must be at least 1, got 0"):
        registry.build("halves", in_channels=0)


def test_a_family() -> None:
    registry = BackboneRegistry()

    def make(*, architecture: str, in_channels: int = 3, width: int = 1) -> Backbone:
        check_architecture("mine", architecture, ["small"])
        return Backbone(in_channels=in_channels)

    registry.register_family("mine", Family(build=make, names=lambda: ["small"]))
    assert set(registry.schema("mine/small")) == {"in_channels", "width"}
    assert registry.build("mine/small").in_channels == 3
    for name, message in (
        ("mine/smal", "mine has no backbone 'smal'; did you mean mine/small"),
        ("mne/small", "did you mean 'mine/small'"),
        ("other", "Known: mine/<name>"),
    ):
        with pytest.raises(ConfigError, match=message):
            registry.build(name)
