"""The head of SegFormer, against SMP."""

from __future__ import annotations

import pytest
import torch

from segtrain.models.heads.segformer import SegFormerHead
from tests.models.heads.helpers import (
    PYRAMID,
    copy_layers,
    doubles,
    randomised,
)


def test_smp_computes_the_same() -> None:
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
        weight = theirs.fuse_stage[0].weight  # SMP concatenates the coarsest first
        weight.copy_(weight.unflatten(1, (4, 8)).flip(1).flatten(1, 2).clone())
        theirs.double().eval()
        features = doubles((64, 96))
        images, none = torch.zeros(2, 3, 64, 96).double(), torch.zeros(2, 0, 32, 48).double()
        expected = head.classifier(theirs([images, none, *features]))
        assert torch.allclose(head(features)["out"], expected, rtol=0, atol=1e-12)
