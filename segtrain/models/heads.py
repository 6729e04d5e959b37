"""What turns the branches of a trunk into logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.errors import ConfigError
from segtrain.models.init import init_classifier, init_layers


def concatenate_branches(branches: Sequence[Tensor], *, align_corners: bool) -> Tensor:
    """All branches side by side as channels, resized bilinearly to the first.

    Shape:
        - branches: ``(N, C_i, h_i, w_i)`` each.
        - output: ``(N, sum of C_i, h_0, w_0)``.

    Example:
        >>> branches = [torch.zeros(1, 4, 8, 6), torch.zeros(1, 8, 4, 3)]
        >>> concatenate_branches(branches, align_corners=False).shape
        torch.Size([1, 12, 8, 6])
    """
    first, *others = branches
    size = first.shape[-2:]
    resized = [
        F.interpolate(other, size=size, mode="bilinear", align_corners=align_corners)
        for other in others
    ]
    return torch.cat([first, *resized], dim=1)


class HRNetHead(nn.Sequential):
    """The head of HRNetV2: 1x1 convolution over all branches, batch norm, ReLU, 1x1 classifier.

    It is a sequence of exactly these four layers because their positions are the keys of the
    official weight files (``last_layer.{0,1,3}``, ``aux_head.{0,1,3}``); dropout has no layer of
    its own for that reason.

    Args:
        in_channels: Channels of the concatenated branches.
        num_classes: Channels of the logits.
        dropout: Probability of zeroing a channel before the classifier while training; 0, as in the
            official code, drops none.

    Shape:
        - features: ``(N, in_channels, h, w)``.
        - output: ``(N, num_classes, h, w)``.

    Raises:
        ConfigError: When `dropout` is outside [0, 1).

    Example:
        >>> head = HRNetHead(in_channels=12, num_classes=3)
        >>> head(torch.zeros(2, 12, 8, 6)).shape
        torch.Size([2, 3, 8, 6])
    """

    def __init__(self, *, in_channels: int, num_classes: int, dropout: float = 0.0) -> None:
        if not 0.0 <= dropout < 1.0:
            raise ConfigError(f"dropout must be at least 0 and below 1, got {dropout}")
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
        """Logits at the resolution of `features`."""
        mix, norm, relu, classifier = self
        hidden = relu(norm(mix(features)))
        logits: Tensor = classifier(F.dropout2d(hidden, self.dropout, self.training))
        return logits
