"""The contract of every head."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.errors import ConfigError
from segtrain.models.heads import HEADS, Head
from tests.models.heads.helpers import (
    NUM_CLASSES,
    PYRAMID,
    SHAPES,
    SMALL,
    STAGE_OF,
    build,
    features_for,
)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", HEADS.names())
def test_shapes_and_gradients(name: str, shape: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    channels, strides = shape
    head = build(name, channels, strides).train()
    features = features_for(channels, strides)
    outputs = head(features)
    assert set(outputs) == set(head.output_names)
    stages = [features[STAGE_OF[name]]] if name in STAGE_OF else features
    for logits in outputs.values():
        assert logits.shape[:2] == (2, NUM_CLASSES)
        assert logits.shape[-2:] in {stage.shape[-2:] for stage in stages}
    sum(logits.square().mean() for logits in outputs.values()).backward()
    for key, parameter in head.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", HEADS.names())
def test_one_pixel(name: str) -> None:
    head = build(name).eval()
    with torch.no_grad():
        outputs = head(features_for(*PYRAMID, size=(1, 1), batch=1))
    assert outputs["out"].shape == (1, NUM_CLASSES, 1, 1)
    assert outputs["out"].isfinite().all()


@pytest.mark.parametrize("name", HEADS.names())
def test_channels_last_stays(name: str) -> None:
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


@pytest.mark.parametrize("name", HEADS.names())
def test_align_corners_is_used_by_a_head_that_resizes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resizes: list[Any] = []

    def interpolate(*args: Any, **kwargs: Any) -> Tensor:
        resizes.append(kwargs)
        return resize(*args, **kwargs)

    resize = F.interpolate
    monkeypatch.setattr(F, "interpolate", interpolate)
    first, second = build(name).eval(), build(name).eval()
    second.load_state_dict(first.state_dict())
    second.align_corners = True
    features = features_for(*PYRAMID)
    with torch.no_grad():
        same = torch.allclose(first(features)["out"], second(features)["out"])
    assert same == (not resizes)
    assert resizes or name not in STAGE_OF or name == "fcn"


@pytest.mark.parametrize("name", HEADS.names())
def test_dropout_acts_in_training_only(name: str) -> None:
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
def test_norm_stride_is_where_training_on_one_image_fails(name: str) -> None:
    head = build(name).train()
    if head.norm_stride is None:
        head(features_for(*PYRAMID, size=(1, 1), batch=1))
        return
    if math.isinf(head.norm_stride):
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            head(features_for(*PYRAMID, size=(160, 160), batch=1))
        return
    side = int(head.norm_stride)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        head(features_for(*PYRAMID, size=(side, side), batch=1))
    head(features_for(*PYRAMID, size=(side + 1, side), batch=1))


@pytest.mark.parametrize("name", HEADS.names())
def test_compiles_without_breaks(name: str) -> None:
    head = build(name).eval()
    features = features_for(*PYRAMID, size=(33, 64))
    with torch.no_grad():
        compiled = torch.compile(head, fullgraph=True, backend="eager")(features)
        plain = head(features)
    for key in plain:
        assert torch.equal(compiled[key], plain[key])


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
def test_mistakes_are_reported_with_their_key(spec: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HEADS.build(spec, in_channels=PYRAMID[0], strides=PYRAMID[1], num_classes=3)


def test_a_head_without_forward_raises() -> None:
    with pytest.raises(NotImplementedError, match="forward"):
        Head(in_channels=(1,), strides=(1,), num_classes=1)([])
