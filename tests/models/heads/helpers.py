"""Helpers for the tests of heads."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from segtrain.models.heads import HEADS, Head

NUM_CLASSES = 5
# The stage that determines the size of the logits; for other heads, any stage may.
STAGE_OF = {"aspp": 0, "fcn": -1, "hrnetv2": 0, "ocr": 0, "segformer": 0, "upernet": 0}
SMALL: dict[str, dict[str, Any]] = {
    "aspp": {"channels": 8, "low_level_channels": 4},
    "fcn": {"channels": 8},
    "ocr": {"ocr_channels": 16, "key_channels": 8},
    "segformer": {"channels": 8},
    "upernet": {"channels": 8},
}
PYRAMID = ((8, 12, 16, 20), (4, 8, 16, 32))
SHAPES = {
    "pyramid": PYRAMID,
    "two stages": ((6, 10), (4, 8)),
    "one stage": ((6,), (16,)),
    "one stride": ((8, 8, 8, 8), (16, 16, 16, 16)),
    "dilated": ((8, 12, 16, 20), (4, 8, 8, 8)),
}


def build(
    name: str, channels: tuple[int, ...] = PYRAMID[0], strides: tuple[int, ...] = PYRAMID[1]
) -> Head:
    spec = {"name": name, **SMALL.get(name, {})}
    return HEADS.build(spec, in_channels=channels, strides=strides, num_classes=NUM_CLASSES)


def features_for(
    channels: tuple[int, ...],
    strides: tuple[int, ...],
    *,
    size: tuple[int, int] = (75, 117),
    batch: int = 2,
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, width, *(math.ceil(side / stride) for side in size), generator=generator)
        for width, stride in zip(channels, strides, strict=True)
    ]


def randomised(module: nn.Module) -> nn.Module:
    """Return `module` in eval mode with random batch norm statistics."""
    generator = torch.Generator().manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.normal_(generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(layer.weight, 0.5, 2, generator=generator)
            nn.init.normal_(layer.bias, generator=generator)
    return module.double().eval()


def doubles(size: tuple[int, int] = (75, 117)) -> list[Tensor]:
    return [feature.double() for feature in features_for(*PYRAMID, size=size)]


def copy_layers(source: nn.Module, target: nn.Module) -> None:
    """Copy weights by order between modules with the same layers and other names."""
    values = list(source.state_dict().values())
    names = list(target.state_dict())
    assert len(values) == len(names)
    target.load_state_dict(dict(zip(names, values, strict=True)))
