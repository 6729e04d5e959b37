"""The backbones of timm and their weights."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from segtrain.errors import CheckpointError, ConfigError, ResourceError
from segtrain.models.backbones.hrnet import VARIANTS, imagenet_trunk
from segtrain.models.backbones.timm import TimmBackbone, cut_squares, join_squares
from segtrain.models.backbones.timm_plan import Options, plan_features
from tests.models.backbones.helpers import (
    build,
    check_gradients,
    check_shapes,
    images_of,
    put_weights,
    slow,
)

TIMM = ["pvt_v2_b0", "swin_tiny_patch4_window7_224"]
SLOW_TIMM = [  # the small models of test_base.py cover their kinds
    "convnext_tiny",
    "efficientnet_b0",
    "mobilenetv3_small_100",
    "regnety_002",
    "resnet18",
    "vit_tiny_patch16_224",
]


@pytest.mark.parametrize("name", [*TIMM, *slow(*SLOW_TIMM)])
def test_the_usual_ones(name: str) -> None:
    pytest.importorskip("timm")
    backbone = build(f"timm/{name}")
    assert len(backbone.channels) == 4
    assert backbone.strides == ((16,) * 4 if name.startswith("vit") else (4, 8, 16, 32))
    check_shapes(backbone, (33, 70))
    check_shapes(backbone, (1, 1))
    check_gradients(backbone, 33, 40)
    assert all(parameter.requires_grad for parameter in backbone.parameters())


def test_features_are_timms() -> None:
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("test_resnet", features_only=True, out_indices=(1, 2, 3, 4))
    backbone = build("timm/test_resnet")
    assert isinstance(backbone, TimmBackbone)
    backbone.net.load_state_dict(theirs.state_dict(), strict=True)
    images = images_of(75, 117)
    with torch.no_grad():
        found, expected = backbone.eval()(images), theirs.eval()(images)
    assert backbone.plan.divisor == 1
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_images_are_padded_where_timm_would_drop_rows() -> None:
    pytest.importorskip("timm")
    backbone = build("timm/test_convnext").eval()
    assert isinstance(backbone, TimmBackbone)
    assert backbone.plan.divisor == 32
    images = images_of(40, 33)
    padded = torch.zeros(2, 3, 64, 64)
    padded[..., :40, :33] = images
    with torch.no_grad():
        for stride, one, other in zip(
            backbone.strides, backbone(images), backbone.net(padded), strict=True
        ):
            rows, columns = math.ceil(40 / stride), math.ceil(33 / stride)
            assert torch.equal(one, other[..., :rows, :columns])


def test_channels_last_features_of_timm_are_permuted() -> None:
    pytest.importorskip("timm")
    backbone = build("timm/swin_tiny_patch4_window7_224").eval()
    assert isinstance(backbone, TimmBackbone)
    assert backbone.plan.is_nhwc
    images = images_of(64, 96, batch=1)
    with torch.no_grad():
        for one, other in zip(backbone(images), backbone.net(images), strict=True):
            assert torch.equal(one, other.permute(0, 3, 1, 2))


def test_an_architecture_of_one_size_gets_squares() -> None:
    pytest.importorskip("timm")
    backbone = build("timm/test_vit_relpos").eval()
    assert isinstance(backbone, TimmBackbone)
    assert (backbone.plan.is_tiled, backbone.plan.divisor) == (True, 160)
    images = images_of(160, 320, batch=2)
    with torch.no_grad():
        whole = backbone(images)
        left, right = (backbone(images[..., start : start + 160]) for start in (0, 160))
    for one, first, second in zip(whole, left, right, strict=True):
        assert torch.allclose(one, torch.cat([first, second], dim=3), rtol=0, atol=1e-4)


def test_squares_as_large_as_the_crops() -> None:
    pytest.importorskip("timm")
    backbone = build("timm/test_vit_relpos", img_size=64)
    assert isinstance(backbone, TimmBackbone)
    assert backbone.plan.divisor == 64
    check_shapes(backbone, (64, 64))


def test_cutting_and_joining() -> None:
    images = torch.arange(2 * 3 * 6 * 9.0).reshape(2, 3, 6, 9)
    squares = cut_squares(images, 3)
    assert squares.shape == (12, 3, 3, 3)
    assert torch.equal(squares[1], images[0, :, :3, 3:6])
    assert torch.equal(squares[6 + 5], images[1, :, 3:, 6:])
    assert torch.equal(join_squares(squares, 2, 3), images)


def test_options() -> None:
    pytest.importorskip("timm")
    dilated = build("timm/test_resnet", output_stride=8)
    assert dilated.strides == (4, 8, 8, 8)
    check_shapes(dilated, (33, 40))
    chosen = build("timm/test_resnet", out_indices=[-1, 0])
    assert chosen.strides == (2, 32)
    check_shapes(chosen, (33, 40))
    layers = build("timm/test_vit", out_indices=[1, 3])
    assert len(layers.channels) == 2


def test_drop_path_acts_in_training() -> None:
    pytest.importorskip("timm")
    backbone = build("timm/test_convnext", drop_path_rate=0.9)
    images = images_of(32, 32)
    with torch.no_grad():
        first, second = (backbone.train()(images)[-1] for _ in range(2))
        assert not torch.equal(first, second)
        first, second = (backbone.eval()(images)[-1] for _ in range(2))
        assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("timm/convnext_tinny", {}, "timm has no .*; did you mean timm/convnext_tiny"),
        ("timm/resnet18.a1_in2k", {}, "did you mean timm/resnet18.a1_in1k"),
        ("timm/test_resnet", {"img_size": 64}, r"backbone\.img_size: .* has no such option"),
        (
            "timm/test_resnet",
            {"out_indices": [5]},
            r"backbone\.out_indices must be one .*\[5\]",
        ),
        ("timm/test_resnet", {"out_indices": []}, r"backbone\.out_indices must be one .*\[\]"),
        ("timm/test_resnet", {"output_stride": 4}, r"backbone\.output_stride must be 8 or 16"),
        (
            "timm/test_vit",
            {"output_stride": 8},
            r"backbone\.output_stride: .* has no such option",
        ),
        ("timm/hrnet_w18_small", {"output_stride": 8}, r"\.output_stride of .* cannot be 8"),
        (
            "timm/hrnet_w18_small",
            {"drop_path_rate": 0.1},
            r"\.drop_path_rate: .* has no such option",
        ),
        pytest.param(
            "timm/inception_v4", {}, "are not aligned with the image", marks=pytest.mark.slow
        ),
        (
            "timm/test_efficientnet",
            {"activation_checkpointing": True},
            "does not support activation_checkpointing without changing the statistics",
        ),
        ("timm/test_resnet", {"stride": 8}, "no parameter 'stride'"),
        ("tim/resnet18", {}, "did you mean 'timm/resnet18'"),
        ("resnet18", {}, "unknown backbone 'resnet18'.*torchvision/<name>"),
        ("torchvision/resnet5", {}, "did you mean torchvision/resnet50"),
    ],
)
def test_mistakes(name: str, params: dict[str, Any], message: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(ConfigError, match=message) as raised:
        build(name, **params)
    assert "\n" not in str(raised.value)


def test_a_missing_timm_is_reported_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"pip install 'segtrain\[timm\]'"):
        plan_features("resnet18", Options(img_size=1))
    with pytest.raises(ConfigError, match=r"pip install 'segtrain\[timm\]'"):
        imagenet_trunk(VARIANTS["w18"])


@pytest.mark.parametrize("name", ["test_convnext", "test_vit", *slow("test_resnet", *TIMM)])
def test_weights_come_from_the_cache_of_the_hub(hf_cache: Path, name: str) -> None:
    state = put_weights(hf_cache, name)
    backbone = build(f"timm/{name}", in_channels=5)
    loaded = backbone.pretrained()
    assert set(loaded) == set(backbone.state_dict())
    renamed = backbone.from_library(state)
    assert set(renamed) == set(loaded)
    identities = {id(value) for value in state.values()}
    for key, value in renamed.items():
        assert torch.equal(value, loaded[key]), key
        assert id(value) in identities


def test_missing_weights_are_refused(hf_cache: Path) -> None:
    put_weights(hf_cache, "test_resnet", without="layer1.0.conv1.weight")
    with pytest.raises(CheckpointError, match=r"1 of \d+ .* such as layer1\.0\.conv1\.weight"):
        build("timm/test_resnet").pretrained()


def test_offline_the_message_has_the_next_step(hf_cache: Path) -> None:
    with pytest.raises(ResourceError) as raised:
        build("timm/test_resnet").pretrained()
    for part in (
        "timm/test_resnet",
        "huggingface.co/timm/test_resnet.r160_in1k",
        "HF_HUB_CACHE",
    ):
        assert part in str(raised.value)
    assert "model.weights=<path>" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_architecture_without_weights(hf_cache: Path) -> None:
    backbone = build("timm/convnext_atto_rms")
    with pytest.raises(
        ConfigError, match="no pretrained weights for convnext_atto_rms; give a file"
    ):
        backbone.pretrained()
