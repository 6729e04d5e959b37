"""The simple feature pyramid, for backbones whose feature maps all have one stride."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

_FINEST = 4  # stride that the finest level should have
_LEVELS = 4
_EPSILON = 1e-6
Stride = int | float


class SimpleFeaturePyramid(nn.Module):
    """Four feature maps at strides 4, 8, 16 and 32, from the last map of a plain backbone.

    Each level resizes the map by a power of two: transposed convolutions of stride 2, nothing, or
    max pooling. A 1x1 and a 3x3 convolution follow, each with layer norm over the channels. If the
    stride of the backbone is no power of two, neither are those of the levels: 3.5, 7, 14 and 28
    for patches of 14 pixels.

    Args:
        in_channels: Number of channels of the map.
        stride: Stride of the map.
        channels: Number of channels of each level.

    Attributes:
        channels: Number of channels of each level, the finest first.
        strides: Stride of each level.

    Shape:
        - features: ``(N, in_channels, h, w)``.
        - output: one ``(N, channels, h * stride / strides[i], w * stride / strides[i])`` per level;
          max pooling rounds down.

    Example:
        >>> import torch
        >>> pyramid = SimpleFeaturePyramid(in_channels=64, stride=16, channels=32)
        >>> [tuple(level.shape) for level in pyramid(torch.zeros(1, 64, 2, 6))]
        [(1, 32, 8, 24), (1, 32, 4, 12), (1, 32, 2, 6), (1, 32, 1, 3)]

    References:
        Li, Mao, Girshick and He, *Exploring Plain Vision Transformer Backbones for Object
        Detection*, ECCV 2022, https://arxiv.org/abs/2203.16527.
    """

    def __init__(self, *, in_channels: int, stride: int, channels: int = 256) -> None:
        super().__init__()
        doublings = pyramid_doublings(stride)
        self.channels = (channels,) * len(doublings)
        self.strides = tuple(_whole(stride / 2.0**count) for count in doublings)
        self.levels = nn.ModuleList(_level(in_channels, channels, count) for count in doublings)

    def forward(self, features: Tensor) -> list[Tensor]:
        """Return the levels, the finest first; see the class for shapes."""
        return [level(features) for level in self.levels]


def pyramid_doublings(stride: int) -> tuple[int, ...]:
    """How often each level doubles the size of a map of `stride`; negative: how often it halves it.

    Example:
        >>> pyramid_doublings(16), pyramid_doublings(8), pyramid_doublings(14)
        ((2, 1, 0, -1), (1, 0, -1, -2), (2, 1, 0, -1))
    """
    finest = round(math.log2(stride / _FINEST))
    return tuple(finest - level for level in range(_LEVELS))


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each position of ``(N, C, H, W)``."""

    def forward(self, features: Tensor) -> Tensor:
        last = features.permute(0, 2, 3, 1)
        normed = F.layer_norm(last, self.normalized_shape, self.weight, self.bias, self.eps)
        return normed.permute(0, 3, 1, 2)


def _level(in_channels: int, channels: int, doublings: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = in_channels
    for index in range(doublings):
        if index:
            layers += [ChannelNorm(width, eps=_EPSILON), nn.GELU()]
        layers.append(nn.ConvTranspose2d(width, width // 2, kernel_size=2, stride=2))
        width //= 2
    if doublings < 0:
        layers.append(nn.MaxPool2d(2**-doublings))
    for inputs, kernel_size in ((width, 1), (channels, 3)):
        conv = nn.Conv2d(inputs, channels, kernel_size, padding=kernel_size // 2, bias=False)
        layers += [conv, ChannelNorm(channels, eps=_EPSILON)]
    return nn.Sequential(*layers)


def _whole(stride: float) -> Stride:
    return int(stride) if stride.is_integer() else stride
