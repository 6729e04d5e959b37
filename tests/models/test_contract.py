"""The contract of every registered model; a newly registered model is tested as well."""

from __future__ import annotations

import copy
import functools
import math
import pickle
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segtrain.errors import ConfigError
from segtrain.models import HEADS, MODELS, Segmentor
from segtrain.schema.registry import Registry

NUM_CLASSES = 5
SIZES = [(64, 64), (75, 117), (33, 47), (1, 1)]

WIDTHS = ("channels", "ocr_channels", "key_channels")  # wide by default
# Parameters that make a model small, and the combinations of parts to test. All other models are
# built with their defaults.
PARTS: dict[str, dict[str, Any]] = {
    "smp": {"name": "smp", "arch": "fpn", "encoder": "mobilenet_v2"},
    "encoder_decoder": {
        "name": "encoder_decoder",
        "backbone": "timm/mobilenetv3_small_100",
        "head": "fcn",
        "aux_heads": {"aux": {"name": "fcn", "stage": 1}, "edges": {"name": "hrnetv2"}},
    },
    **{
        f"encoder_decoder, {head}": {
            "name": "encoder_decoder",
            "backbone": "torchvision/mobilenet_v3_small",
            "head": {"name": head, **{key: 32 for key in WIDTHS if key in HEADS.schema(head)}},
        }
        for head in HEADS.names()
    },
}
# These differ from the small models only in their hyperparameters, so one test is enough.
LARGE = [
    f"hrnet_{variant}{ocr}"
    for variant in ("w18_small_v2", "w18", "w32", "w48")
    for ocr in ("", "_ocr")
]
CHOICES = sorted({*MODELS.names(), *PARTS} - set(LARGE))
WITH_AUX = [name for name in CHOICES if "aux_head" in MODELS.schema(name.partition(",")[0])]


def build(choice: str, *, num_classes: int = NUM_CLASSES, **params: Any) -> Segmentor:
    """Build a new model in training mode, always with the same weights."""
    torch.manual_seed(0)
    spec = PARTS.get(choice, {"name": choice})
    return MODELS.build({**spec, **params}, num_classes=num_classes).train()


@functools.cache
def shared(choice: str) -> Segmentor:
    """A shared model in eval mode, for tests that do not change it."""
    return build(choice).eval()


def images(*size: int, number: int = 1, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(number, channels, *size, generator=generator)


def total(outputs: dict[str, Tensor]) -> Tensor:
    """A scalar that depends on every logit."""
    return torch.stack([logits.float().square().mean() for logits in outputs.values()]).sum()


def test_the_large_models_are_registered() -> None:
    assert set(LARGE) < set(MODELS.names())


@torch.no_grad()
@pytest.mark.parametrize("choice", CHOICES)
def test_any_size_gives_logits_at_a_stride(choice: str) -> None:
    for height, width in SIZES:
        outputs = shared(choice)(images(height, width))
        assert "out" in outputs
        for key, logits in outputs.items():
            assert (logits.dtype, logits.shape[:2]) == (torch.float32, (1, NUM_CLASSES)), key
            assert logits.isfinite().all(), key
            sizes = [(-(-height // s), -(-width // s)) for s in (1, 2, 4, 8, 16, 32)]
            assert tuple(logits.shape[2:]) in sizes, (key, height, width)


@pytest.mark.parametrize("name", LARGE)
def test_the_large_models_keep_the_contract(name: str) -> None:
    with torch.device("meta"):
        model = build(name, align_corners=True)
    model.to_empty(device="cpu")  # random initial weights would take most of the time
    for weight in model.parameters():
        nn.init.zeros_(weight)
    outputs = model(images(35, 47, number=2))
    total(outputs).backward()
    assert set(outputs) == ({"out", "aux"} if name.endswith("_ocr") else {"out"})
    assert {tuple(logits.shape) for logits in outputs.values()} == {(2, NUM_CLASSES, 9, 12)}
    assert not [key for key, weight in model.named_parameters() if weight.grad is None]
    assert (model.num_classes, model.align_corners) == (NUM_CLASSES, True)


@torch.no_grad()
@pytest.mark.parametrize("choice", WITH_AUX)
def test_aux_head_adds_the_output_aux(choice: str) -> None:
    assert set(shared(choice)(images(64, 64))) == {"out"}
    assert set(build(choice, aux_head=True).eval()(images(64, 64))) == {"out", "aux"}


@torch.no_grad()
@pytest.mark.parametrize("choice", CHOICES)
def test_autocast_stays_finite(choice: str) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        outputs = shared(choice)(images(33, 47))
    for key, logits in outputs.items():
        assert logits.dtype in (torch.bfloat16, torch.float32), key
        assert logits.isfinite().all(), key


@pytest.mark.parametrize("choice", CHOICES)
def test_every_trained_parameter_gets_a_finite_gradient(choice: str) -> None:
    arguments = {"aux_head": True} if choice in WITH_AUX else {}
    model = build(choice, **arguments)
    total(model(images(40, 56, number=2))).backward()
    trained = {key: item for key, item in model.named_parameters() if item.requires_grad}
    for key, parameter in trained.items():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
    frozen = model.state_dict().keys() - trained.keys() - dict(model.named_buffers()).keys()
    # Only layers of other libraries may have parameters that no output depends on.
    assert not [key for key in frozen if not key.startswith(("backbone.", "encoder."))]


@torch.no_grad()
@pytest.mark.parametrize("choice", CHOICES)
def test_a_state_dict_and_a_copy_give_the_same_outputs(choice: str) -> None:
    first, second = copy.deepcopy(shared(choice)).train(), build(choice)
    first(images(40, 40, number=2))  # changes the running statistics
    second.load_state_dict(first.state_dict(), strict=True)
    expected = first.eval()(images(33, 47))
    others = [second.eval(), copy.deepcopy(first), pickle.loads(pickle.dumps(first))]
    for other in others:
        outputs = other(images(33, 47))
        assert outputs.keys() == expected.keys()
        assert all(torch.equal(outputs[key], expected[key]) for key in expected)
    for parameter in others[1].parameters():
        parameter.zero_()
    assert torch.equal(first(images(33, 47))["out"], expected["out"])  # a copy shares no memory


@torch.no_grad()
@pytest.mark.parametrize("choice", CHOICES)
def test_images_of_a_batch_are_independent_in_eval_mode(choice: str) -> None:
    batch = images(40, 56, number=3)
    together, alone = shared(choice)(batch), shared(choice)(batch[1:2])
    for key, logits in alone.items():
        torch.testing.assert_close(together[key][1:2], logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("choice", CHOICES)
def test_channels_last_changes_nothing(choice: str) -> None:
    expected = shared(choice)(images(40, 56))
    model = copy.deepcopy(shared(choice)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    outputs = model(images(40, 56).to(memory_format=torch.channels_last))
    for key, logits in expected.items():
        scale = float(logits.abs().max())
        torch.testing.assert_close(outputs[key], logits, rtol=1e-4, atol=1e-4 * max(scale, 1.0))


@torch.no_grad()
@pytest.mark.parametrize(("num_classes", "in_channels"), [(1, 1), (2, 4), (150, 6)])
@pytest.mark.parametrize("choice", CHOICES)
def test_any_number_of_classes_and_channels(
    choice: str, num_classes: int, in_channels: int
) -> None:
    model = build(choice, num_classes=num_classes, in_channels=in_channels)
    assert (model.num_classes, model.in_channels) == (num_classes, in_channels)
    outputs = model(images(40, 56, number=2, channels=in_channels))
    assert {logits.shape[1] for logits in outputs.values()} == {num_classes}
    with pytest.raises(ValueError, match=rf"\(N, {in_channels}, H, W\), got \(1, 3, 8, 8\)"):
        model(images(8, 8))


@torch.no_grad()
@pytest.mark.parametrize("choice", CHOICES)
def test_two_values_of_align_corners_in_one_process(choice: str) -> None:
    false = shared(choice)
    before = false(images(75, 117))
    true = build(choice, align_corners=True).eval()
    true.load_state_dict(false.state_dict())
    other = true(images(75, 117))
    after = false(images(75, 117))
    assert (false.align_corners, true.align_corners) == (False, True)
    assert all(torch.equal(before[key], after[key]) for key in before)
    if choice.startswith("hrnet"):  # it resizes features
        assert not torch.allclose(other["out"], before["out"], rtol=1e-3)


@pytest.mark.fault("F40")
@pytest.mark.parametrize("choice", CHOICES)
def test_one_image_too_small_for_batch_norm_is_refused(
    choice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = copy.deepcopy(shared(choice)).train()
    assert model.norm_stride is not None, "it has batch norm, and has to say at which stride"
    size = 64 if math.isinf(model.norm_stride) else int(model.norm_stride)
    with pytest.raises(ValueError, match="use at least 2 images in a batch"):
        model(images(size, size))
    model(images(size, size, number=2))
    if not math.isinf(model.norm_stride):
        model(images(size + 1, 1))
    monkeypatch.setattr(Segmentor, "check_images", lambda _self, _images: None)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        model(images(size, size))  # so the check is necessary


@pytest.mark.parametrize("choice", CHOICES)
def test_parameter_groups_hold_every_parameter_once(choice: str) -> None:
    model = shared(choice)
    groups = model.parameter_groups()
    assert set(groups) == {"backbone", "head"}
    assert groups["backbone"]
    assert groups["head"]
    grouped = Counter(id(parameter) for group in groups.values() for parameter in group)
    assert grouped == Counter(id(parameter) for parameter in model.parameters())


@pytest.mark.parametrize("choice", CHOICES)
def test_the_prefix_of_the_backbone_is_one(choice: str) -> None:
    model = shared(choice)
    own = [key for key in model.state_dict() if not key.startswith(model.head_prefixes)]
    assert own
    assert all(key.startswith(model.backbone_prefix) for key in own)


@pytest.mark.parametrize("choice", CHOICES)
def test_the_source_is_in_the_table(choice: str) -> None:
    model = shared(choice)
    assert model.source
    assert min(model.paper_size) >= 512


@pytest.mark.parametrize("choice", CHOICES)
def test_images_of_the_wrong_shape_or_dtype_are_refused(choice: str) -> None:
    model = shared(choice)
    with pytest.raises(ValueError, match=r"\(N, 3, H, W\), got \(1, 1, 64, 64\)"):
        model(images(64, 64, channels=1))
    with pytest.raises(ValueError, match=r"got \(3, 64, 64\)"):
        model(images(64, 64)[0])
    with pytest.raises(TypeError, match=r"torch\.uint8"):
        model(images(64, 64).to(torch.uint8))


@pytest.mark.parametrize("choice", CHOICES)
def test_bad_arguments_are_refused_before_anything_is_built(choice: str) -> None:
    with pytest.raises(ConfigError, match="num_classes must be at least 1, got 0"):
        build(choice, num_classes=0)
    with pytest.raises(ConfigError, match="in_channels must be at least 1, got 0"):
        build(choice, in_channels=0)
    with pytest.raises(ConfigError, match="did you mean 'align_corners'"):
        build(choice, align_cornres=True)


class Linear(Segmentor):
    """A custom model of one convolution."""

    def __init__(self, *, num_classes: int, align_corners: bool = False) -> None:
        super().__init__(num_classes=num_classes, align_corners=align_corners)
        self.classifier = nn.Conv2d(3, num_classes, kernel_size=1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": self.classifier(images)}


def test_a_custom_model_is_all_backbone_by_default() -> None:
    class WithHead(Linear):
        head_prefixes = ("classifier",)

    class WithTypo(Linear):
        head_prefixes = ("clasifier",)

    sizes = {name: len(group) for name, group in Linear(num_classes=2).parameter_groups().items()}
    assert sizes == {"backbone": 2, "head": 0}
    sizes = {name: len(group) for name, group in WithHead(num_classes=2).parameter_groups().items()}
    assert sizes == {"backbone": 0, "head": 2}
    with pytest.raises(ConfigError, match="clasifier"):
        WithTypo(num_classes=2).parameter_groups()


def test_a_prefix_is_a_whole_name() -> None:
    class Similar(Linear):
        head_prefixes = ("class",)

    with pytest.raises(ConfigError, match="match no parameter"):
        Similar(num_classes=2).parameter_groups()


def test_a_users_model_is_built_by_name() -> None:
    models = Registry[Segmentor]("model")  # not the global one: other tests enumerate it
    models.register("linear")(Linear)
    assert isinstance(models.build("linear", num_classes=2), Linear)


def test_a_model_without_forward_raises() -> None:
    with pytest.raises(NotImplementedError, match="forward"):
        Segmentor(num_classes=2)(torch.zeros(1, 3, 8, 8))
