"""Weights are loaded into a model, all or none of them."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import segtrain
from segtrain.errors import CheckpointError, ConfigError
from segtrain.models import MODELS, Segmentor
from segtrain.models.layers.stem import widen
from segtrain.models.weights import WeightsError
from tests.models.weights.helpers import (
    OCR,
    SMALL,
    PlainModel,
    State,
    assert_equal,
    build,
    official,
    save,
)


def test_align_corners_is_required_if_the_file_does_not_contain_it(
    states: Callable[[str], State], tmp_path: Path
) -> None:
    file = save(official(states(SMALL)), tmp_path / "best.pth")
    with pytest.raises(
        ConfigError, match=r"model\.align_corners is not set.*seg_hrnet false on Ci"
    ):
        build(file)
    with pytest.raises(ConfigError, match=r"true on ADE20K and COCO-Stuff"):
        build(file)
    with pytest.raises(ConfigError, match=r"^align_corners is not set"):
        segtrain.load_weights(MODELS.build(SMALL, num_classes=5), file)
    assert build(file, align_corners=True).align_corners is True
    chosen = MODELS.build({"name": SMALL, "align_corners": True}, num_classes=5)
    segtrain.load_weights(chosen, file)  # true is not a default, so it was chosen
    with pytest.raises(ConfigError, match="the model was built with align_corners=True"):
        segtrain.load_weights(chosen, file, align_corners=False)
    ocr = save(official(states(OCR)), tmp_path / "ocr.pth")
    with pytest.raises(ConfigError, match="it is true in every official recipe of HRNet-OCR"):
        build(ocr, OCR)


def test_align_corners_is_required_for_any_file_with_a_head(tmp_path: Path) -> None:
    first = PlainModel(num_classes=3)
    file = save(first.state_dict(), tmp_path / "plain.pth")
    with pytest.raises(ConfigError, match=r"^align_corners is not set, and .*plain\.pth"):
        segtrain.load_weights(PlainModel(num_classes=3), file)
    second = PlainModel(num_classes=3)
    segtrain.load_weights(second, file, align_corners=False)
    assert_equal(second, first.state_dict())


@pytest.mark.fault("F53")
@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (torch.full((8,), float("nan")), "norm.bias contains NaN or infinity; nothing was loaded"),
        (torch.full((8,), float("inf")), "norm.bias contains NaN"),
        (torch.zeros(8).to_sparse(), "norm.bias is not a dense tensor of real numbers"),
        (torch.zeros(8, dtype=torch.int64), "1 has another shape or type"),
        (torch.zeros(8, dtype=torch.complex64), "1 has another shape or type"),
        (torch.zeros(1).expand(2**40), "1 has another shape or type"),
        (torch.zeros(0), "1 has another shape or type"),
    ],
)
def test_invalid_tensors_are_refused_and_nothing_is_loaded(
    value: Tensor, sentence: str, tmp_path: Path
) -> None:
    state = PlainModel(num_classes=5).state_dict()
    file = save({**state, "encoder.norm.bias": value}, tmp_path / "best.pth")
    model = PlainModel(num_classes=5)
    before = deepcopy(model.state_dict())
    with pytest.raises(CheckpointError, match=sentence):
        segtrain.load_weights(model, file, align_corners=False)
    assert_equal(model, before)


@pytest.mark.parametrize("in_channels", [3, 4])
def test_imagenet_loads_the_weights_that_the_model_provides(in_channels: int) -> None:
    model = PlainModel(num_classes=3, in_channels=in_channels)
    report = segtrain.load_weights(model, "imagenet")
    own = model.state_dict()
    expected = widen(PlainModel.known["encoder.conv.weight"], in_channels)
    assert torch.equal(own["encoder.conv.weight"], expected)
    assert torch.equal(own["encoder.norm.weight"], PlainModel.known["encoder.norm.weight"])
    assert set(report.loaded) == PlainModel.known.keys()
    assert set(report.new) == {"classifier.weight", "classifier.bias"}
    assert report.source == "imagenet"
    with pytest.raises(ConfigError, match="abn: ImageNet weights have plain batch norms"):
        segtrain.load_weights(model, "imagenet", abn=True)


def test_imagenet_weights_must_be_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(PlainModel.known, "encoder.norm.bias")
    with pytest.raises(WeightsError, match=r"1 is not in the file \(encoder\.norm\.bias\)"):
        segtrain.load_weights(PlainModel(num_classes=3), "imagenet")


def test_a_model_without_imagenet_weights() -> None:
    class Unknown(Segmentor):
        pass

    with pytest.raises(ConfigError, match="no ImageNet weights for Unknown"):
        segtrain.load_weights(Unknown(num_classes=2), "imagenet")


def test_a_plain_module_loads_its_own_files(tmp_path: Path) -> None:
    """A custom module is wrapped; files of its own training lack the wrapper prefix."""
    from segtrain.models.registry import ModelRegistry

    models = ModelRegistry()

    @models.register("own")
    def own(num_classes: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, num_classes, 1))

    module = own(num_classes=2)
    file = save({"state_dict": module.state_dict()}, tmp_path / "own.pth")
    spec = {"name": "own", "weights": str(file), "align_corners": False}
    model = models.build(spec, num_classes=2)
    assert_equal(model, {f"net.{key}": value for key, value in module.state_dict().items()})
    assert models.build(spec, num_classes=2, load=False).load_report is None


def test_keys_without_weights_are_refused() -> None:
    for key, value in (("reinit", ["head"]), ("abn", True), ("abn", False)):
        with pytest.raises(
            ConfigError, match=rf"model\.{key} applies to loading .* model\.weights is null"
        ):
            MODELS.build({"name": SMALL, key: value}, num_classes=2)
