"""The head of object-contextual representations for any backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from segtrain.models.heads.base import Head
from segtrain.models.heads.ocr_layers import OCRLayers
from segtrain.models.heads.registry import HEADS
from segtrain.models.layers.resize import concatenate


@HEADS.register("ocr")
class OCRHead(Head, OCRLayers):
    """All features side by side at the finest resolution, then the layers of OCR.

    Args:
        ocr_channels: Width of the pixels' features and of the regions.
        key_channels: Width of the attention.
        dropout: Probability of zeroing a channel before the main classifier while training.
        scale: Let only the maxima of windows of this many pixels in height and width look at the
            regions, and resize what they see.
        **common: As in :class:`~segtrain.models.heads.Head`.

    Shape:
        - features: ``(N, in_channels[i], h_i, w_i)`` each, the finest first.
        - output: ``(N, num_classes, h_0, w_0)`` under ``"out"``, and under ``"aux"`` the scores
          that the regions are made of, which need a loss of their own.

    Raises:
        ConfigError: When a width or `scale` is below 1.

    Example:
        >>> import torch
        >>> head = OCRHead(in_channels=(4, 8), strides=(4, 8), num_classes=3, ocr_channels=16)
        >>> outputs = head([torch.zeros(2, 4, 8, 6), torch.zeros(2, 8, 4, 3)])
        >>> {name: tuple(logits.shape) for name, logits in outputs.items()}
        {'out': (2, 3, 8, 6), 'aux': (2, 3, 8, 6)}

    References:
        :mod:`segtrain.models.heads.ocr_layers`.
    """

    output_names = ("out", "aux")

    def __init__(
        self,
        *,
        ocr_channels: int = 512,
        key_channels: int = 256,
        dropout: float = 0.05,
        scale: int = 1,
        **common: Any,
    ) -> None:
        super().__init__(dropout=dropout, **common)
        self.add_ocr(
            sum(self.in_channels),
            self.num_classes,
            ocr_channels=ocr_channels,
            key_channels=key_channels,
            dropout=dropout,
            scale=scale,
        )
        # Pixels of the finest map in a row that leave two after pooling, less one.
        self.norm_stride = self.strides[0] * (2 * scale - 1)

    def forward(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Logits at the resolution of the first feature map."""
        return self.ocr_outputs(concatenate(features, align_corners=self.align_corners))
