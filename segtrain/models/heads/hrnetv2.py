"""The head of HRNetV2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.models.heads.base import Head, check_dropout
from segtrain.models.heads.registry import HEADS
from segtrain.models.layers.init import init_classifier, init_layers
from segtrain.models.layers.resize import concatenate


class HRNetHead(nn.Sequential):
    """The layers of the head of HRNetV2: 1x1 convolution, batch norm, ReLU and 1x1 classifier.

    The positions of these four layers are the keys of the official weight files
    (``last_layer.{0,1,3}``, ``aux_head.{0,1,3}``). For that reason dropout is not a layer.

    Args:
        in_channels: Number of channels of the concatenated branches.
        num_classes: Number of channels of the logits.
        dropout: Probability of zeroing a channel before the classifier during training; the
            official code has no dropout.

    Shape:
        - features: ``(N, in_channels, h, w)``.
        - output: ``(N, num_classes, h, w)``.

    Raises:
        ConfigError: If `dropout` is outside [0, 1).

    Example:
        >>> import torch
        >>> head = HRNetHead(in_channels=12, num_classes=3)
        >>> head(torch.zeros(2, 12, 8, 6)).shape
        torch.Size([2, 3, 8, 6])
    """

    def __init__(self, *, in_channels: int, num_classes: int, dropout: float = 0.0) -> None:
        check_dropout(dropout)
        classifier = nn.Conv2d(in_channels, num_classes, kernel_size=1)
        super().__init__(
            nn.Conv2d(in_channels, in_channels, kernel_size=1),
            nn.BatchNorm2d(in_channels),
            nn.ReLU(inplace=True),
            classifier,
        )
        self.dropout = dropout
        init_layers(self)
        init_classifier(classifier)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits at the resolution of `features`."""
        mix, norm, relu, classifier = self
        hidden = relu(norm(mix(features)))
        logits: Tensor = classifier(F.dropout2d(hidden, self.dropout, self.training))
        return logits


@HEADS.register("hrnetv2")
class HRNetV2Head(Head):
    """Concatenate all feature maps at the finest resolution, then apply the layers of HRNetV2.

    Shape:
        - features: ``(N, in_channels[i], h_i, w_i)`` each, the finest first.
        - output: ``(N, num_classes, h_0, w_0)`` under ``"out"``.

    Example:
        >>> import torch
        >>> head = HRNetV2Head(in_channels=(4, 8), strides=(4, 8), num_classes=3)
        >>> head([torch.zeros(2, 4, 8, 6), torch.zeros(2, 8, 4, 3)])["out"].shape
        torch.Size([2, 3, 8, 6])
    """

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.norm_stride = self.strides[0]
        self.layers = HRNetHead(
            in_channels=self.feature_channels, num_classes=self.num_classes, dropout=self.dropout
        )

    def forward(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return logits at the resolution of the first feature map."""
        return {"out": self.layers(concatenate(features, align_corners=self.align_corners))}
