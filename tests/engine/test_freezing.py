"""Frozen parts of a model: nothing of them changes until they are thawed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segtrain.engine.checkpoint import load_checkpoint
from segtrain.engine.freezing import Frozen
from segtrain.errors import ConfigError
from segtrain.models import Segmentor
from segtrain.models.build import build_model

Train = Callable[..., int]


class Small(Segmentor):
    head_prefixes = ("classifier",)

    def __init__(self) -> None:
        super().__init__(num_classes=2)
        self.conv = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.classifier = nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": self.classifier(self.norm(self.conv(images)))}


def test_frozen_norms_keep_their_statistics_and_others_do_not() -> None:
    model = Small()
    frozen = Frozen(model, ["backbone"])
    model.eval()
    model.train()
    assert not model.norm.training
    assert model.classifier[0].training
    model(torch.randn(2, 3, 8, 8) + 3)["out"].sum().backward()
    assert model.norm.running_mean is not None
    assert not model.norm.running_mean.any()
    assert model.classifier[0].running_mean.any()
    assert model.conv.weight.grad is None
    assert model.classifier[1].weight.grad is not None
    frozen.thaw()
    assert model.norm.training
    model(torch.randn(2, 3, 8, 8) + 3)["out"].sum().backward()
    assert model.conv.weight.grad is not None
    assert model.norm.running_mean.any()


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["conv"], {"conv"}),
        (["*nor?"], {"norm"}),
        (["head"], {"classifier"}),
        (["classifier.[0-9]"], {"classifier"}),
        (["conv", "norm"], {"conv", "norm"}),
    ],
)
def test_parts_are_named_as_for_reinit_or_by_a_pattern(given: list[str], wanted: set[str]) -> None:
    model = Small()
    Frozen(model, given)
    found = {
        name.partition(".")[0]
        for name, parameter in model.named_parameters()
        if not parameter.requires_grad
    }
    assert found == wanted


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["backbon"], "trainer.freeze=.* has no module 'backbon'; did you mean"),
        (["backbone", "head"], "leaves no parameter to train"),
        (["x*"], "has no module 'x\\*'"),
    ],
)
def test_wrong_parts_are_refused(given: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Frozen(Small(), given)


def test_a_frozen_backbone_stores_no_activations() -> None:
    model = build_model("hrnet_w18_small_v1", num_classes=3)
    stored: list[int] = []

    def bytes_stored() -> int:
        stored.clear()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: stored.append(tensor.nbytes) or tensor, lambda tensor: tensor
        ):
            model(torch.zeros(2, 3, 64, 64))
        return sum(stored)

    before = bytes_stored()
    Frozen(model, ["backbone"])
    assert bytes_stored() < before / 5


def weights(path: Path) -> dict[str, Tensor]:
    state: dict[str, Any] = load_checkpoint(path / "checkpoints/last.pt")
    return dict(state["model"])


@pytest.mark.fault("F10")
def test_a_run_freezes_thaws_and_resumes_exactly(train: Train, tmp_path: Path) -> None:
    words = ["trainer.freeze=[backbone]", "trainer.max_steps=6", "trainer.evaluate_every=6"]
    stop = [*words, "trainer.thaw_at=4"]
    assert train("start", *words, "trainer.stop_after=1") == 0
    assert train("frozen", *words) == 0
    before, frozen = weights(tmp_path / "start"), weights(tmp_path / "frozen")
    changed = {name for name in before if not torch.equal(before[name], frozen[name])}
    assert changed
    assert all(name.startswith("head") for name in changed), changed
    assert train("whole", *stop) == 0
    whole = weights(tmp_path / "whole")
    assert any(not torch.equal(before[name], whole[name]) for name in set(before) - changed)
    for at in (3, 5):
        assert train(f"part{at}", *stop, f"trainer.stop_after={at}") == 0
        assert train(f"part{at}", *stop, "resume=auto") == 0
        found = weights(tmp_path / f"part{at}")
        assert all(torch.equal(whole[name], found[name]) for name in whole)


def test_thawing_needs_something_frozen(train: Train, last_line: Callable[[], str]) -> None:
    assert train("run", "trainer.thaw_at=3") == 2
    assert "thaw_at has no effect without freeze" in last_line()
