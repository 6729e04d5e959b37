"""A model whose classes depend on each pixel alone, so that windows and whole images agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segtrain.data import LabelContract, Reader
from segtrain.inference import Predictor
from segtrain.inference.files import FilePredictor
from segtrain.inference.sources import find_sources
from segtrain.inference.writers import build_writers
from segtrain.inference.writers.masks import MaskFormat
from segtrain.models import Segmentor


class Pointwise(Segmentor):
    """One convolution of one pixel, or of the mean of a cell of pixels, with fixed weights."""

    stride = 1  # height and width of a cell

    def __init__(self, *, num_classes: int, in_channels: int = 3) -> None:
        super().__init__(num_classes=num_classes, align_corners=False, in_channels=in_channels)
        self.head = nn.Conv2d(in_channels, num_classes, 1)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            self.head.weight.copy_(2 * torch.randn(self.head.weight.shape, generator=generator))
            self.head.bias.zero_()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        cells = F.avg_pool2d(images, self.stride, ceil_mode=True)
        return {"out": self.head(cells if self.stride > 1 else images)}


def predictor(num_classes: int = 4, *, max_pixels: int = 10**8, **keys: Any) -> Predictor:
    channels = keys.pop("channels", 3)
    reading = keys.pop("reading", {})
    labels = LabelContract(num_classes=num_classes, **keys)
    return Predictor(
        Pointwise(num_classes=num_classes, in_channels=channels),
        labels,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        device="cpu",
        reader=Reader(channels, max_pixels=max_pixels, **reading),
    )


def write(
    chosen: Predictor, given: str | Path, outputs: Sequence[str], *, ignored: bool = False,
    valid: Path | None = None, **keys: Any,
) -> FilePredictor:  # fmt: skip
    """Predict files and write the outputs to ``out``."""
    masks = MaskFormat(chosen.labels, with_ignored=ignored)
    files = FilePredictor(chosen, build_writers(outputs, Path("out"), masks, **keys))
    for source in find_sources(str(given)):
        files(source, valid)
    files.close()
    return files


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Smooth colours, so that the predicted regions are not single pixels."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (7 + 3 * c) + c) + np.cos(y / (9 + 2 * c)) for c in range(channels)]
    return ((np.stack(waves, 2) + 2) * 63).astype(np.uint8)
