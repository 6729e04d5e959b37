"""Which weights are loaded, converted, reinitialised and left out."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import segtrain
from segtrain.errors import ConfigError
from segtrain.models import MODELS
from segtrain.models.layers.stem import widen
from tests.models.weights.helpers import (
    AFTER_HRNET,
    OCR,
    SMALL,
    State,
    build,
    data_parallel,
    imagenet,
    official,
    report_of,
    save,
)


class _AbsoluteNorm(nn.Module):
    """Batch norm of InPlaceABN, computed by its formula."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, features: Tensor) -> Tensor:
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, var, scale, shift = (
            value[:, None, None]
            for value in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        )
        return (features - mean) / (var + 1e-5).sqrt() * (scale.abs() + 1e-5) + shift


def _with_absolute_norms(model: nn.Module) -> nn.Module:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, _AbsoluteNorm(child))
    return model


@pytest.mark.parametrize("name", [SMALL, OCR])
def test_in_place_abn_files_give_the_logits_of_their_own_formula(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MODELS.build(name, num_classes=5).double().eval()
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.uniform_(-0.5, 1.2)  # about 30 % are negative
                layer.bias.uniform_(-0.2, 0.2)
                assert layer.running_mean is not None
                assert layer.running_var is not None
                layer.running_mean.uniform_(-0.2, 0.2)
                layer.running_var.uniform_(0.5, 2.0)
    old = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    file = save(official(old), tmp_path / "best.pth")
    loaded = MODELS.build(name, num_classes=5).double().eval()
    with pytest.raises(ConfigError, match=r"without num_batches_tracked.*set abn=true if"):
        segtrain.load_weights(loaded, file, align_corners=False)
    report = segtrain.load_weights(loaded, file, abn=True, align_corners=False)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = _with_absolute_norms(deepcopy(model))(images)["out"]
        torch.testing.assert_close(loaded(images)["out"], expected, rtol=0, atol=1e-10)
        assert (model(images)["out"] - expected).abs().max() > 1e-3  # the conversion matters
    scales = report.converted["InPlaceABN, |weight| + 1e-5"]
    assert len(scales) == sum(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())
    counts = [v for k, v in loaded.state_dict().items() if k.endswith("num_batches_tracked")]
    assert counts
    assert not any(counts)


def test_abn_false_loads_old_batch_norms_unchanged(
    states: Callable[[str], State], tmp_path: Path
) -> None:
    state = states(SMALL)
    old = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    model = build(save(official(old), tmp_path / "best.pth"), align_corners=False, abn=False)
    for key, value in model.state_dict().items():
        assert torch.equal(value, old.get(key, torch.tensor(0))), key
    assert set(report_of(model).loaded) == old.keys()


def test_imagenet_files_are_plain_batch_norm(
    states: Callable[[str], State], tmp_path: Path
) -> None:
    old = {k: v for k, v in imagenet(states(SMALL)).items() if "num_batches" not in k}
    file = save(old, tmp_path / "hrnet_imagenet.pth")
    model = build(file)  # requires neither abn nor align_corners
    assert torch.equal(model.state_dict()["bn1.weight"], old["bn1.weight"])
    assert (old["bn1.weight"] < 0).any()
    with pytest.raises(ConfigError, match=r"model\.abn=true, but .* has plain batch norms"):
        build(file, abn=True)


@pytest.mark.parametrize(("name", "layout"), [(SMALL, dict), (SMALL, data_parallel), (OCR, dict)])
def test_imagenet_files_of_hrnet_fill_the_trunk(
    name: str, layout: Callable[[State], Any], states: Callable[[str], State], tmp_path: Path
) -> None:
    """The HRNet files of timm have the same names."""
    file = save(layout(imagenet(states(SMALL))), tmp_path / "hrnet.pth")
    model = build(file, name, num_classes=3)
    report = report_of(model)
    trunk = [key for key in states(SMALL) if not key.startswith("last_layer.")]
    assert list(report.loaded) == trunk
    own = model.state_dict()
    for key in trunk:
        assert torch.equal(own[key], states(SMALL)[key]), key
    assert set(report.new) == own.keys() - set(trunk)
    assert set(report.left_out) == {k for k in imagenet(states(SMALL)) if k not in trunk}
    assert "HRNet for ImageNet" in report.kind


@pytest.mark.parametrize(
    ("reinit", "kept"),
    [
        (["last_layer.3"], "last_layer.3."),
        (["stage4"], "stage4."),
        (["stage4.0.branches.1", "bn1"], ("stage4.0.branches.1.", "bn1.")),
        (["backbone"], None),
    ],
)
def test_any_module_can_be_reinitialised(
    reinit: list[str], kept: Any, states: Callable[[str], State], tmp_path: Path
) -> None:
    file = save(states(SMALL), tmp_path / "best.pth")
    report = report_of(build(file, align_corners=False, reinit=reinit))
    all_keys = set(states(SMALL))
    expected = {
        key
        for key in all_keys
        if (key.startswith(kept) if kept else not key.startswith("last_layer."))
    }
    assert set(report.reinitialised) == expected
    assert set(report.loaded) == all_keys - expected


def test_ocr_starts_from_hrnet_as_in_the_official_code_when_asked_to(
    states: Callable[[str], State], tmp_path: Path
) -> None:
    """last_layer becomes aux_head, and the other layers of OCR are reinitialised."""
    file = save(official(states(SMALL)), tmp_path / "best.pth")
    model = build(file, OCR, align_corners=True, reinit=AFTER_HRNET)
    own = model.state_dict()
    for key, value in states(SMALL).items():
        assert torch.equal(own[key.replace("last_layer", "aux_head")], value), key
    report = report_of(model)
    assert len(report.converted["last_layer is aux_head"]) == 9
    assert len(report.loaded) == len(states(SMALL))
    fresh = report_of(build(file, OCR, align_corners=True, reinit=["head"]))
    assert not any(key.startswith("aux_head") for key in fresh.loaded)
    assert not fresh.converted


@pytest.mark.fault("F53")
@pytest.mark.parametrize("in_channels", [1, 4, 6])
def test_a_stem_of_three_channels_is_widened(
    in_channels: int, states: Callable[[str], State], tmp_path: Path
) -> None:
    file = save(official(states(SMALL)), tmp_path / "best.pth")
    model = build(file, align_corners=False, in_channels=in_channels)
    expected = widen(states(SMALL)["conv1.weight"], in_channels)
    assert torch.equal(model.state_dict()["conv1.weight"], expected)
    assert report_of(model).converted == {f"stem of 3 channels to {in_channels}": ("conv1.weight",)}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_are_converted_to_the_dtype_of_the_model(
    dtype: torch.dtype, states: Callable[[str], State], tmp_path: Path
) -> None:
    half = {k: v.to(dtype) if v.is_floating_point() else v for k, v in states(SMALL).items()}
    save_file(half, tmp_path / "model.safetensors")
    model = build(tmp_path / "model.safetensors", align_corners=False)
    own = model.state_dict()
    assert own["conv1.weight"].dtype == torch.float32
    assert torch.equal(own["conv1.weight"], half["conv1.weight"].float())
    (what,) = report_of(model).converted
    assert what == f"from {str(dtype).removeprefix('torch.')}"
