"""The ready models of torchvision against torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models as torchvision_models
from torchvision.models import segmentation

from segtrain.errors import ConfigError
from segtrain.models import MODELS, Segmentor
from segtrain.models import torchvision as ours
from segtrain.models.table import count_macs

NAMES = ["fcn_resnet50", "deeplabv3_resnet50", "lraspp_mobilenet_v3_large"]


def build(name: str, num_classes: int = 5, **params: Any) -> Segmentor:
    torch.manual_seed(0)
    aux = {} if name.startswith("lraspp") else {"aux_head": True}
    return MODELS.build({"name": name, **aux, **params}, num_classes=num_classes).eval()


def theirs(name: str, num_classes: int = 5) -> nn.Module:
    aux = {} if name.startswith("lraspp") else {"aux_loss": True}
    net: nn.Module = getattr(segmentation, name)(
        weights=None, weights_backbone=None, num_classes=num_classes, **aux
    )
    return net.eval()


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_weights_and_outputs_are_those_of_torchvision(name: str) -> None:
    model, reference = build(name), theirs(name)
    reference.load_state_dict(model.state_dict(), strict=True)
    assert list(reference.state_dict()) == list(model.state_dict())
    images = torch.randn(1, 3, 75, 117, generator=torch.Generator().manual_seed(1))
    outputs, expected = model(images), reference(images)
    assert list(outputs) == list(expected)
    for key, logits in expected.items():
        enlarged = F.interpolate(outputs[key], size=(75, 117), mode="bilinear", align_corners=False)
        torch.testing.assert_close(enlarged, logits)


@pytest.mark.parametrize("name", NAMES)
def test_sizes_are_the_published_ones(name: str) -> None:
    """Parameters and multiply-adds that torchvision reports for its weights of 21 classes."""
    weights = torchvision_models.get_model_weights(name).DEFAULT
    with torch.device("meta"):
        model = build(name, num_classes=len(weights.meta["categories"]))
        macs = count_macs(model, torch.zeros(1, 3, 520, 520))
    assert sum(item.numel() for item in model.parameters()) == weights.meta["num_params"]
    # torchvision also counts at 520 pixels, and includes the upsampling of the logits.
    assert macs / 1e9 == pytest.approx(weights.meta["_ops"], rel=1e-3)
    assert model.paper_size == (520, 520)


def test_the_backbone_takes_imagenet_weights_from_the_hub_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    weights = torchvision_models.MobileNet_V3_Large_Weights.DEFAULT
    state = torchvision_models.mobilenet_v3_large(weights=None).state_dict()
    (tmp_path / "checkpoints").mkdir()
    torch.save(state, tmp_path / "checkpoints" / weights.url.rsplit("/", 1)[-1])
    model = build("lraspp_mobilenet_v3_large")
    found = model.pretrained_backbone()
    assert set(found) == {key for key in model.state_dict() if key.startswith("backbone.")}
    for key, value in found.items():
        assert torch.equal(value, state[key.replace("backbone.", "features.", 1)]), key


@pytest.mark.parametrize("name", NAMES[:2])
def test_a_resnet_takes_all_but_the_classifier(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def weights(architecture: str) -> dict[str, torch.Tensor]:
        asked.append(architecture)
        with torch.device("meta"):
            state: dict[str, torch.Tensor] = torchvision_models.resnet50(weights=None).state_dict()
        return state

    monkeypatch.setattr(ours, "imagenet_weights", weights)
    with torch.device("meta"):
        model = build(name)
    found = model.pretrained_backbone()
    own = {key: item.shape for key, item in model.state_dict().items()}
    assert {key: item.shape for key, item in found.items()} == {
        key: shape for key, shape in own.items() if key.startswith("backbone.")
    }
    assert asked == ["resnet50"]


@pytest.mark.parametrize(("name", "default"), [("fcn_resnet50", 0.1), ("deeplabv3_resnet50", 0.5)])
def test_dropout_is_that_of_the_main_head(name: str, default: float) -> None:
    def rates(model: Any) -> tuple[set[float], set[float]]:
        heads = (model.classifier, model.aux_classifier)
        main, aux = (
            {layer.p for layer in head.modules() if isinstance(layer, nn.Dropout)} for head in heads
        )
        return main, aux

    with torch.device("meta"):
        assert rates(build(name)) == ({default}, {0.1})
        assert rates(build(name, dropout=0.3)) == ({0.3}, {0.1})
        with pytest.raises(ConfigError, match=r"model.dropout must be at least 0 and below 1"):
            build(name, dropout=1.0)


@torch.no_grad()
@pytest.mark.parametrize("align_corners", [False, True])
def test_align_corners_reaches_the_resize_inside_the_head(align_corners: bool) -> None:
    model: Any = build(NAMES[2], align_corners=align_corners)
    low, high = torch.randn(1, 40, 9, 14), torch.randn(1, 960, 5, 7)
    model.backbone.forward = lambda _images: {"low": low, "high": high}
    head = model.classifier
    small = head.high_classifier(head.cbr(high) * head.scale(high))
    # A 1x1 convolution and a bilinear resize commute.
    large = F.interpolate(small, size=(9, 14), mode="bilinear", align_corners=align_corners)
    expected = head.low_classifier(low) + large
    torch.testing.assert_close(model(torch.zeros(1, 3, 72, 112))["out"], expected)


def test_unknown_parameters_are_refused() -> None:
    with pytest.raises(ConfigError, match="has no parameter 'aux_head'"):
        MODELS.build({"name": NAMES[2], "aux_head": True}, num_classes=5)
