from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import segtrain
from segtrain.errors import ConfigError
from segtrain.models import HEADS, MODELS, Head
from segtrain.models.backbones.hrnet import VARIANTS
from segtrain.models.heads.ocr_layers import ObjectAttention, gather
from segtrain.models.hrnet import HRNetOCRSegmentor

NAMES = [f"hrnet_{name}_ocr" for name in ("w18_small_v1", "w18_small_v2", "w18", "w32", "w48")]


def build(name: str = "hrnet_w18_small_v1_ocr", **arguments: Any) -> HRNetOCRSegmentor:
    model = MODELS.build(name, **{"num_classes": 19, **arguments})
    assert isinstance(model, HRNetOCRSegmentor)
    return model


def small(**arguments: Any) -> Head:
    given = {"ocr_channels": 16, "key_channels": 8, "num_classes": 4, **arguments}
    return HEADS.build("ocr", in_channels=(6, 10), strides=(4, 8), **given)


def features(num_images: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = ((6, 9, 7), (10, 5, 4))
    return [torch.randn(num_images, *size, generator=generator) for size in sizes]


@pytest.mark.parametrize("case", range(4))
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_outputs_and_branches_equal_the_official_code(
    reference_seg_hrnet_ocr: dict[str, Any], case: int, dtype: torch.dtype, tolerance: float
) -> None:
    reference = [reference_seg_hrnet_ocr, *reference_seg_hrnet_ocr["extra_cases"]][case]
    model = build(align_corners=reference["align_corners"])
    model.load_state_dict(reference_seg_hrnet_ocr["state_dict"], strict=True)
    model.eval().to(dtype)
    images = reference["input"].to(dtype)
    with torch.no_grad():
        branches, outputs = model.branches(images), model(images)
    aux, main = reference["outputs" if dtype == torch.float32 else "outputs64"]
    assert (outputs["aux"] - aux).abs().max().item() <= tolerance
    assert (outputs["out"] - main).abs().max().item() <= tolerance
    for branch, official in zip(branches, reference["branches64"], strict=True):
        assert (branch - official).abs().max().item() <= tolerance


@pytest.mark.parametrize("case", range(4))
def test_channels_last_gives_the_official_values_too(
    reference_seg_hrnet_ocr: dict[str, Any], case: int
) -> None:
    # Compared with the float64 values: those in float32 have errors of 4e-5.
    reference = [reference_seg_hrnet_ocr, *reference_seg_hrnet_ocr["extra_cases"]][case]
    model = build(align_corners=reference["align_corners"]).to(memory_format=torch.channels_last)
    model.load_state_dict(reference_seg_hrnet_ocr["state_dict"], strict=True)
    with torch.no_grad():
        outputs = model.eval()(reference["input"].to(memory_format=torch.channels_last))
    for name, exact in zip(("aux", "out"), reference["outputs64"], strict=True):
        assert (outputs[name] - exact).abs().max().item() <= 1e-4


def test_reference_has_the_four_cases(reference_seg_hrnet_ocr: dict[str, Any]) -> None:
    assert len(reference_seg_hrnet_ocr["extra_cases"]) == 3


def test_keys_and_their_order_are_the_official_ones(
    reference_seg_hrnet_ocr: dict[str, Any],
) -> None:
    ours = {key: value.shape for key, value in build().state_dict().items()}
    official = {key: value.shape for key, value in reference_seg_hrnet_ocr["state_dict"].items()}
    assert list(ours.items()) == list(official.items())


@pytest.mark.parametrize("name", NAMES)
def test_every_variant_is_registered(name: str) -> None:
    with torch.device("meta"):
        model = build(name)
    assert model.variant is VARIANTS[name.removeprefix("hrnet_").removesuffix("_ocr")]


def test_the_criterion_weighs_the_outputs_as_the_official_recipes_do() -> None:
    with torch.device("meta"):
        outputs = build()(torch.zeros(2, 3, 64, 64))
    assert list(outputs) == ["out", "aux"]
    logits = {key: torch.randn(2, 19, 4, 4) for key in outputs}
    target = torch.randint(19, (2, 16, 16))
    criterion = segtrain.build_criterion(
        {"name": "cross_entropy"}, num_classes=19, ignore_label=255, align_corners=True
    )
    main, aux = (
        F.cross_entropy(
            F.interpolate(logits[key], size=(16, 16), mode="bilinear", align_corners=True), target
        )
        for key in ("out", "aux")
    )
    assert criterion(logits, target).total.item() == pytest.approx((main + 0.4 * aux).item())


def test_gather_is_the_mean_over_a_soft_region() -> None:
    pixels, logits = torch.randn(2, 3, 4, 5).double(), torch.randn(2, 6, 4, 5).double()
    regions = gather(pixels, logits)
    assert regions.shape == (2, 3, 6, 1)
    shares = logits[1, 4].exp() / logits[1, 4].exp().sum()
    expected = (shares * pixels[1]).sum((-2, -1))
    torch.testing.assert_close(regions[1, :, 4, 0], expected)


@pytest.mark.parametrize("scale", [1, 2])
def test_attention_is_the_formula_in_value_and_gradient(scale: int) -> None:
    torch.manual_seed(0)
    block = ObjectAttention(6, 4, scale, align_corners=True).double()
    pixels = torch.randn(2, 6, 8, 6).double().requires_grad_()
    regions = torch.randn(2, 6, 5, 1).double().requires_grad_()
    context = block(pixels, regions)

    asking = F.max_pool2d(pixels, scale)
    query, key, value = block.f_pixel(asking), block.f_object(regions), block.f_down(regions)
    scores = torch.einsum("nchw,nck->nhwk", query, key.squeeze(-1)) / 2  # the root of 4 channels
    seen = torch.einsum("nhwk,nck->nchw", scores.softmax(-1), value.squeeze(-1))
    expected = F.interpolate(block.f_up(seen), size=(8, 6), mode="bilinear", align_corners=True)
    torch.testing.assert_close(context, expected)
    weight = torch.randn_like(context)
    ours = torch.autograd.grad((context * weight).sum(), (pixels, regions))
    plain = torch.autograd.grad((expected * weight).sum(), (pixels, regions))
    for mine, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, other)


def test_the_head_is_the_one_of_the_flat_model() -> None:
    model = build(num_classes=4).eval()
    branches = [torch.randn(2, 16 * 2**i, 16 >> i, 8 >> i) for i in range(4)]
    head = HEADS.build(
        "ocr", in_channels=(16, 32, 64, 128), strides=(4, 8, 16, 32), num_classes=4
    ).eval()
    head.load_state_dict({k: v for k, v in model.state_dict().items() if k in head.state_dict()})
    side_by_side = [F.interpolate(b, size=(16, 8), mode="bilinear") for b in branches[1:]]
    expected = model.ocr_outputs(torch.cat([branches[0], *side_by_side], dim=1))
    outputs = head(branches)
    assert set(outputs) == {"out", "aux"}
    for name, logits in outputs.items():
        torch.testing.assert_close(logits, expected[name])


@pytest.mark.parametrize("scale", [1, 2, 3, 50])
@pytest.mark.parametrize("num_classes", [1, 2, 150])
def test_every_parameter_gets_a_finite_gradient(scale: int, num_classes: int) -> None:
    head = small(scale=scale, num_classes=num_classes)
    outputs = head(features())
    assert {tuple(logits.shape) for logits in outputs.values()} == {(2, num_classes, 9, 7)}
    sum(logits.square().mean() for logits in outputs.values()).backward()  # type: ignore[union-attr]
    for key, parameter in head.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


def test_the_main_loss_teaches_the_regions() -> None:
    head = small()
    head(features())["out"].square().mean().backward()
    gradient = dict(head.named_parameters())["aux_head.3.weight"].grad
    assert gradient is not None
    assert gradient.abs().max() > 0


def test_dropout_acts_before_the_main_classifier_in_training_only() -> None:
    plain, dropping = small(dropout=0.0), small(dropout=0.5)
    dropping.load_state_dict(plain.state_dict())
    for head in (plain, dropping):
        head.train()
    first, second = plain(features()), dropping(features())
    assert torch.equal(first["aux"], second["aux"])
    assert not torch.allclose(first["out"], second["out"])
    plain.load_state_dict(dropping.state_dict())  # the running statistics
    assert torch.equal(plain.eval()(features())["out"], dropping.eval()(features())["out"])


def test_the_default_dropout_is_the_official_one() -> None:
    assert build().ocr_distri_head.conv_bn_dropout[2].p == 0.05
    assert build(dropout=0.2).ocr_distri_head.conv_bn_dropout[2].p == 0.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 0}, "scale must be at least 1, got 0"),
        ({"ocr_channels": 0}, "ocr_channels must be at least 1"),
        ({"key_channels": -1}, "key_channels must be at least 1"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    for make in (small, build):
        with pytest.raises(ConfigError, match=message):
            make(**arguments)


def test_one_class_in_one_image_cannot_train() -> None:
    head = small(num_classes=1)
    with pytest.raises(ValueError, match=r"one class and one image: .* or 2 classes"):
        head(features(1))
    head(features(2))
    head.eval()(features(1))


def test_a_single_image_must_leave_two_features_after_pooling() -> None:
    model = build(num_classes=3, scale=8).train()
    with pytest.raises(ValueError, match="60 x 60 gives after stride 60"):
        model(torch.randn(1, 3, 60, 60))
    model(torch.randn(1, 3, 61, 1))


def test_task_heads_stand_beside_it() -> None:
    outputs = build(task_heads={"boundary": 1}).eval()(torch.randn(1, 3, 32, 64))
    assert {name: logits.shape[1] for name, logits in outputs.items()} == {
        "out": 19,
        "aux": 19,
        "boundary": 1,
    }


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_stay_finite_and_near(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    head = small(dropout=0.0)
    exact = head(features())
    with torch.autocast("cpu", dtype):
        outputs = head([30 * branch for branch in features()])
    sum(logits.float().square().mean() for logits in outputs.values()).backward()  # type: ignore[union-attr]
    for name, logits in outputs.items():
        assert logits.dtype == dtype
        assert (logits - exact[name]).abs().max() < 0.1 * exact[name].abs().max()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def test_the_softmax_over_many_pixels_is_taken_in_float32() -> None:
    logits = 40 * torch.randn(1, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        regions = gather(pixels.bfloat16(), logits.bfloat16())
    exact = gather(pixels.bfloat16().double(), logits.bfloat16().double())
    assert (regions - exact).abs().max() < 0.02


def test_the_optimizer_finds_trunk_and_head() -> None:
    groups = build().parameter_groups()
    head = sum(parameter.numel() for parameter in groups["head"])
    trunk = sum(
        p.numel()
        for p in segtrain.build_model("hrnet_w18_small_v1", num_classes=19).parameter_groups()[
            "backbone"
        ]
    )
    assert sum(parameter.numel() for parameter in groups["backbone"]) == trunk
    assert head == 3_842_278 - trunk
