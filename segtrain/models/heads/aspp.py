"""Atrous spatial pyramid pooling and the decoder of DeepLabV3+."""

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
from segtrain.models.layers.convolutions import conv_norm_relu, separable_norm_relu
from segtrain.models.layers.init import init_classifier, init_layers
from segtrain.models.layers.resize import resize_as, spread_as

_PAPER_RATES = (6, 12, 18)
_PAPER_STRIDE = 16  # stride of the features to which the rates of the paper apply


@HEADS.register("aspp")
class ASPPHead(Head):
    """Atrous spatial pyramid pooling over the last feature map, and the decoder of DeepLabV3+.

    The pyramid concatenates the outputs of a 1x1 convolution, of three 3x3 convolutions with
    increasing rates and of the mean over the image, and mixes them by a 1x1 convolution. The
    decoder resizes the result to a finer feature map, concatenates it with a projection of that
    map and applies two 3x3 convolutions.

    Args:
        channels: Number of channels of the pyramid and of the decoder.
        rates: Atrous rates of the 3x3 convolutions. None means 6, 12 and 18 times 16 / stride of
            the last feature map: 12, 24 and 36 at stride 8, and 3, 6 and 9 at stride 32.
        low_level_stage: Index of the feature map that the decoder adds; 0 is the finest.
        low_level_channels: Number of channels of its projection.
        separable: Whether the 3x3 convolutions are depthwise separable, as in the paper.
        **common: As in :class:`~segtrain.models.heads.Head`.

    Shape:
        - features: ``(N, in_channels[i], h_i, w_i)`` each, the finest first, of any size; at least
          2 images to train, because batch norm follows the mean over the image.
        - output: ``(N, num_classes, h, w)`` under ``"out"``, at the size of `low_level_stage`.

    Raises:
        ConfigError: If a number of channels or a rate is below 1, or there is no such stage.

    Example:
        >>> head = ASPPHead(in_channels=(8, 16), strides=(4, 8), num_classes=3)
        >>> head([torch.zeros(2, 8, 8, 6), torch.zeros(2, 16, 4, 3)])["out"].shape
        torch.Size([2, 3, 8, 6])
        >>> head.rates
        (12, 24, 36)

    References:
        Chen, Zhu, Papandreou, Schroff and Adam, *Encoder-Decoder with Atrous Separable Convolution
        for Semantic Image Segmentation*, ECCV 2018, https://arxiv.org/abs/1802.02611. The
        paper also has batch norm and ReLU after each depthwise convolution; here they follow only
        the 1x1 convolution.
    """

    norm_stride = math.inf

    def __init__(
        self,
        *,
        channels: int = 256,
        rates: list[int] | None = None,
        low_level_stage: int = 0,
        low_level_channels: int = 48,
        separable: bool = True,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        check_widths(channels=channels, low_level_channels=low_level_channels)
        self.rates = self._rates(rates)
        self.low_level_stage = self._stage(low_level_stage)
        conv3x3 = separable_norm_relu if separable else _conv3x3_norm_relu
        last = self.in_channels[-1]
        self.pyramid = nn.ModuleList(
            [conv_norm_relu(last, channels), *(conv3x3(last, channels, rate=r) for r in self.rates)]
        )
        self.image = conv_norm_relu(last, channels)
        self.mix = conv_norm_relu((len(self.pyramid) + 1) * channels, channels)
        self.low_level = conv_norm_relu(self.in_channels[self.low_level_stage], low_level_channels)
        self.decoder = nn.Sequential(
            conv3x3(channels + low_level_channels, channels), conv3x3(channels, channels)
        )
        self.classifier = nn.Conv2d(channels, self.num_classes, kernel_size=1)
        init_layers(self)
        init_classifier(self.classifier)

    def _rates(self, given: list[int] | None) -> tuple[int, ...]:
        if given is None:
            scale = _PAPER_STRIDE / self.strides[-1]
            return tuple(max(round(rate * scale), 1) for rate in _PAPER_RATES)
        if not given or min(given) < 1:
            raise ConfigError(f"rates must be one or more whole numbers above 0, got {given}")
        return tuple(given)

    def _stage(self, given: int) -> int:
        stages = len(self.in_channels)
        if not -stages <= given < stages:
            raise ConfigError(
                f"low_level_stage must be 0 to {stages - 1}, or negative to count from the last,"
                f" got {given}"
            )
        return given % stages

    def forward(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return logits at the resolution of the low-level feature map."""
        low_level = self.low_level(features[self.low_level_stage])
        context = resize_as(
            self._context(features[-1]), low_level, align_corners=self.align_corners
        )
        hidden = self.decoder(torch.cat([context, low_level], dim=1))
        return {"out": self.classifier(F.dropout2d(hidden, self.dropout, self.training))}

    def _context(self, features: Tensor) -> Tensor:
        image = self.image(features.mean((2, 3), keepdim=True))
        branches = [branch(features) for branch in self.pyramid]
        mixed: Tensor = self.mix(torch.cat([*branches, spread_as(image, features)], dim=1))
        return mixed


def _conv3x3_norm_relu(in_channels: int, out_channels: int, *, rate: int = 1) -> nn.Sequential:
    return conv_norm_relu(in_channels, out_channels, kernel_size=3, rate=rate)
