"""Helpers for the tests of backbones."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from segtrain.models.backbones import BACKBONES, Backbone


def slow(*values: Any) -> list[Any]:
    """Test parameters that run only with the marker slow."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def build(name: str, *, in_channels: int = 3, **params: Any) -> Backbone:
    torch.manual_seed(0)
    return BACKBONES.build({"name": name, **params}, in_channels=in_channels)


def images_of(*size: int, channels: int = 3, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, channels, *size, generator=generator)


def check_shapes(backbone: Backbone, size: tuple[int, int], *, batch: int = 1) -> None:
    with torch.no_grad():
        features = backbone.eval()(images_of(*size, channels=backbone.in_channels, batch=batch))
    shapes = [tuple(feature.shape) for feature in features]
    assert shapes == [
        (batch, channels, math.ceil(size[0] / stride), math.ceil(size[1] / stride))
        for channels, stride in zip(backbone.channels, backbone.strides, strict=True)
    ]
    assert all(feature.isfinite().all() for feature in features)
    assert list(backbone.strides) == sorted(backbone.strides)


def check_gradients(backbone: Backbone, *size: int) -> None:
    features = backbone.train()(images_of(*size))
    torch.stack([feature.square().mean() for feature in features]).sum().backward()
    for key, parameter in backbone.named_parameters():
        assert parameter.grad is not None or not parameter.requires_grad, key
        assert parameter.grad is None or parameter.grad.isfinite().all(), key


def put_weights(cache: Path, architecture: str, *, without: str | None = None) -> dict[str, Tensor]:
    """Random weights of a classifier of timm, written to the cache as by the client of the hub."""
    import timm
    from safetensors.torch import save_file

    model = timm.create_model(architecture, pretrained=False)
    generator = torch.Generator().manual_seed(1)
    state = {
        key: torch.rand(value.shape, generator=generator) if value.is_floating_point() else value
        for key, value in model.state_dict().items()
        if key != without
    }
    repository = timm.get_pretrained_cfg(architecture).hf_hub_id
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(state, folder / "snapshots" / ("0" * 40) / "model.safetensors")
    return state
