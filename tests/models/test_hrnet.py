from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segtrain.errors import ConfigError
from segtrain.models import MODELS
from segtrain.models.backbones.hrnet import VARIANTS, HRNet, HRNetVariant
from segtrain.models.hrnet import HRNetModel, HRNetOCRSegmentor, HRNetSegmentor


def build(name: str = "hrnet_w18_small_v1", **arguments: Any) -> HRNetSegmentor:
    model = MODELS.build(name, **{"num_classes": 19, **arguments})
    assert isinstance(model, HRNetSegmentor)
    return model


@pytest.mark.parametrize("case", range(4))
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_outputs_and_branches_equal_the_official_code(
    reference_seg_hrnet: dict[str, Any], case: int, dtype: torch.dtype, tolerance: float
) -> None:
    reference = [reference_seg_hrnet, *reference_seg_hrnet["extra_cases"]][case]
    model = build(align_corners=reference["align_corners"])
    model.load_state_dict(reference_seg_hrnet["state_dict"], strict=True)
    model.eval().to(dtype)
    images = reference["input"].to(dtype)
    with torch.no_grad():
        branches, logits = model.branches(images), model(images)["out"]
    expected = reference["outputs"][0] if dtype == torch.float32 else reference["outputs64"][0]
    assert (logits - expected).abs().max().item() <= tolerance
    for branch, official in zip(branches, reference["branches64"], strict=True):
        assert (branch - official).abs().max().item() <= tolerance


def test_reference_has_the_four_cases(reference_seg_hrnet: dict[str, Any]) -> None:
    assert len(reference_seg_hrnet["extra_cases"]) == 3


def test_keys_and_their_order_are_the_official_ones(reference_seg_hrnet: dict[str, Any]) -> None:
    ours = {key: value.shape for key, value in build().state_dict().items()}
    official = {key: value.shape for key, value in reference_seg_hrnet["state_dict"].items()}
    assert list(ours.items()) == list(official.items())


def test_trunk_alone_has_the_keys_without_the_head() -> None:
    trunk, model = HRNet("w18_small_v1"), build()
    head = {key for key in model.state_dict() if key.startswith("last_layer.")}
    assert set(trunk.state_dict()) == set(model.state_dict()) - head


def test_aux_head_adds_keys_of_the_same_layout() -> None:
    plain, aux = build().state_dict(), build(aux_head=True).state_dict()
    added = set(aux) - set(plain)
    assert {key.removeprefix("aux_head.") for key in added} == {
        key.removeprefix("last_layer.") for key in plain if key.startswith("last_layer.")
    }


@pytest.mark.parametrize("kind", [HRNetSegmentor, HRNetOCRSegmentor])
def test_a_model_of_a_custom_variant(kind: type[HRNetModel]) -> None:
    model = kind(variant=HRNetVariant(8, (1, 1, 1), 1, 1, 16), num_classes=3).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 32, 40))["out"].shape == (1, 3, 8, 10)


@pytest.mark.parametrize("name", ["hrnet_w18_small_v1", "hrnet_w18_small_v1_ocr"])
def test_the_variant_belongs_to_the_name_and_is_not_a_key(name: str) -> None:
    assert "variant" not in MODELS.schema(name)
    with pytest.raises(ConfigError, match="has no parameter 'variant'"):
        MODELS.check({"name": name, "variant": "w18"})


def test_an_unknown_variant_is_refused_with_the_closest_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'w18'"):
        HRNet("w17")
    with pytest.raises(ConfigError, match="did you mean 'w18'"):
        HRNetSegmentor(variant="w17", num_classes=3)


def test_align_corners_belongs_to_the_instance() -> None:
    images = torch.randn(1, 3, 64, 96)
    models = [build(align_corners=flag).eval() for flag in (False, True)]
    models[1].load_state_dict(models[0].state_dict())
    with torch.no_grad():
        first, second, again = (models[index](images)["out"] for index in (0, 1, 0))
    assert not torch.allclose(first, second)
    assert torch.equal(first, again)


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_dropout_outside_its_range_is_refused(dropout: float) -> None:
    with pytest.raises(ConfigError, match="dropout"):
        build(dropout=dropout)


def test_initial_weights_keep_the_scale_and_start_near_uniform() -> None:
    torch.manual_seed(0)
    model = build()
    weights = model.state_dict()
    # layer1.0.conv2 has 32 outputs of 3x3: fan-out 288.
    assert weights["layer1.0.conv2.weight"].std().item() == pytest.approx(
        (2 / 288) ** 0.5, rel=0.05
    )
    assert weights["last_layer.3.weight"].std().item() == pytest.approx(0.01, rel=0.05)
    assert not weights["last_layer.3.bias"].any()
    assert not weights["last_layer.0.bias"].any()
    probabilities = model(torch.randn(2, 3, 64, 64))["out"].softmax(dim=1)
    assert probabilities.max().item() < 0.5


def test_the_published_variants_are_registered() -> None:
    assert {f"hrnet_{name}" for name in VARIANTS} <= set(MODELS.names())


def test_nothing_falls_back_from_channels_last() -> None:
    model = build(aux_head=True).train().to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 96, 64).to(memory_format=torch.channels_last)
    seen: list[str] = []

    def expect(name: str, tensor: Tensor) -> None:
        seen.append(name)
        assert tensor.is_contiguous(memory_format=torch.channels_last), name
        assert not tensor.is_contiguous(), name  # not both formats at once

    def check(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            expect(f"input of {name}", inputs[0])
            expect(f"output of {name}", output)
            output.register_hook(lambda gradient: expect(f"gradient of {name}", gradient))

        return hook

    convolutions = {n: layer for n, layer in model.named_modules() if isinstance(layer, nn.Conv2d)}
    for name, layer in convolutions.items():
        layer.register_forward_hook(check(name))
    for branch in model.branches(images):
        expect("branch", branch)
    seen.clear()
    outputs = list(model(images).values())
    torch.autograd.backward(outputs, [torch.randn_like(logits) for logits in outputs])
    assert len(seen) == 3 * len(convolutions)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.is_contiguous(memory_format=torch.channels_last) or (
            parameter.ndim == 1
        ), name
