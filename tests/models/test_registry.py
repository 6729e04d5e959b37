"""Models are registered by a user as easily as losses."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segtrain.errors import ConfigError
from segtrain.models import Segmentor
from segtrain.models.registry import ModelRegistry
from tests.helpers import ROOT

PLUGIN = """
import torch
import segtrain

@segtrain.register_model("own_tiny")
def tiny(num_classes: int, width: int = 4):
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, width, 3, stride=4, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(width, num_classes, 1),
    )
"""


class TwoHeads(nn.Module):
    """A class with a dict of outputs, and an inherited parameter."""

    def __init__(self, num_classes: int, in_channels: int = 4, **rest: Any) -> None:
        super().__init__(**rest)
        self.out = nn.Conv2d(in_channels, num_classes, 1)
        self.edge = nn.Conv2d(in_channels, 1, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": self.out(images), "edge": self.edge(images)}


@pytest.fixture
def models() -> ModelRegistry:
    return ModelRegistry()  # not the global one: other tests enumerate it


def test_a_function_becomes_a_model(models: ModelRegistry) -> None:
    @models.register("pixelwise")
    def pixelwise(num_classes: int, kernel_size: int = 1, scale: float = 1.0) -> nn.Module:
        return nn.Conv2d(3, num_classes, kernel_size, padding="same")

    assert pixelwise(2).out_channels == 2  # the decorator returns the function unchanged
    model = models.build(
        {"name": "pixelwise", "kernel_size": 3, "align_corners": True}, num_classes=5
    )
    assert isinstance(model, Segmentor)
    assert (model.num_classes, model.in_channels, model.align_corners) == (5, 3, True)
    images = torch.randn(2, 3, 7, 9)
    assert torch.equal(model(images)["out"], model.net(images))  # type: ignore[operator]
    assert set(models.schema("pixelwise")) == {
        *(
            "num_classes",
            "kernel_size",
            "scale",
            "align_corners",
            "weights",
            "reinit",
            "abn",
            "adapter",
        )
    }
    with pytest.raises(ConfigError, match=r"model.kernel_size must be a whole number, got 'big'"):
        models.build({"name": "pixelwise", "kernel_size": "big"}, num_classes=5)
    with pytest.raises(ConfigError, match="'kernel_sise'; did you mean 'kernel_size'"):
        models.build({"name": "pixelwise", "kernel_sise": 3}, num_classes=5)
    with pytest.raises(ValueError, match=r"images must have shape \(N, 3, H, W\)"):
        model(images[:, :2])


def test_a_module_class_becomes_a_model(models: ModelRegistry) -> None:
    models.register("two_heads")(TwoHeads)
    model = models.build("two_heads", num_classes=3)
    assert model.in_channels == 4  # the default of the class
    outputs = model(torch.zeros(1, 4, 5, 6))
    assert {key: tuple(value.shape) for key, value in outputs.items()} == {
        "out": (1, 3, 5, 6),
        "edge": (1, 1, 5, 6),
    }
    wide = models.build({"name": "two_heads", "in_channels": 6}, num_classes=3)
    assert wide(torch.zeros(1, 6, 5, 6))["out"].shape == (1, 3, 5, 6)
    with pytest.raises(ConfigError, match=r"model.in_channels must be a whole number, got '6'"):
        models.build({"name": "two_heads", "in_channels": "6"}, num_classes=3)


def test_a_built_model_can_be_pickled(models: ModelRegistry) -> None:
    models.register("two_heads")(TwoHeads)
    model = models.build("two_heads", num_classes=3)
    again = pickle.loads(pickle.dumps(model))
    images = torch.randn(1, 4, 5, 6)
    assert torch.equal(model(images)["edge"], again(images)["edge"])


def test_align_corners_reaches_a_factory_with_this_parameter(models: ModelRegistry) -> None:
    @models.register("asks")
    def asks(num_classes: int, align_corners: bool = True) -> nn.Module:
        net = nn.Conv2d(3, num_classes, 1)
        net.register_buffer("seen", torch.tensor(align_corners))
        return net

    for given, expected in ((None, True), (False, False), (True, True)):
        model = models.build({"name": "asks", "align_corners": given}, num_classes=2)
        assert (model.align_corners, bool(model.get_buffer("net.seen"))) == (expected, expected)


def test_a_function_may_return_a_segmentor(models: ModelRegistry) -> None:
    class Own(Segmentor):
        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return {"out": images}

    @models.register("own")
    def own(num_classes: int) -> Segmentor:
        return Own(num_classes=num_classes)

    assert isinstance(models.build("own", num_classes=3), Own)
    assert isinstance(models.build({"name": "own", "align_corners": False}, num_classes=3), Own)
    with pytest.raises(ConfigError, match=r"model.align_corners is always False in this model"):
        models.build({"name": "own", "align_corners": True}, num_classes=3)


def test_invalid_factories_are_refused(models: ModelRegistry) -> None:
    def nothing() -> nn.Module:
        return nn.Identity()

    def with_weights(num_classes: int, weights: str = "DEFAULT") -> nn.Module:
        return nn.Conv2d(3, num_classes, 1)

    with pytest.raises(
        ConfigError, match="model 'a' must accept num_classes, but it accepts nothing"
    ):
        models.register("a")(nothing)
    with pytest.raises(
        ConfigError, match=r"model 'b' has a parameter 'weights', but model.weights is"
    ):
        models.register("b")(with_weights)
    assert models.names() == []
    models.register("c")(lambda num_classes: num_classes)
    with pytest.raises(ConfigError, match="the factory must return a module, got int"):
        models.build("c", num_classes=3)
    models.register("d")(lambda num_classes: nn.LSTM(3, num_classes))
    tuples = models.build("d", num_classes=3)
    tuples.net.forward = lambda images: (images, images)  # type: ignore[assignment, union-attr]
    with pytest.raises(TypeError, match="LSTM must return logits or a dict of them, got tuple"):
        tuples(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ConfigError, match="is registered already"):
        models.register("c")(nothing_much)


def nothing_much(num_classes: int) -> nn.Module:
    return nn.Conv2d(3, num_classes, 1)


def test_a_users_model_trains_from_the_command_line(tmp_path: Path) -> None:
    plugin = tmp_path / "my_model.py"
    plugin.write_text(PLUGIN)
    words = [
        *(f"plugins=[{plugin}]", "model=own_tiny", "model.width=8", "dataset.size=[32,32]"),
        *("dataset.num_train=4", "dataset.num_val=2", "trainer.batch_size=2", "trainer.device=cpu"),
        *("trainer.max_steps=2", "loader.num_workers=0", f"run_dir={tmp_path / 'run'}"),
        *("augmentation.crop_size=[32,32]",),
    ]
    command = [sys.executable, str(ROOT / "tools" / "train.py"), *words]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert re.search(r"mIoU [\d.]+ on val after 2 steps", result.stdout + result.stderr)
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)
    assert state["model"]["net.0.weight"].shape == (8, 3, 3, 3)
