"""Helpers for the tests of weights: files, models and comparisons."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import segtrain
from segtrain.models import MODELS, Segmentor
from segtrain.models.weights import LoadReport, WeightsError

SMALL = "hrnet_w18_small_v1"
OCR = f"{SMALL}_ocr"
AFTER_HRNET = ["conv3x3_ocr", "ocr_distri_head", "cls_head"]
State = dict[str, Tensor]


def build(file: Path, name: str = SMALL, num_classes: int = 5, **params: Any) -> Segmentor:
    return MODELS.build({"name": name, "weights": str(file), **params}, num_classes=num_classes)


def report_of(model: Segmentor) -> LoadReport:
    assert model.load_report is not None
    return model.load_report


def save(content: Any, file: Path) -> Path:
    torch.save(content, file)
    return file


def official(state: State, *, class_weights: Tensor | None = None, prefix: str = "model.") -> State:
    """The layout of the official code, which saves the model together with the loss."""
    named = {f"{prefix}{key}": value for key, value in state.items()}
    return named if class_weights is None else {**named, "loss.criterion.weight": class_weights}


def imagenet(state: State, heads: tuple[str, ...] = ("last_layer.",)) -> State:
    """The layout of HRNet for classification: the trunk and the layers of the classifier."""
    trunk = {key: value for key, value in state.items() if not key.startswith(heads)}
    extra = {
        "incre_modules.0.0.conv1.weight": torch.rand(32, 16, 1, 1),
        "incre_modules.0.0.bn1.running_var": torch.rand(32),
        "downsamp_modules.0.0.weight": torch.rand(256, 128, 3, 3),
        "final_layer.0.weight": torch.rand(2048, 1024, 1, 1),
        "classifier.weight": torch.rand(1000, 2048),
        "classifier.bias": torch.rand(1000),
    }
    return {**trunk, **extra}


def assert_equal(model: nn.Module, expected: State) -> None:
    own = model.state_dict()
    assert own.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(own[key], value), key


def untouched(build_it: Callable[[], Segmentor], file: Path, **arguments: Any) -> WeightsError:
    """Return the refusal of `file`; check that the model was not changed."""
    model = build_it()
    before = deepcopy(model.state_dict())
    with pytest.raises(WeightsError) as caught:
        segtrain.load_weights(model, file, **{"align_corners": False, **arguments})
    assert_equal(model, before)
    assert model.load_report is None
    assert caught.value.report.refused or not caught.value.report.loaded
    assert not caught.value.report.loaded
    return caught.value


def with_class_weights(state: State) -> Any:
    return official(state, class_weights=torch.linspace(0.5, 1.5, 5))


def data_parallel(state: State) -> Any:
    return {f"module.{key}": value for key, value in with_class_weights(state).items()}


class PlainModel(Segmentor):
    """A stem and a head, with custom ImageNet weights."""

    head_prefixes: ClassVar[tuple[str, ...]] = ("classifier",)
    backbone_prefix = "encoder."
    known: ClassVar[State] = {
        "encoder.conv.weight": torch.arange(24.0).reshape(8, 3, 1, 1),
        "encoder.norm.weight": torch.full((8,), -2.0),
        "encoder.norm.bias": torch.zeros(8),
        "encoder.norm.running_mean": torch.ones(8),
        "encoder.norm.running_var": torch.ones(8),
    }

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        layers = {"conv": nn.Conv2d(self.in_channels, 8, 1, bias=False), "norm": nn.BatchNorm2d(8)}
        self.encoder = nn.ModuleDict(layers)
        self.classifier = nn.Conv2d(8, self.num_classes, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": self.classifier(self.encoder["norm"](self.encoder["conv"](images)))}

    def pretrained_backbone(self) -> State:
        return dict(self.known)
