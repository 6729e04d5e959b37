"""The models of segmentation-models-pytorch (SMP) against SMP."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from segtrain.assembly.check import check_config
from segtrain.cli.compose import compose_config
from segtrain.errors import ConfigError, ResourceError
from segtrain.models import MODELS, Segmentor

smp = pytest.importorskip("segmentation_models_pytorch")
constants = pytest.importorskip("huggingface_hub.constants")

ARCHITECTURES = sorted(smp.MODEL_ARCHITECTURES_MAPPING)
UPSAMPLED = {"fpn", "pspnet", "deeplabv3", "deeplabv3plus", "pan", "upernet", "segformer"}
VIT = "tu-vit_tiny_patch16_224"


def encoder_of(arch: str) -> str:
    return VIT if arch == "dpt" else "resnet18"


def build(arch: str = "fpn", encoder: str = "mobilenet_v2", **params: Any) -> Segmentor:
    torch.manual_seed(0)
    spec = {"name": "smp", "arch": arch, "encoder": encoder, **params}
    return MODELS.build(spec, num_classes=5)


def images(*size: int, number: int = 1) -> Tensor:
    return torch.randn(number, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_is_smps_with_images_of_any_size(arch: str) -> None:
    encoder = encoder_of(arch)
    model = build(arch, encoder).train()
    model(images(33, 40, number=2))["out"].square().mean().backward()
    for key, weight in model.named_parameters():
        assert (weight.grad is not None) == weight.requires_grad, key
        assert weight.grad is None or weight.grad.isfinite().all(), key
    frozen = {key for key, weight in model.named_parameters() if not weight.requires_grad}
    assert bool(frozen) == (arch in ("pspnet", "dpt"))
    assert all(key.startswith("encoder.") for key in frozen)

    size = {"dynamic_img_size": True} if arch == "dpt" else {}
    reference = smp.create_model(arch, encoder, encoder_weights=None, classes=5, **size).eval()
    reference.load_state_dict(model.state_dict(), strict=True)
    with torch.no_grad():
        whole = images(128, 160)
        logits = model.eval()(whole)["out"]
        if arch in UPSAMPLED:  # SMP upsamples with align_corners
            logits = F.interpolate(logits, size=(128, 160), mode="bilinear", align_corners=True)
        torch.testing.assert_close(logits, reference(whole))
        height, width = model(images(75, 117))["out"].shape[2:]
        assert (height, width) in [(-(-75 // s), -(-117 // s)) for s in (1, 4, 8)]


@torch.no_grad()
def test_images_are_padded_with_zeros_and_logits_cropped() -> None:
    model = build().eval()
    given = images(33, 47)
    by_hand = model(F.pad(given, (0, 64 - 47, 0, 64 - 33)))["out"][..., :9, :12]
    assert torch.equal(model(given)["out"], by_hand)


@pytest.mark.parametrize("arch", ["pspnet", "deeplabv3plus", "upernet", "dpt"])
def test_batch_norm_is_where_the_model_says(arch: str) -> None:
    model = build(arch, encoder_of(arch)).train()
    expected = {"pspnet": 8.0, "dpt": 32.0}.get(arch, float("inf"))
    assert model.norm_stride == expected
    if expected < 64:
        with pytest.raises(ValueError, match="use at least 2 images in a batch or images of more"):
            model(images(int(expected), int(expected)))
        model(images(int(expected) + 1, 1))


def test_an_encoder_without_batch_norm_has_no_norm_stride() -> None:
    model = build("fpn", "mit_b0").train()  # group norm in the decoder
    assert model.norm_stride is None
    assert model(images(20, 20))["out"].shape == (1, 5, 5, 5)


def test_the_unused_convolution_of_an_efficientnet_is_frozen() -> None:
    model = build("fpn", "efficientnet-b0")
    frozen = {key for key, weight in model.named_parameters() if not weight.requires_grad}
    assert frozen == {"encoder._conv_head.weight", "encoder._bn1.weight", "encoder._bn1.bias"}


def test_further_arguments_reach_smp() -> None:
    with torch.device("meta"):
        model = build("unet", params={"decoder_channels": [32, 16, 8, 8, 4]})
        assert model.get_submodule("segmentation_head.0").in_channels == 4  # type: ignore[comparison-overlap]
        shallow = build("fpn", "tu-resnet18", encoder_params={"drop_path_rate": 0.1})
    assert any("drop_path" in name for name, _ in shallow.named_modules())


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"arch": "unett"}, r"model.arch: SMP has no architecture 'unett'; did you mean 'unet'\?"),
        (
            {"encoder": "resnet43"},
            r"model.encoder: SMP has no encoder 'resnet43'; did you mean 'resnet34'",
        ),
        ({"encoder": "tu-convnext_tinny"}, r"did you mean 'tu-convnext_tiny'\?"),
        ({"params": {"decoder_chanels": 3}}, r"model.params.decoder_chanels: SMP's architecture"),
        ({"params": {"upsampling": 2}}, "model.params.upsampling cannot be set: the criterion"),
        ({"params": {"classes": 2}}, "model.params.classes cannot be set: use dataset.num_classes"),
        ({"params": {"decoder_dropout": "much"}}, "model.params.decoder_dropout must be a number"),
        (
            {"params": {"encoder_depth": 9}},
            r"model.arch=fpn cannot be built with model.encoder=mob",
        ),
        ({"encoder_params": {"drop_path_rate": 0.1}}, "apply to encoders of timm .tu-"),
        ({"arch": "dpt"}, "model.arch=dpt cannot be built with model.encoder=mobilenet_v2"),
        ({"encoder": "tu-swin_tiny_patch4_window7_224"}, r"fails on an image of .*img_size"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_key(given: dict[str, Any], sentence: str) -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match=sentence):
        build(**given)


def test_the_next_step_for_encoders_of_one_size_works() -> None:
    with torch.device("meta"):
        model = build(
            "fpn", "tu-swin_tiny_patch4_window7_224", encoder_params={"strict_img_size": False}
        )
        assert model.eval()(torch.zeros(1, 3, 75, 117))["out"].shape == (1, 5, 19, 30)


def test_a_missing_smp_is_reported_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(ConfigError, match=r"pip install 'segtrain\[smp\]'"):
        build()


def test_a_full_command_is_accepted() -> None:
    words = ["model=smp", "model.arch=unet", "model.encoder=resnet34"]
    config = check_config(compose_config(words, "train"))
    assert (config.model["arch"], config.model["encoder"]) == ("unet", "resnet34")


def put_into_cache(folder: Path, encoder: str, state: dict[str, Tensor]) -> None:
    """Write a file to the cache in the layout of the Hugging Face hub."""
    hub = smp.encoders.encoders[encoder]["pretrained_settings"]["imagenet"]
    snapshot = folder / f"models--{hub['repo_id'].replace('/', '--')}/snapshots/{hub['revision']}"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    save_file(state, snapshot / "model.safetensors")


def test_imagenet_weights_come_from_the_cache_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    model = build()
    state = smp.encoders.get_encoder("mobilenet_v2", weights=None).state_dict()
    put_into_cache(tmp_path, "mobilenet_v2", state)
    found = model.pretrained_backbone()
    assert set(found) == {key for key in model.state_dict() if key.startswith("encoder.")}
    assert all(torch.equal(found[f"encoder.{key}"], value) for key, value in state.items())


def test_weights_that_are_not_in_the_cache_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    sentence = (
        r"hf download smp-hub/mobilenet_v2.imagenet --revision .* into .*, or give a file with"
    )
    with pytest.raises(ResourceError, match=sentence):
        build().pretrained_backbone()
    with pytest.raises(ConfigError, match="no weights 'ssl' for the encoder mobilenet_v2"):
        build(encoder_weights="ssl").pretrained_backbone()
    with pytest.raises(ResourceError, match="put the file of timm into"):
        build(encoder="tu-mobilenetv3_small_100").pretrained_backbone()
    with pytest.raises(ResourceError, match="put the file of timm into"):
        build("dpt", VIT).pretrained_backbone()
