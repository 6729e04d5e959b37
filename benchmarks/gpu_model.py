"""A plugin: the small model that ``gpu_checks.py`` trains."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

import segtrain


@segtrain.register_model("gpu_check")
class SmallModel(segtrain.Segmentor):
    """Two convolutions at stride 2 with batch norm, dropout and an auxiliary output."""

    head_prefixes: ClassVar[tuple[str, ...]] = ("head",)

    def __init__(self, *, num_classes: int, align_corners: bool = False) -> None:
        super().__init__(num_classes=num_classes, align_corners=align_corners)
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.dropout = nn.Dropout2d(0.1)
        self.head = nn.Conv2d(16, num_classes, 3, padding=1)
        self.aux = nn.Conv2d(16, num_classes, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return logits at half the size of the images."""
        features = self.dropout(self.norm(self.stem(images)).relu())
        return {"out": self.head(features), "aux": self.aux(features)}
