"""The head of UPerNet, against SMP."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segtrain.models.heads.upernet import UPerNetHead
from tests.models.heads.helpers import (
    PYRAMID,
    copy_layers,
    doubles,
    features_for,
    randomised,
)


def test_smp_computes_the_same() -> None:
    pytest.importorskip("segmentation_models_pytorch")
    from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder

    head = UPerNetHead(in_channels=PYRAMID[0], strides=PYRAMID[1], num_classes=3, channels=8)
    randomised(head)
    theirs = UPerNetDecoder((3, 4, *PYRAMID[0]), decoder_channels=8)
    theirs.feature_norms = nn.ModuleList(nn.Identity() for _ in PYRAMID[0])  # only in SMP
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


def test_without_a_single_cell_one_image_can_train() -> None:
    head = UPerNetHead(
        in_channels=PYRAMID[0],
        strides=PYRAMID[1],
        num_classes=3,
        channels=4,
        pool_scales=(2, 3),
    )
    assert head.norm_stride == 32
    head.train()(features_for(*PYRAMID, batch=1))
