"""Parameters that no output depends on."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from segtrain.models.unused import called_modules, unread_features, unused_parameters


@pytest.fixture
def idle() -> nn.Module:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
            self.norm = nn.BatchNorm2d(4)

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return {"out": self.norm(self.used(images))}

    return Idle()


def test_unused_parameters_are_found_and_the_model_is_not_changed(idle: nn.Module) -> None:
    before = copy.deepcopy(idle.state_dict())
    assert unused_parameters(idle, 3) == ("idle.weight", "idle.bias")
    for key, value in idle.state_dict().items():
        assert torch.equal(value, before[key])
    assert all(parameter.grad is None for parameter in idle.parameters())


def test_a_model_that_reads_values_has_no_known_unused_parameters() -> None:
    class NeedsNumbers(nn.Conv2d):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) * float(images.mean())

    assert unused_parameters(NeedsNumbers(3, 4, 1), 3) == ()
    assert unread_features(NeedsNumbers(3, 4, 1), (3, 4)) == {0, 1}


def test_modules_whose_weight_is_read_are_not_called() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.called, self.read = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, images: Tensor) -> Tensor:
            return torch.conv2d(self.called(images), self.read.weight)

    assert called_modules(Reads(), 3) == {"", "called"}
    assert called_modules(nn.Conv2d(4, 4, 1), 3) is None  # it cannot run
