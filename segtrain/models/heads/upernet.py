"""The head of UPerNet: a feature pyramid with pyramid pooling at its top."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.errors import ConfigError
from segtrain.models.heads.base import Head, check_widths
from segtrain.models.heads.registry import HEADS
from segtrain.models.layers.convolutions import conv_norm_relu
from segtrain.models.layers.init import init_classifier, init_layers
from segtrain.models.layers.resize import concatenate, resize_as, spread_as


@HEADS.register("upernet")
class UPerNetHead(Head):
    """Pyramid pooling of the last feature map, a feature pyramid down to the first, and a fusion.

    Args:
        channels: Number of channels of every layer.
        pool_scales: Sides, in cells, of the grids to which the last feature map is average-pooled.
        **common: As in :class:`~segtrain.models.heads.Head`.

    Shape:
        - features: ``(N, in_channels[i], h_i, w_i)`` each, the finest first, of any size. A grid
          of a single cell requires at least 2 images to train, because batch norm follows it.
        - output: ``(N, num_classes, h_0, w_0)`` under ``"out"``.

    Raises:
        ConfigError: If `channels` or a scale is below 1.

    Example:
        >>> head = UPerNetHead(in_channels=(8, 16), strides=(4, 8), num_classes=3, channels=32)
        >>> head([torch.zeros(2, 8, 8, 6), torch.zeros(2, 16, 4, 3)])["out"].shape
        torch.Size([2, 3, 8, 6])

    References:
        Xiao, Liu, Zhou, Jiang and Sun, *Unified Perceptual Parsing for Scene Understanding*, ECCV
        2018, https://arxiv.org/abs/1807.10221. The paper also has heads for scenes, parts,
        materials and textures; this is the one for objects. The pooling is that of Zhao et al.,
        *Pyramid Scene Parsing Network*, CVPR 2017, https://arxiv.org/abs/1612.01105.
    """

    def __init__(
        self, *, channels: int = 512, pool_scales: Sequence[int] = (1, 2, 3, 6), **common: Any
    ) -> None:
        super().__init__(**common)
        check_widths(channels=channels)
        if not pool_scales or min(pool_scales) < 1:
            raise ConfigError(
                f"pool_scales must be one or more whole numbers above 0, got {list(pool_scales)}"
            )
        self.pool_scales = tuple(pool_scales)
        self.norm_stride = math.inf if 1 in self.pool_scales else self.strides[-1]
        *finer, last = self.in_channels
        self.pools = nn.ModuleList(conv_norm_relu(last, channels) for _ in self.pool_scales)
        self.top = conv_norm_relu(last + len(self.pools) * channels, channels, kernel_size=3)
        self.laterals = nn.ModuleList(conv_norm_relu(width, channels) for width in finer)
        self.smooth = nn.ModuleList(
            conv_norm_relu(channels, channels, kernel_size=3) for _ in finer
        )
        self.fuse = conv_norm_relu(len(self.in_channels) * channels, channels, kernel_size=3)
        self.classifier = nn.Conv2d(channels, self.num_classes, kernel_size=1)
        init_layers(self)
        init_classifier(self.classifier)

    def forward(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return logits at the resolution of the first feature map."""
        pyramid = self._pyramid(features)
        smoothed = [layer(level) for layer, level in zip(self.smooth, pyramid[:-1], strict=True)]
        levels = concatenate([*smoothed, pyramid[-1]], align_corners=self.align_corners)
        hidden = F.dropout2d(self.fuse(levels), self.dropout, self.training)
        return {"out": self.classifier(hidden)}

    def _pyramid(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Levels of the feature pyramid, each the sum of its projection and the coarser level."""
        levels = [self._pooled(features[-1])]
        finer = zip(self.laterals, features[:-1], strict=True)
        for layer, feature in reversed(list(finer)):
            level = layer(feature)
            levels.append(level + resize_as(levels[-1], level, align_corners=self.align_corners))
        return levels[::-1]

    def _pooled(self, features: Tensor) -> Tensor:
        pooled = []
        for scale, layer in zip(self.pool_scales, self.pools, strict=True):
            cells = layer(F.adaptive_avg_pool2d(features, scale))
            if scale == 1:
                pooled.append(spread_as(cells, features))
            else:
                pooled.append(resize_as(cells, features, align_corners=self.align_corners))
        top: Tensor = self.top(torch.cat([features, *pooled], dim=1))
        return top
