"""The contract of models, for custom modules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segtrain.errors import ConfigError
from segtrain.models import Segmentor
from segtrain.models.registry import ModelRegistry


@pytest.fixture
def pooled() -> Segmentor:
    models = ModelRegistry()

    @models.register("pooled")
    def pooled(num_classes: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 4, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.BatchNorm2d(4),
            nn.Conv2d(4, num_classes, 1),
        )

    return models.build("pooled", num_classes=2)


@pytest.mark.fault("F40")
def test_batch_norm_of_a_custom_module_gives_one_message(pooled: Segmentor) -> None:
    with pytest.raises(ConfigError, match=r"batch norm in pooled .*trainer\.batch_size"):
        pooled.train()(torch.rand(1, 3, 8, 8))
    assert pooled.train()(torch.rand(2, 3, 8, 8))["out"].shape == (2, 2, 1, 1)
    assert pooled.eval()(torch.rand(1, 3, 8, 8))["out"].shape == (1, 2, 1, 1)


def test_other_errors_of_a_custom_module_are_not_changed() -> None:
    models = ModelRegistry()

    class Fails(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise ValueError("of its own")

    @models.register("fails")
    def fails(num_classes: int) -> nn.Module:
        return Fails()

    with pytest.raises(ValueError, match=r"^of its own$"):
        models.build("fails", num_classes=2)(torch.rand(1, 3, 8, 8))


def test_a_custom_model_has_its_registered_name_in_messages(pooled: Segmentor) -> None:
    with pytest.raises(ConfigError, match="no ImageNet weights for pooled"):
        pooled.pretrained_backbone()
