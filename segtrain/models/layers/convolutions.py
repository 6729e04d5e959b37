"""The convolution blocks of the heads."""

from __future__ import annotations

from torch import nn


def conv_norm_relu(
    in_channels: int, out_channels: int, *, kernel_size: int = 1, rate: int = 1
) -> nn.Sequential:
    """Convolution without bias that preserves height and width, batch norm and ReLU.

    Example:
        >>> import torch
        >>> layer = conv_norm_relu(4, 6, kernel_size=3, rate=12)
        >>> layer(torch.zeros(2, 4, 5, 7)).shape
        torch.Size([2, 6, 5, 7])
    """
    return nn.Sequential(
        _conv(in_channels, out_channels, kernel_size, rate),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def separable_norm_relu(in_channels: int, out_channels: int, *, rate: int = 1) -> nn.Sequential:
    """3x3 depthwise convolution, 1x1 convolution, batch norm and ReLU.

    Example:
        >>> layer = separable_norm_relu(8, 16)
        >>> sum(weight.numel() for weight in layer.parameters())  # 8 * 9 + 8 * 16 + 2 * 16
        232
    """
    return nn.Sequential(
        _conv(in_channels, in_channels, 3, rate, groups=in_channels),
        _conv(in_channels, out_channels, 1),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def _conv(
    in_channels: int, out_channels: int, kernel_size: int, rate: int = 1, *, groups: int = 1
) -> nn.Conv2d:
    return nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        padding=rate * (kernel_size // 2),
        dilation=rate,
        groups=groups,
        bias=False,
    )
