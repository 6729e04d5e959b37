"""The all-MLP head of SegFormer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.models.heads.base import Head, check_widths
from segtrain.models.heads.registry import HEADS
from segtrain.models.layers.convolutions import conv_norm_relu
from segtrain.models.layers.init import init_classifier, init_layers
from segtrain.models.layers.resize import concatenate


@HEADS.register("segformer")
class SegFormerHead(Head):
    """Project all feature maps to the same width, concatenate and mix them at the finest size.

    All layers are linear maps of single pixels, implemented as 1x1 convolutions.

    Args:
        channels: Number of channels of every layer; the paper uses 256 for its two smallest models
            and 768 for the others.
        **common: As in :class:`~segtrain.models.heads.Head`.

    Shape:
        - features: ``(N, in_channels[i], h_i, w_i)`` each, the finest first, of any size.
        - output: ``(N, num_classes, h_0, w_0)`` under ``"out"``.

    Raises:
        ConfigError: If `channels` is below 1.

    Example:
        >>> import torch
        >>> head = SegFormerHead(in_channels=(8, 16), strides=(4, 8), num_classes=3)
        >>> head([torch.zeros(2, 8, 8, 6), torch.zeros(2, 16, 4, 3)])["out"].shape
        torch.Size([2, 3, 8, 6])

    References:
        Xie, Wang, Yu, Anandkumar, Alvarez and Luo, *SegFormer: Simple and Efficient Design for
        Semantic Segmentation with Transformers*, NeurIPS 2021, section 3.2,
        https://arxiv.org/abs/2105.15203. As in the code of the paper, batch norm and ReLU
        follow the mixing layer; its dropout is 0.1. It concatenates the finest map last, here it is
        first.
    """

    def __init__(self, *, channels: int = 256, **common: Any) -> None:
        super().__init__(**common)
        check_widths(channels=channels)
        self.norm_stride = self.strides[0]
        self.project = nn.ModuleList(
            nn.Conv2d(width, channels, kernel_size=1) for width in self.in_channels
        )
        self.mix = conv_norm_relu(len(self.in_channels) * channels, channels)
        self.classifier = nn.Conv2d(channels, self.num_classes, kernel_size=1)
        init_layers(self)
        init_classifier(self.classifier)

    def forward(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return logits at the resolution of the first feature map."""
        projected = [layer(level) for layer, level in zip(self.project, features, strict=True)]
        hidden = self.mix(concatenate(projected, align_corners=self.align_corners))
        return {"out": self.classifier(F.dropout2d(hidden, self.dropout, self.training))}
