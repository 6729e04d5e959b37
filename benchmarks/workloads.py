"""Synthetic batches of logits and targets, the same in every process."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

IGNORE_LABEL = 255
BLOCK = 16  # side of the squares of one class in the target
STRIDE = 4  # size of the target relative to the logits
IGNORED_SHARE = 0.05
CONFIDENCE = 4.0  # logit of the true class above the others; the noise has sigma 1


@dataclass(frozen=True)
class Workload:
    """The size of a synthetic batch, which :meth:`make` draws.

    Attributes:
        rows: Height of the target.
        columns: Width of the target.
        classes_per_image: Number of classes in each image.
    """

    rows: int
    columns: int
    num_classes: int
    classes_per_image: int
    batch_size: int = 2

    def tiny(self) -> Workload:
        """Return a workload of the same classes on few pixels, for warm-up calls."""
        return replace(self, rows=4 * BLOCK, columns=4 * BLOCK, batch_size=1)

    def make(self, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Draw logits that require a gradient, and a target that they mostly predict.

        Shape:
            - logits: ``(N, C, H / 4, W / 4)``; target: ``(N, H, W)``, int64.
        """
        generator = torch.Generator().manual_seed(seed)
        classes = torch.stack([self._block_classes(generator) for _ in range(self.batch_size)])
        ignored = torch.rand(classes.shape, generator=generator) < IGNORED_SHARE
        target = _enlarge(classes.masked_fill(ignored, IGNORE_LABEL), BLOCK)
        truth = _enlarge(classes, BLOCK // STRIDE)[:, None]
        size = (self.batch_size, self.num_classes, *truth.shape[-2:])
        logits = torch.randn(size, generator=generator)
        logits.scatter_add_(1, truth, torch.full(truth.shape, CONFIDENCE))
        return logits.requires_grad_(), target

    def _block_classes(self, generator: torch.Generator) -> Tensor:
        """Draw the class of each block of an image, with frequencies 1, 1/2, 1/3, ..."""
        shown = torch.randperm(self.num_classes, generator=generator)[: self.classes_per_image]
        frequency = 1 / torch.arange(1, len(shown) + 1)
        size = (self.rows // BLOCK, self.columns // BLOCK)
        drawn = frequency.multinomial(size[0] * size[1], replacement=True, generator=generator)
        return shown[drawn].view(size)

    def __str__(self) -> str:
        low = (self.batch_size, self.num_classes, self.rows // STRIDE, self.columns // STRIDE)
        return f"logits {low}, target {(self.batch_size, self.rows, self.columns)}"


WORKLOADS = {
    "W1": Workload(rows=512, columns=1024, num_classes=19, classes_per_image=19),
    "W2": Workload(rows=512, columns=512, num_classes=150, classes_per_image=15),
}


def _enlarge(blocks: Tensor, factor: int) -> Tensor:
    return blocks.repeat_interleave(factor, -2).repeat_interleave(factor, -1)
