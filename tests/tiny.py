"""A plugin: models small enough to train in a test."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

import segtrain


@segtrain.register_model("tiny")
class Tiny(segtrain.Segmentor):
    """Two convolutions at stride 2, with an auxiliary output and outputs that learn boundaries."""

    head_prefixes: ClassVar[tuple[str, ...]] = ("head",)

    def __init__(
        self,
        *,
        num_classes: int,
        align_corners: bool = False,
        in_channels: int = 3,
        dropout: float = 0.2,
        norm: bool = True,
        aux: bool = True,
        tasks: bool = False,
    ) -> None:
        super().__init__(
            num_classes=num_classes, align_corners=align_corners, in_channels=in_channels
        )
        self.stem = nn.Conv2d(in_channels, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.dropout = nn.Dropout2d(dropout)
        self.head = nn.Conv2d(8, num_classes, 3, padding=1)
        self.aux = nn.Conv2d(8, num_classes, 1) if aux else None
        names = ("boundary", "distance") if tasks else ()
        self.tasks = nn.ModuleDict({name: nn.Conv2d(8, 1, 1) for name in names})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.dropout(self.norm(self.stem(images)).relu())
        outputs = {"out": self.head(features)}
        outputs |= {name: head(features) for name, head in self.tasks.items()}
        return outputs if self.aux is None else {**outputs, "aux": self.aux(features)}
