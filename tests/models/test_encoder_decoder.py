"""Any backbone with any head: composition and error messages."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

import segtrain
from segtrain.errors import ConfigError
from segtrain.models import BACKBONES, HEADS, MODELS
from segtrain.models.backbones import Backbone
from segtrain.models.encoder_decoder import EncoderDecoder
from tests.helpers import ROOT
from tests.models.heads.helpers import STAGE_OF

NUM_CLASSES = 5
RESNET = "torchvision/resnet18"
SMALL = "timm/test_resnet"
PRESETS = ["deeplabv3plus_resnet50", "segformer_pvt_v2_b0", "upernet_convnext_tiny"]
CONFIGS = ROOT / "configs" / "model"
SMALL_HEADS: dict[str, dict[str, Any]] = {
    "aspp": {"channels": 16},
    "ocr": {"ocr_channels": 16, "key_channels": 8},
    "segformer": {"channels": 16},
    "upernet": {"channels": 16},
}


def build(*, num_classes: int = NUM_CLASSES, **params: Any) -> EncoderDecoder:
    torch.manual_seed(0)
    spec = {"name": "encoder_decoder", "backbone": SMALL, **params}
    model = MODELS.build(spec, num_classes=num_classes)
    assert isinstance(model, EncoderDecoder)
    return model


def images_of(*size: int, channels: int = 3, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, channels, *size, generator=generator)


def total(outputs: dict[str, Tensor]) -> Tensor:
    return torch.stack([logits.square().mean() for logits in outputs.values()]).sum()


class TestComposition:
    @pytest.mark.parametrize(
        ("backbone", "head"),
        [
            *((SMALL, head) for head in HEADS.names()),
            ("timm/test_vit", "upernet"),
            *(
                pytest.param(backbone, head, marks=pytest.mark.slow)
                for backbone in (RESNET, "hrnet_w18_small_v1", "timm/test_vit")
                for head in HEADS.names()
            ),
        ],
    )
    def test_every_head_on_every_kind_of_backbone(self, backbone: str, head: str) -> None:
        model = build(backbone=backbone, head={"name": head, **SMALL_HEADS.get(head, {})})
        outputs = model.train()(images_of(40, 72))
        total(outputs).backward()
        for key, parameter in model.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, key
        with torch.no_grad():
            for size in ((33, 47), (1, 1)):
                logits = model.eval()(images_of(*size, batch=1))["out"]
                strides = (model.pyramid or model.backbone).strides
                found = [strides[STAGE_OF[head]]] if head in STAGE_OF else strides
                assert logits.shape[:2] == (1, NUM_CLASSES)
                assert logits.shape[-2:] in [
                    tuple(-(-side // stride) for side in size) for stride in found
                ]
                assert logits.isfinite().all()

    def test_outputs_are_those_of_the_parts(self) -> None:
        aux_heads = {"early": {"name": "fcn", "stage": 1}, "late": "fcn"}
        model = build(head={"name": "segformer", "channels": 16}, aux_heads=aux_heads).eval()
        images = images_of(64, 96)  # needs no padding
        with torch.no_grad():
            outputs, features = model(images), model.backbone(images)
            assert list(outputs) == ["out", "early", "late"]
            assert torch.equal(outputs["out"], model.head(features)["out"])
            for name, stage in (("early", 1), ("late", 3)):
                head = model.aux_heads[name]
                assert torch.equal(outputs[name], head(features[: stage + 1])["out"])
                assert outputs[name].shape[-2:] == features[stage].shape[-2:]

    @pytest.mark.parametrize("size", [(75, 117), (64, 96), (33, 64)])
    def test_other_sizes_are_padded_so_that_strides_fit(self, size: tuple[int, int]) -> None:
        aux = {"aux": {"name": "fcn", "stage": 2}}
        model = build(backbone=SMALL, head="hrnetv2", aux_heads=aux).eval()
        images = torch.randn(2, 3, *size)
        whole = nn.functional.pad(images, (0, -size[1] % 32, 0, -size[0] % 32))
        found, expected = model(images), model(whole)
        for name, stride in (("out", 4), ("aux", 16)):
            rows, columns = (math.ceil(side / stride) for side in size)
            assert torch.equal(found[name], expected[name][:, :, :rows, :columns])

    def test_an_auxiliary_head_may_have_another_number_of_classes(self) -> None:
        aux_heads = {
            "aux": {"name": "fcn", "stage": 2},
            "boundary": {"name": "fcn", "stage": 0, "num_classes": 1},
            "edge": {"name": "segformer", "stage": 1, "num_classes": 1, "channels": 8},
        }
        model = build(aux_heads=aux_heads)
        outputs = model.train()(images_of(32, 48))
        channels = {name: logits.shape[1] for name, logits in outputs.items()}
        assert channels == {"out": 5, "aux": 5, "boundary": 1, "edge": 1}
        criterion = segtrain.build_criterion(
            "cross_entropy",
            num_classes=NUM_CLASSES,
            outputs=list(outputs),
            output_weights={"out": 1.0, "aux": 0.4, "boundary": 0.2, "edge": 2.0},
            output_targets={"edge": "boundary"},
        )
        target = torch.arange(2 * 32 * 48).reshape(2, 32, 48) // 7 % NUM_CLASSES
        report = criterion(outputs, target)
        report.total.backward()
        parts = report.parts
        expected = (
            parts["out/cross_entropy"]
            + 0.4 * parts["aux/cross_entropy"]
            + 0.2 * parts["boundary/bce"]
            + 2.0 * parts["edge/bce"]
        )
        assert report.total.item() == pytest.approx(expected.item())
        assert all(parameter.grad is not None for parameter in model.parameters())

    def test_align_corners_reaches_every_part(self) -> None:
        aux_heads = {"aux": {"name": "segformer", "channels": 8}}
        spec: dict[str, Any] = {
            "backbone": "hrnet_w18_small_v1",
            "head": "hrnetv2",
            "aux_heads": aux_heads,
        }
        for flag in (False, True):
            model = build(align_corners=flag, **spec)
            parts = [model, model.backbone, model.head, model.aux_heads["aux"]]
            assert {part.align_corners for part in parts} == {flag}
        assert build(**spec).align_corners is False

    def test_two_values_of_align_corners_in_one_process(self) -> None:
        head = {"name": "segformer", "channels": 8}
        first, second = (build(head=head, align_corners=flag).eval() for flag in (False, True))
        second.load_state_dict(first.state_dict())
        images = images_of(40, 72)
        with torch.no_grad():
            before, other, again = (model(images)["out"] for model in (first, second, first))
        assert torch.equal(before, again)
        assert not torch.allclose(before, other)

    def test_groups_and_prefixes(self) -> None:
        model = build(aux_heads={"aux": "fcn"})
        groups = model.parameter_groups()
        backbone = sum(parameter.numel() for parameter in model.backbone.parameters())
        assert sum(parameter.numel() for parameter in groups["backbone"]) == backbone
        names = [name for name, _ in model.named_parameters()]
        assert sum(name.startswith(model.backbone_prefix) for name in names) == len(
            groups["backbone"]
        )

    @pytest.mark.parametrize(
        ("backbone", "head", "stride"),
        [
            (RESNET, "fcn", 32),
            (RESNET, "aspp", float("inf")),
            ({"name": RESNET, "output_stride": 8}, "fcn", 8),
            ("timm/test_convnext", "segformer", 4),
            ("timm/test_convnext", "fcn", 32),
        ],
    )
    def test_norm_stride_is_the_coarsest(self, backbone: Any, head: str, stride: float) -> None:
        model = build(backbone=backbone, head=head)
        assert model.norm_stride == stride
        side = 96 if stride == float("inf") else int(stride)
        with pytest.raises(ValueError, match="batch norm cannot train on one value per channel"):
            model.train()(images_of(side, side, batch=1))

    def test_any_number_of_channels(self) -> None:
        model = build(in_channels=6).eval()
        with torch.no_grad():
            assert model(images_of(32, 32, channels=6))["out"].shape == (2, NUM_CLASSES, 1, 1)
        with pytest.raises(ValueError, match=r"\(N, 6, H, W\), got \(2, 3, 32, 32\)"):
            model(images_of(32, 32))

    def test_a_copy_is_the_same(self) -> None:
        model = build(head={"name": "upernet", "channels": 8}, aux_heads={"aux": "fcn"}).eval()
        twin = copy.deepcopy(model)
        with torch.no_grad():
            first, second = model(images_of(33, 33)), twin(images_of(33, 33))
        assert {key: torch.equal(first[key], second[key]) for key in first} == {
            "out": True,
            "aux": True,
        }

    @pytest.mark.parametrize(
        ("backbone", "checkpointing"),
        [
            (RESNET, True),
            (RESNET, False),
            ("timm/test_vit", True),
            pytest.param("hrnet_w18_small_v1", True, marks=pytest.mark.slow),
        ],
    )
    def test_activation_checkpointing_reaches_the_backbone(
        self, backbone: str, checkpointing: bool
    ) -> None:
        model = build(backbone=backbone, activation_checkpointing=checkpointing)
        assert getattr(model.backbone, "activation_checkpointing") is checkpointing  # noqa: B009
        total(model.train()(images_of(40, 40))).backward()
        count = model.state_dict().get("backbone.bn1.num_batches_tracked")
        assert count is None or count.item() == 1


class TestUnused:
    def test_unused_parameters_are_frozen(self) -> None:
        """The head reads the coarsest branch; the finer ones of the last module are unused."""
        model = build(backbone="hrnet_w18_small_v1", head="fcn")
        frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
        assert frozen
        assert all(name.startswith("backbone.stage4.0.fuse_layers.") for name in frozen)
        assert not any(".fuse_layers.3." in name for name in frozen)

    def test_nothing_is_frozen_if_all_features_are_used(self) -> None:
        model = build(backbone="hrnet_w18_small_v1", head="hrnetv2")
        assert all(parameter.requires_grad for parameter in model.parameters())

    def test_another_head_may_read_the_rest(self) -> None:
        aux_heads = {"aux": {"name": "hrnetv2"}}
        model = build(backbone="hrnet_w18_small_v1", head="fcn", aux_heads=aux_heads)
        assert all(parameter.requires_grad for parameter in model.parameters())


class TestLibrary:
    def test_by_name(self) -> None:
        model = segtrain.build_model(
            "encoder_decoder",
            num_classes=19,
            backbone="timm/test_convnext",
            head={"name": "upernet", "channels": 8},
        )
        assert model.eval()(images_of(33, 33))["out"].shape == (2, 19, 9, 9)

    def test_names_are_listed(self) -> None:
        assert {"aspp", "fcn", "hrnetv2", "ocr", "segformer", "upernet"} <= {*segtrain.list_heads()}
        assert segtrain.list_heads() == sorted(segtrain.list_heads())
        assert "hrnet_w48" in segtrain.list_backbones()
        assert "encoder_decoder" in segtrain.list_models()

    def test_custom_parts(self) -> None:
        class Halves(segtrain.Backbone):
            channels, strides = (4,), (2,)

            def __init__(self, **common: Any) -> None:
                super().__init__(**common)
                self.conv = nn.Conv2d(self.in_channels, 4, 3, stride=2, padding=1)

            def forward(self, images: Tensor) -> list[Tensor]:
                return [self.conv(images)]

        class Linear(segtrain.Head):
            def __init__(self, *, bias: bool = True, **common: Any) -> None:
                super().__init__(**common)
                self.classifier = nn.Conv2d(self.in_channels[-1], self.num_classes, 1, bias=bias)

            def forward(self, features: Any) -> dict[str, Tensor]:
                return {"out": self.classifier(features[-1])}

        registered = BACKBONES._factories, HEADS._factories
        before = [dict(factories) for factories in registered]
        try:
            segtrain.register_backbone("halves_of_a_test")(Halves)
            segtrain.register_head("linear_of_a_test")(Linear)
            model = build(
                backbone="halves_of_a_test", head={"name": "linear_of_a_test", "bias": False}
            )
            assert isinstance(model.backbone, Backbone)
            assert model(images_of(9, 9))["out"].shape == (2, NUM_CLASSES, 5, 5)
            with pytest.raises(
                ConfigError, match=r"backbone 'halves_of_a_test' does not support it"
            ):
                build(
                    backbone="halves_of_a_test",
                    head="linear_of_a_test",
                    activation_checkpointing=True,
                )
        finally:
            for factories, old in zip(registered, before, strict=True):
                factories.clear()
                factories.update(old)


class TestPresets:
    @pytest.mark.parametrize("name", [*PRESETS, "encoder_decoder"])
    def test_every_key_is_one_of_the_model(self, name: str) -> None:
        spec = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
        model_name, params = MODELS.check(spec, provided=("num_classes",))
        assert model_name == "encoder_decoder"
        own = MODELS.schema("encoder_decoder")
        keys = {"align_corners", "backbone", "head", "aux_heads", "activation_checkpointing"}
        if name == "encoder_decoder":  # of any backbone
            keys |= {"pyramid", "adapter"}
        assert set(params) == keys
        assert keys <= set(own)

    @pytest.mark.parametrize(
        "name", [PRESETS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in PRESETS[1:])]
    )
    def test_builds(self, name: str) -> None:
        spec = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
        with torch.device("meta"):
            model = MODELS.build(spec, num_classes=NUM_CLASSES).train()
            outputs = model(torch.zeros(2, 3, 64, 96))
        assert outputs["out"].shape == (2, NUM_CLASSES, 16, 24)
        assert set(outputs) == ({"out", "aux"} if name.startswith("upernet") else {"out"})

    def test_the_default_preset_has_the_models_own_defaults(self) -> None:
        spec = yaml.safe_load((CONFIGS / "encoder_decoder.yaml").read_text())
        schema = MODELS.schema(spec.pop("name"))
        assert spec == {key: schema[key].default for key in spec}


class TestMistakes:
    @pytest.mark.parametrize(
        ("params", "message"),
        [
            ({"head": "asp"}, "^model.head: unknown head 'asp'; did you mean 'aspp'"),
            ({"head": {"name": "aspp", "rate": [1]}}, "^model.head.rate: .*did you mean 'rates'"),
            ({"head": {"name": "aspp", "rates": [0]}}, "^model.head.rates must be one or more"),
            ({"head": {"name": "aspp", "rates": 3}}, "^model.head.rates must be a list"),
            ({"head": {"name": "fcn", "num_classes": 3}}, "^model.head.num_classes is not set"),
            ({"head": {"channels": 3}}, "^model.head.name is missing"),
            ({"backbone": "resnet18"}, "^model.backbone: unknown backbone 'resnet18'"),
            ({"backbone": "tim/x"}, "^model.backbone: unknown .*did you mean 'timm/x'"),
            (
                {"backbone": {"name": RESNET, "output_stride": 4}},
                "^model.backbone.output_stride must be 8 or 16 or 32, got 4",
            ),
            (
                {"backbone": {"name": RESNET, "in_channels": 4}},
                "^model.backbone.in_channels is not set here",
            ),
            ({"backbone": 3}, "^model.backbone must be a text or a mapping by name, got 3"),
            ({"aux_heads": {"out": "fcn"}}, "^model.aux_heads.out: the head already has .*'out'"),
            (
                {"head": {"name": "ocr", "ocr_channels": 8}, "aux_heads": {"aux": "fcn"}},
                "^model.aux_heads.aux: the head already has an output 'aux'",
            ),
            ({"aux_heads": {"keys": "fcn"}}, "^model.aux_heads.keys: the name of an output"),
            ({"aux_heads": {"a.b": "fcn"}}, "^model.aux_heads.a.b: the name of an output"),
            ({"aux_heads": {"aux": "fnc"}}, "^model.aux_heads.aux: unknown head 'fnc'"),
            ({"aux_heads": {"aux": {"stage": 1}}}, "^model.aux_heads.aux.name is missing"),
            (
                {"aux_heads": {"aux": {"name": "fcn", "stage": 4}}},
                "^model.aux_heads.aux.stage must be a stage of the backbone, 0 to 3, .*, got 4",
            ),
            (
                {"aux_heads": {"aux": {"name": "fcn", "stage": True}}},
                "^model.aux_heads.aux.stage must be a stage of the backbone, 0 to 3, .*, got True",
            ),
            (
                {"aux_heads": {"aux": {"name": "fcn", "stag": 1}}},
                "^model.aux_heads.aux.stag: .*; did you mean 'stage'",
            ),
            (
                {"aux_heads": {"aux": {"name": "fcn", "strides": [4]}}},
                "^model.aux_heads.aux.strides: .* has no key 'strides'",
            ),
            (
                {"aux_heads": {"aux": {"name": "fcn", "num_classes": 0}}},
                "^model.aux_heads.aux.num_classes must be at least 1, got 0",
            ),
            (
                {"aux_heads": {"aux": {"name": "fcn", "num_classes": "1"}}},
                "^model.aux_heads.aux.num_classes must be a whole number, got '1'",
            ),
            (
                {"aux_heads": {"aux": {"name": "fcn", "dropout": 2}}},
                "^model.aux_heads.aux.dropout must be at least 0 and below 1",
            ),
            ({"aux_heads": ["fcn"]}, "^model.aux_heads must be a mapping"),
            ({"backbon": RESNET}, "^model.backbon: .*did you mean 'backbone'"),
        ],
    )
    def test_one_sentence_with_the_key(self, params: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message) as raised:
            build(**params)
        assert "\n" not in str(raised.value)

    def test_a_head_with_an_undeclared_output(self) -> None:
        model = build(aux_heads={"aux": "fcn"}).eval()
        both = {"out": torch.zeros(1), "aux": torch.zeros(1)}
        model.head.forward = lambda features: both  # type: ignore[method-assign, assignment]
        with pytest.raises(ValueError, match="two heads return an output 'aux'"):
            model(images_of(32, 32))
