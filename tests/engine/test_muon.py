"""Muon and AdamW as one optimizer."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from segtrain.engine import OPTIMIZERS
from segtrain.engine.optimization import MuonWithAdamW
from segtrain.models import Segmentor

pytestmark = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")


class Three(Segmentor):
    head_prefixes = ("classifier",)

    def __init__(self) -> None:
        super().__init__(num_classes=2)
        self.stem = nn.Conv2d(3, 6, 3)
        self.hidden = nn.Conv2d(6, 8, 3)
        self.classifier = nn.Conv2d(8, 2, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": self.classifier(self.hidden(self.stem(images).relu()).relu())}


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_hidden_weights_are_those_of_muon_and_others_those_of_adamw(
    memory_format: torch.memory_format,
) -> None:
    model = Three()
    other = copy.deepcopy(model)
    optimizer = OPTIMIZERS.build({"name": "muon", "lr": 0.01, "weight_decay": 0.1}, model=model)
    model.to(memory_format=memory_format)
    matrix = nn.Parameter(other.hidden.weight.detach().flatten(1))
    muon = torch.optim.Muon([matrix], 0.01, 0.1, adjust_lr_fn="match_rms_adamw")
    weights = [other.stem.weight, other.classifier.weight]
    vectors = [parameter for parameter in other.parameters() if parameter.dim() == 1]
    adamw = torch.optim.AdamW(
        [{"params": weights, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        0.01,
        betas=(0.9, 0.95),
    )
    for seed in range(3):
        step(model, optimizer, seed)
        step(other, adamw, seed)
        assert other.hidden.weight.grad is not None
        matrix.grad = other.hidden.weight.grad.flatten(1)
        muon.step()
    # Muon rounds to bfloat16, whose order of additions differs with the memory format.
    torch.testing.assert_close(model.hidden.weight.flatten(1), matrix, rtol=0.02, atol=2e-3)
    for name in ("stem.weight", "classifier.weight", "stem.bias", "hidden.bias"):
        torch.testing.assert_close(model.get_parameter(name), other.get_parameter(name))


def test_a_loaded_state_continues_exactly() -> None:
    model = Three()
    optimizer = OPTIMIZERS.build("muon", model=model)
    for seed in range(2):
        step(model, optimizer, seed)
    later = copy.deepcopy(model)
    resumed = OPTIMIZERS.build("muon", model=later)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for trained, own in ((model, optimizer), (later, resumed)):
        step(trained, own, 2)
    for mine, other in zip(model.parameters(), later.parameters(), strict=True):
        assert torch.equal(mine, other)
    assert isinstance(resumed, MuonWithAdamW)
    assert all(resumed.state[parameter] for parameter in later.parameters())


def test_schedules_set_its_learning_rates() -> None:
    model = Three()
    optimizer = OPTIMIZERS.build("muon", model=model)
    for group in optimizer.param_groups:
        group["lr"] = group["weight_decay"] = 0.0
    before = copy.deepcopy(model)
    step(model, optimizer, 0)
    for mine, other in zip(model.parameters(), before.parameters(), strict=True):
        assert torch.equal(mine, other)
