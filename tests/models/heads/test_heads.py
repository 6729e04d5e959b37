"""The heads: against second implementations, and what every one of them promises."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.errors import ConfigError
from segtrain.models.heads import HEADS, Head
from segtrain.models.heads.aspp import ASPPHead
from segtrain.models.heads.segformer import SegFormerHead
from segtrain.models.heads.upernet import UPerNetHead

NUM_CLASSES = 5
SMALL: dict[str, dict[str, Any]] = {
    "aspp": {"channels": 8, "low_level_channels": 4},
    "fcn": {"channels": 8},
    "ocr": {"ocr_channels": 16, "key_channels": 8},
    "segformer": {"channels": 8},
    "upernet": {"channels": 8},
}
PYRAMID = ((8, 12, 16, 20), (4, 8, 16, 32))
SHAPES = {
    "pyramid": PYRAMID,
    "two stages": ((6, 10), (4, 8)),
    "one stage": ((6,), (16,)),
    "one stride": ((8, 8, 8, 8), (16, 16, 16, 16)),
    "dilated": ((8, 12, 16, 20), (4, 8, 8, 8)),
}


def build(
    name: str, channels: tuple[int, ...] = PYRAMID[0], strides: tuple[int, ...] = PYRAMID[1]
) -> Head:
    spec = {"name": name, **SMALL.get(name, {})}
    return HEADS.build(spec, in_channels=channels, strides=strides, num_classes=NUM_CLASSES)


def features_for(
    channels: tuple[int, ...],
    strides: tuple[int, ...],
    *,
    size: tuple[int, int] = (75, 117),
    batch: int = 2,
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, width, *(math.ceil(side / stride) for side in size), generator=generator)
        for width, stride in zip(channels, strides, strict=True)
    ]


class TestEvery:
    @pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
    @pytest.mark.parametrize("name", HEADS.names())
    def test_shapes_and_gradients(
        self, name: str, shape: tuple[tuple[int, ...], tuple[int, ...]]
    ) -> None:
        channels, strides = shape
        head = build(name, channels, strides).train()
        features = features_for(channels, strides)
        outputs = head(features)
        assert set(outputs) == set(head.output_names)
        finest = features[-1] if name == "fcn" else features[0]
        for logits in outputs.values():
            assert logits.shape == (2, NUM_CLASSES, *finest.shape[-2:])
        sum(logits.square().mean() for logits in outputs.values()).backward()
        for key, parameter in head.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key

    @pytest.mark.parametrize("name", HEADS.names())
    def test_one_pixel(self, name: str) -> None:
        head = build(name).eval()
        with torch.no_grad():
            outputs = head(features_for(*PYRAMID, size=(1, 1), batch=1))
        assert outputs["out"].shape == (1, NUM_CLASSES, 1, 1)
        assert outputs["out"].isfinite().all()

    @pytest.mark.parametrize("name", HEADS.names())
    def test_channels_last_stays(self, name: str) -> None:
        head = build(name).to(memory_format=torch.channels_last).train()
        plain = features_for(*PYRAMID)
        last = [feature.contiguous(memory_format=torch.channels_last) for feature in plain]
        for feature in last:
            feature.requires_grad_()
        seen: list[tuple[str, Tensor]] = []
        for key, layer in head.named_modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_pre_hook(lambda _, x, key=key: seen.append((key, x[0])))
        outputs = head(last)
        torch.stack([logits.square().mean() for logits in outputs.values()]).sum().backward()
        assert seen
        for key, given in seen:
            assert given.is_contiguous(memory_format=torch.channels_last), key

    @pytest.mark.parametrize("name", sorted(set(HEADS.names()) - {"fcn"}))  # it resizes nothing
    def test_align_corners_is_used(self, name: str) -> None:
        first, second = build(name).eval(), build(name).eval()
        second.load_state_dict(first.state_dict())
        second.align_corners = True
        features = features_for(*PYRAMID)
        with torch.no_grad():
            assert not torch.allclose(first(features)["out"], second(features)["out"])

    @pytest.mark.parametrize("name", HEADS.names())
    def test_dropout_acts_in_training_only(self, name: str) -> None:
        common: dict[str, Any] = {
            "in_channels": PYRAMID[0],
            "strides": PYRAMID[1],
            "num_classes": NUM_CLASSES,
        }
        spec = {"name": name, **SMALL.get(name, {})}
        head = HEADS.build({**spec, "dropout": 0.9}, **common)
        plain = HEADS.build({**spec, "dropout": 0.0}, **common)
        plain.load_state_dict(head.state_dict())
        features = features_for(*PYRAMID)
        with torch.no_grad():
            assert torch.equal(head.eval()(features)["out"], plain.eval()(features)["out"])
            assert not torch.allclose(head.train()(features)["out"], plain.train()(features)["out"])

    @pytest.mark.parametrize("name", HEADS.names())
    def test_norm_stride_is_where_training_on_one_image_fails(self, name: str) -> None:
        head = build(name).train()
        assert head.norm_stride is not None
        if math.isinf(head.norm_stride):
            with pytest.raises(ValueError, match="more than 1 value per channel"):
                head(features_for(*PYRAMID, size=(160, 160), batch=1))
            return
        side = int(head.norm_stride)
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            head(features_for(*PYRAMID, size=(side, side), batch=1))
        head(features_for(*PYRAMID, size=(side + 1, side), batch=1))

    @pytest.mark.parametrize("name", HEADS.names())
    def test_compiles_without_breaks(self, name: str) -> None:
        head = build(name).eval()
        features = features_for(*PYRAMID, size=(33, 64))
        with torch.no_grad():
            compiled = torch.compile(head, fullgraph=True, backend="eager")(features)
            plain = head(features)
        for key in plain:
            assert torch.equal(compiled[key], plain[key])


def randomised(module: nn.Module) -> nn.Module:
    """`module` in evaluation mode, with statistics of batch norm that matter."""
    generator = torch.Generator().manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.normal_(generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(layer.weight, 0.5, 2, generator=generator)
            nn.init.normal_(layer.bias, generator=generator)
    return module.double().eval()


def doubles(size: tuple[int, int] = (75, 117)) -> list[Tensor]:
    return [feature.double() for feature in features_for(*PYRAMID, size=size)]


def copy_layers(source: nn.Module, target: nn.Module) -> None:
    """Copies weights by order: the same layers under other names."""
    values = list(source.state_dict().values())
    names = list(target.state_dict())
    assert len(values) == len(names)
    target.load_state_dict(dict(zip(names, values, strict=True)))


class TestASPP:
    def test_the_pyramid_is_torchvisions(self) -> None:
        from torchvision.models.segmentation.deeplabv3 import ASPP

        head = ASPPHead(
            in_channels=PYRAMID[0],
            strides=PYRAMID[1],
            num_classes=3,
            channels=8,
            rates=[2, 3, 5],
            separable=False,
        )
        randomised(head)
        theirs = ASPP(PYRAMID[0][-1], [2, 3, 5], 8)
        ours = nn.ModuleList([head.pyramid, head.image, head.mix])
        copy_layers(ours, theirs)
        theirs.double().eval()
        last = doubles()[-1]
        with torch.no_grad():
            assert torch.allclose(head._context(last), theirs(last), rtol=0, atol=1e-12)

    def test_the_decoder_by_hand(self) -> None:
        head = ASPPHead(
            in_channels=PYRAMID[0], strides=PYRAMID[1], num_classes=3, channels=8, separable=False
        )
        randomised(head)
        features = doubles()
        with torch.no_grad():
            low = head.low_level(features[0])
            context = F.interpolate(head._context(features[-1]), low.shape[-2:], mode="bilinear")
            hidden = torch.cat([context, low], dim=1)
            for conv, norm, _ in (head.decoder[0], head.decoder[1]):
                hidden = F.conv2d(hidden, conv.weight, padding=1)
                mean, var = (x[:, None, None] for x in (norm.running_mean, norm.running_var))
                scale, shift = (x[:, None, None] for x in (norm.weight, norm.bias))
                hidden = ((hidden - mean) / (var + norm.eps).sqrt() * scale + shift).clamp(min=0)
            expected = F.conv2d(hidden, head.classifier.weight, head.classifier.bias)
            assert torch.allclose(head(features)["out"], expected, rtol=0, atol=1e-12)

    def test_separable_layers_are_depthwise_then_pointwise(self) -> None:
        head = ASPPHead(in_channels=(8, 16), strides=(4, 16), num_classes=3, channels=8)
        depthwise, pointwise = head.pyramid[2][0], head.pyramid[2][1]
        assert (depthwise.groups, depthwise.dilation, depthwise.padding) == (16, (12, 12), (12, 12))
        assert tuple(depthwise.weight.shape) == (16, 1, 3, 3)
        assert tuple(pointwise.weight.shape) == (8, 16, 1, 1)

    @pytest.mark.parametrize(
        ("stride", "rates"),
        [(8, (12, 24, 36)), (16, (6, 12, 18)), (32, (3, 6, 9)), (512, (1,) * 3)],
    )
    def test_rates_follow_the_stride(self, stride: int, rates: tuple[int, ...]) -> None:
        head = ASPPHead(in_channels=(4,), strides=(stride,), num_classes=2, channels=4)
        assert head.rates == rates

    def test_low_level_stage_sets_the_resolution(self) -> None:
        head = ASPPHead(
            in_channels=PYRAMID[0], strides=PYRAMID[1], num_classes=2, channels=4, low_level_stage=1
        )
        features = features_for(*PYRAMID)
        assert head(features)["out"].shape[-2:] == features[1].shape[-2:]


class TestUPerNet:
    def test_smp_computes_the_same(self) -> None:
        pytest.importorskip("segmentation_models_pytorch")
        from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder

        head = UPerNetHead(in_channels=PYRAMID[0], strides=PYRAMID[1], num_classes=3, channels=8)
        randomised(head)
        theirs = UPerNetDecoder((3, 4, *PYRAMID[0]), decoder_channels=8)
        theirs.feature_norms = nn.ModuleList(nn.Identity() for _ in PYRAMID[0])  # theirs alone
        ours = nn.ModuleList(
            [
                head.pools,
                head.top,
                nn.ModuleList(reversed(list(head.laterals))),
                nn.ModuleList(reversed(list(head.smooth))),
                head.fuse,
            ]
        )
        copy_layers(ours, theirs)
        theirs.double().eval()
        features = doubles((64, 96))
        with torch.no_grad():
            expected = head.classifier(theirs([features[0], features[0], *features]))
            assert torch.allclose(head(features)["out"], expected, rtol=0, atol=1e-12)

    def test_without_a_single_cell_one_image_can_train(self) -> None:
        head = UPerNetHead(
            in_channels=PYRAMID[0],
            strides=PYRAMID[1],
            num_classes=3,
            channels=4,
            pool_scales=(2, 3),
        )
        assert head.norm_stride == 32
        head.train()(features_for(*PYRAMID, batch=1))


class TestSegFormer:
    def test_smp_computes_the_same(self) -> None:
        pytest.importorskip("segmentation_models_pytorch")
        from segmentation_models_pytorch.decoders.segformer.decoder import SegformerDecoder

        head = SegFormerHead(in_channels=PYRAMID[0], strides=PYRAMID[1], num_classes=3, channels=8)
        randomised(head)
        theirs = SegformerDecoder([3, 0, *PYRAMID[0]], segmentation_channels=8)
        with torch.no_grad():
            for ours, layer in zip(reversed(list(head.project)), theirs.mlp_stage, strict=True):
                layer.linear.weight.copy_(ours.weight[:, :, 0, 0])
                layer.linear.bias.copy_(ours.bias)
            copy_layers(head.mix, theirs.fuse_stage)
            weight = theirs.fuse_stage[0].weight  # theirs is for the coarsest first
            weight.copy_(weight.unflatten(1, (4, 8)).flip(1).flatten(1, 2).clone())
            theirs.double().eval()
            features = doubles((64, 96))
            images, none = torch.zeros(2, 3, 64, 96).double(), torch.zeros(2, 0, 32, 48).double()
            expected = head.classifier(theirs([images, none, *features]))
            assert torch.allclose(head(features)["out"], expected, rtol=0, atol=1e-12)


class TestMistakes:
    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ("asp", "unknown head 'asp'; did you mean 'aspp'"),
            ({"name": "aspp", "rates": [0, 1]}, "head.rates must be one or more whole numbers"),
            ({"name": "aspp", "rates": []}, "head.rates must be one or more whole numbers"),
            ({"name": "aspp", "channels": 0}, "head.channels must be at least 1, got 0"),
            (
                {"name": "aspp", "low_level_channels": 0},
                "head.low_level_channels must be at least 1, got 0",
            ),
            (
                {"name": "aspp", "low_level_stage": 4},
                "head.low_level_stage must be 0 to 3, or negative .*, got 4",
            ),
            ({"name": "upernet", "pool_scales": [0]}, "head.pool_scales must be one or more"),
            ({"name": "upernet", "channels": -1}, "head.channels must be at least 1, got -1"),
            ({"name": "segformer", "channels": 0}, "head.channels must be at least 1, got 0"),
            ({"name": "fcn", "channels": 0}, "head.channels must be at least 1, got 0"),
            ({"name": "fcn", "dropout": 1.0}, "head.dropout must be at least 0 and below 1"),
            ({"name": "fcn", "chanels": 8}, "no parameter 'chanels'; did you mean 'channels'"),
        ],
    )
    def test_one_sentence(self, spec: Any, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            HEADS.build(spec, in_channels=PYRAMID[0], strides=PYRAMID[1], num_classes=3)

    def test_a_head_without_forward_says_so(self) -> None:
        with pytest.raises(NotImplementedError, match="forward"):
            Head(in_channels=(1,), strides=(1,), num_classes=1)([])
