"""Count right and wrong pixels, image by image."""

from __future__ import annotations

import torch
from torch import Tensor


def confusion_of_images(
    prediction: Tensor, target: Tensor, num_classes: int, ignore_label: int
) -> Tensor:
    """The confusion matrix of each image, ``(N, C, C)``, int64: rows are the target."""
    counts = [
        _confusion(*pair, num_classes, ignore_label)
        for pair in zip(prediction, target, strict=True)
    ]
    if not counts:
        return target.new_zeros(0, num_classes, num_classes, dtype=torch.int64)
    return torch.stack(counts)


def _confusion(prediction: Tensor, target: Tensor, num_classes: int, ignore_label: int) -> Tensor:
    """The confusion matrix of one image, ``(C, C)``."""
    pair = target.long() * num_classes
    pair += prediction
    pair.masked_fill_(target == ignore_label, num_classes**2)  # a bin of its own
    counts = torch.bincount(pair.flatten(), minlength=num_classes**2 + 1)
    return counts[:-1].view(num_classes, num_classes)


def counts_of(confusion: Tensor) -> Tensor:
    """The counts ``(N, 4, C)`` of confusion matrices ``(N, C, C)``: tp, fp, fn, tn."""
    right = confusion.diagonal(dim1=1, dim2=2)
    target, predicted = confusion.sum(2), confusion.sum(1)
    rest = confusion.sum((1, 2))[:, None] - target - predicted + right
    return torch.stack([right, predicted - right, target - right, rest], dim=1)


def multi_label_counts(prediction: Tensor, target: Tensor, ignore_label: int) -> Tensor:
    """The counts ``(N, 4, C)`` of labels 0 and 1, ``(N, C, H, W)``: tp, fp, fn, tn."""
    valid = (target != ignore_label).all(1, keepdim=True)
    predicted, actual = prediction.bool(), target == 1
    kinds = (predicted & actual, predicted & ~actual, ~predicted & actual, ~predicted & ~actual)
    return torch.stack([(kind & valid).sum((2, 3)) for kind in kinds], dim=1)
