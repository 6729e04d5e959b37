"""The head of DeepLabV3+, against torchvision and by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segtrain.models.heads.aspp import ASPPHead
from tests.models.heads.helpers import (
    PYRAMID,
    copy_layers,
    doubles,
    features_for,
    randomised,
)


def test_the_pyramid_is_torchvisions() -> None:
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


def test_the_decoder_by_hand() -> None:
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


def test_separable_layers_are_depthwise_then_pointwise() -> None:
    head = ASPPHead(in_channels=(8, 16), strides=(4, 16), num_classes=3, channels=8)
    depthwise, pointwise = head.pyramid[2][0], head.pyramid[2][1]
    assert (depthwise.groups, depthwise.dilation, depthwise.padding) == (16, (12, 12), (12, 12))
    assert tuple(depthwise.weight.shape) == (16, 1, 3, 3)
    assert tuple(pointwise.weight.shape) == (8, 16, 1, 1)


@pytest.mark.parametrize(
    ("stride", "rates"),
    [(8, (12, 24, 36)), (16, (6, 12, 18)), (32, (3, 6, 9)), (512, (1,) * 3)],
)
def test_rates_follow_the_stride(stride: int, rates: tuple[int, ...]) -> None:
    head = ASPPHead(in_channels=(4,), strides=(stride,), num_classes=2, channels=4)
    assert head.rates == rates


def test_low_level_stage_sets_the_resolution() -> None:
    head = ASPPHead(
        in_channels=PYRAMID[0], strides=PYRAMID[1], num_classes=2, channels=4, low_level_stage=1
    )
    features = features_for(*PYRAMID)
    assert head(features)["out"].shape[-2:] == features[1].shape[-2:]
