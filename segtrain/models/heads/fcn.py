"""The head of a fully convolutional network, commonly used as auxiliary head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.models.heads.base import Head, check_widths
from segtrain.models.heads.registry import HEADS
from segtrain.models.layers.init import init_classifier, init_layers


@HEADS.register("fcn")
class FCNHead(Head):
    """3x3 convolution, batch norm, ReLU and 1x1 classifier on the last feature map.

    Args:
        channels: Number of channels of the 3x3 convolution; None means a quarter of its input.
        **common: As in :class:`~segtrain.models.heads.Head`.

    Shape:
        - features: ``(N, in_channels[i], h_i, w_i)`` each.
        - output: ``(N, num_classes, h_last, w_last)`` under ``"out"``.

    Raises:
        ConfigError: If `channels` is below 1.

    Example:
        >>> import torch
        >>> head = FCNHead(in_channels=(8, 16), strides=(4, 8), num_classes=3)
        >>> head([torch.zeros(2, 8, 8, 6), torch.zeros(2, 16, 4, 3)])["out"].shape
        torch.Size([2, 3, 4, 3])

    References:
        Long, Shelhamer and Darrell, *Fully Convolutional Networks for Semantic Segmentation*, CVPR
        2015, https://arxiv.org/abs/1411.4038; these layers are torchvision's ``FCNHead``.
    """

    def __init__(self, *, channels: int | None = None, **common: Any) -> None:
        super().__init__(**common)
        width = max(self.in_channels[-1] // 4, 1) if channels is None else channels
        check_widths(channels=width)
        self.norm_stride = self.strides[-1]
        self.mix = nn.Conv2d(self.in_channels[-1], width, kernel_size=3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.classifier = nn.Conv2d(width, self.num_classes, kernel_size=1)
        init_layers(self)
        init_classifier(self.classifier)

    def forward(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return logits at the resolution of the last feature map."""
        hidden = self.relu(self.norm(self.mix(features[-1])))
        return {"out": self.classifier(F.dropout2d(hidden, self.dropout, self.training))}
