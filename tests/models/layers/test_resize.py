"""Concatenation of feature maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from segtrain.models.layers.resize import concatenate


def test_concatenation_resizes_to_the_first_branch() -> None:
    branches = [torch.randn(2, 3, 8, 6), torch.randn(2, 5, 4, 3)]
    features = concatenate(branches, align_corners=True)
    assert torch.equal(features[:, :3], branches[0])
    expected = F.interpolate(branches[1], size=(8, 6), mode="bilinear", align_corners=True)
    assert torch.equal(features[:, 3:], expected)
