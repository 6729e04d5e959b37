"""The backbones of torchvision and their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import nn

from segtrain.errors import CheckpointError, ConfigError, ResourceError
from segtrain.models.backbones.registry import check_architecture
from segtrain.models.backbones.torchvision import architectures, imagenet_weights, new_stem
from tests.models.backbones.helpers import (
    build,
    check_shapes,
    images_of,
    slow,
)

TORCHVISION = [
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
    *("wide_resnet50_2", "wide_resnet101_2"),
    *("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"),
]
QUICK_TORCHVISION = ["resnet18", "resnet50", "wide_resnet50_2", "mobilenet_v2"]


@pytest.mark.parametrize(
    "architecture",
    [
        *QUICK_TORCHVISION,
        *slow(*(name for name in TORCHVISION if name not in QUICK_TORCHVISION)),
    ],
)
def test_names_and_shapes_are_those_of_torchvisions_files(architecture: str) -> None:
    from torchvision import models

    with torch.device("meta"):
        backbone = build(f"torchvision/{architecture}")
        theirs = models.get_model(architecture, weights=None).state_dict()
    kept = {key: value.shape for key, value in theirs.items() if not _is_classifier(key)}
    assert {key: value.shape for key, value in backbone.state_dict().items()} == kept
    assert backbone.strides == (4, 8, 16, 32)


def test_every_resnet_and_mobilenet_is_available() -> None:
    with pytest.raises(ConfigError, match=r"it has .*resnet18"):
        check_architecture("torchvision", "alexnet", TORCHVISION)
    assert sorted(architectures()) == sorted(TORCHVISION)


@pytest.mark.parametrize(
    ("architecture", "nodes"),
    [
        ("resnet18", ["layer1", "layer2", "layer3", "layer4"]),
        ("mobilenet_v2", ["features.3", "features.6", "features.13", "features.18"]),
        ("mobilenet_v3_large", ["features.3", "features.6", "features.12", "features.16"]),
    ],
)
def test_features_are_torchvisions(architecture: str, nodes: list[str]) -> None:
    from torchvision import models
    from torchvision.models.feature_extraction import create_feature_extractor

    torch.manual_seed(0)
    theirs = models.get_model(architecture, weights=None).eval()
    backbone = build(f"torchvision/{architecture}").eval()
    backbone.load_state_dict(backbone.from_library(theirs.state_dict()), strict=True)
    extractor = create_feature_extractor(theirs, nodes)
    images = images_of(75, 117)
    with torch.no_grad():
        for ours, expected in zip(backbone(images), extractor(images).values(), strict=True):
            assert torch.equal(ours, expected)


@pytest.mark.parametrize("stride", [8, 16])
def test_dilated_as_by_torchvision(stride: int) -> None:
    from torchvision import models

    dilated = [False, stride == 8, True]
    theirs = models.resnet50(weights=None, replace_stride_with_dilation=dilated).eval()
    backbone = build("torchvision/resnet50", output_stride=stride).eval()
    backbone.load_state_dict(backbone.from_library(theirs.state_dict()), strict=True)
    assert backbone.strides == tuple(min(own, stride) for own in (4, 8, 16, 32))
    assert backbone.norm_stride == stride
    theirs.avgpool, theirs.fc = nn.Identity(), nn.Identity()
    images = images_of(40, 48, batch=1)
    with torch.no_grad():
        last = backbone(images)[-1]
        assert torch.equal(last.flatten(1), theirs(images))
    check_shapes(backbone, (33, 65))


@pytest.mark.parametrize("stride", [8, 16])
def test_basic_blocks_dilated_as_by_timm(stride: int) -> None:
    timm = pytest.importorskip("timm")
    theirs = timm.create_model(
        "resnet18", features_only=True, output_stride=stride, out_indices=(1, 2, 3, 4)
    ).eval()
    backbone = build("torchvision/resnet18", output_stride=stride).eval()
    backbone.load_state_dict(theirs.state_dict(), strict=True)
    images = images_of(40, 48)
    with torch.no_grad():
        for ours, expected in zip(backbone(images), theirs(images), strict=True):
            assert torch.allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_a_stem_for_other_channels() -> None:
    conv = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
    assert new_stem(conv, 3) is conv
    stem = new_stem(conv, 5)
    assert stem(images_of(9, 9, channels=5)).shape == (2, 64, 5, 5)
    assert stem.weight.std().item() == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.1)


def test_mobilenets_cannot_be_dilated() -> None:
    with pytest.raises(ConfigError, match=r"backbone\.output_stride of .*v2 can only be 32"):
        build("torchvision/mobilenet_v2", output_stride=8)


def _is_classifier(key: str) -> bool:
    return key.startswith(("fc.", "classifier."))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub folder of torch, and no network."""

    def no_network(url: str, *_: Any, **__: Any) -> None:
        raise URLError("no network in this test")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    return tmp_path / "hub" / "checkpoints"


def test_weights_come_from_the_hub_folder(hub: Path) -> None:
    from torchvision import models

    weights = models.get_model_weights("resnet18").DEFAULT
    state = {
        key: torch.randn(value.shape) if value.is_floating_point() else value
        for key, value in models.resnet18(weights=None).state_dict().items()
    }
    hub.mkdir(parents=True)
    torch.save(state, hub / weights.url.rsplit("/", 1)[-1])
    backbone = build("torchvision/resnet18", in_channels=5)
    loaded = backbone.pretrained()
    assert set(loaded) == set(backbone.state_dict())
    for key, value in loaded.items():
        assert torch.equal(value, state[key]), key
    assert loaded["conv1.weight"].shape[1] == 3  # converted on loading


@pytest.mark.parametrize("architecture", ["resnet50", "mobilenet_v3_large"])
def test_offline_the_message_says_which_file_goes_where(hub: Path, architecture: str) -> None:
    from torchvision import models

    url = models.get_model_weights(architecture).DEFAULT.url
    with pytest.raises(ResourceError) as raised:
        imagenet_weights(architecture)
    assert url in str(raised.value)
    assert f"at {hub / url.rsplit('/', 1)[-1]}," in str(raised.value)
    assert "model.weights=<path>" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_damaged_file_is_reported(hub: Path) -> None:
    from torchvision import models

    name = models.get_model_weights("resnet18").DEFAULT.url.rsplit("/", 1)[-1]
    hub.mkdir(parents=True)
    (hub / name).write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=rf"{name} does not contain the weights .* delete it"):
        imagenet_weights("resnet18")
