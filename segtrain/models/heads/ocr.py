"""Object-contextual representations as a head for any backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from segtrain.models.heads.base import Head
from segtrain.models.heads.ocr_layers import OCRLayers
from segtrain.models.heads.registry import HEADS
from segtrain.models.layers.resize import concatenate


@HEADS.register("ocr")
class OCRHead(OCRLayers, Head):
    """Concatenate all feature maps at the finest resolution, then apply the layers of OCR.

    Args:
        **common: As in :class:`~segtrain.models.heads.ocr_layers.OCRLayers` and
            :class:`~segtrain.models.heads.Head`.

    Shape:
        - features: ``(N, in_channels[i], h_i, w_i)`` each, the finest first.
        - output: ``(N, num_classes, h_0, w_0)`` under ``"out"`` and ``"aux"``. ``"aux"`` holds the
          scores from which the regions are computed and needs a loss of its own.

    Raises:
        ConfigError: If a width or `scale` is below 1.

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

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.norm_stride = self.pooled_stride(self.strides[0])

    def forward(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return logits at the resolution of the first feature map."""
        return self.ocr_outputs(concatenate(features, align_corners=self.align_corners))
