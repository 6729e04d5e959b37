"""The contract of every head: it maps features to logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from segtrain.errors import ConfigError


class Head(nn.Module):
    """Base class of all heads, built-in and custom.

    A subclass accepts the arguments below as keyword arguments (``**common`` passes them on),
    implements `forward` and is registered with ``HEADS.register("name")``.

    Args:
        in_channels: Number of channels of each feature map, the finest first.
        strides: Stride of each feature map.
        num_classes: Number of channels of the logits.
        align_corners: Whether bilinear resizing aligns the corners.
        dropout: Probability of zeroing a channel before the classifier during training.

    Attributes:
        norm_stride: As in :class:`~segtrain.models.backbones.Backbone`; infinity if batch norm
            follows a mean over the whole image.
        output_names: Names of the outputs of `forward`.
        feature_channels: Number of channels of all feature maps concatenated.

    Shape:
        - features: ``(N, in_channels[i], h_i, w_i)`` each, the finest first.
        - output: dict of ``(N, num_classes, h, w)``; the main one is ``"out"``.

    Raises:
        ConfigError: If `dropout` is outside [0, 1).
    """

    norm_stride: float | None = None
    output_names: ClassVar[tuple[str, ...]] = ("out",)

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        strides: Sequence[float],
        num_classes: int,
        align_corners: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_dropout(dropout)
        self.in_channels = tuple(in_channels)
        self.feature_channels = sum(self.in_channels)
        self.strides = tuple(strides)
        self.num_classes = num_classes
        self.align_corners = align_corners
        self.dropout = dropout

    def forward(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return logits by output name; see the class for shapes."""
        raise NotImplementedError(
            f"{type(self).__name__} must implement forward(features) -> dict of logits"
        )


def check_dropout(dropout: float) -> None:
    """Check a dropout probability.

    Raises:
        ConfigError: If it is outside [0, 1).
    """
    if not 0.0 <= dropout < 1.0:
        raise ConfigError(f"dropout must be at least 0 and below 1, got {dropout}")


def check_widths(**widths: int) -> None:
    """Check the number of channels of layers, given by argument name.

    Raises:
        ConfigError: If a number is below 1.
    """
    for name, width in widths.items():
        if width < 1:
            raise ConfigError(f"{name} must be at least 1, got {width}")
