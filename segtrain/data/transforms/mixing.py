"""Mixing of two samples of a batch: CutMix and ClassMix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Mixing:
    """Paste a part of the next sample of a batch into each sample, in image and target.

    ``cutmix`` pastes a box whose share of the area is uniform between 0 and 1. ``classmix`` pastes
    the pixels of half of the classes in the other sample, rounded up (in multi-label data, the
    pixels that have any of them). A box may hold ignored pixels, which stay ignored; ``classmix``
    does not paste them. A batch of one sample stays as it is.

    Args:
        mix: The kind of mixing.
        probability: Probability that a sample is mixed.
        ignore_label: The value of target pixels without a class.

    References:
        Yun et al., CutMix, ICCV 2019, with lambda from Beta(1, 1). As there, the share is that of
        the whole box: at a border it is cut off, and what is pasted is smaller. Olsson et al.,
        ClassMix, WACV 2021, which mixes unlabelled images; its code rounds half of the classes
        down.
    """

    mix: Literal["cutmix", "classmix"]
    probability: float = 0.5
    ignore_label: int = 255

    def __call__(
        self, images: Tensor, target: Tensor, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return the mixed batch, a function of the batch and `rng`.

        Shape:
            - images: ``(N, C, h, w)``. target: ``(N, h, w)``, or ``(N, K, h, w)`` for multi-label
              data. The outputs have the same shapes.
        """
        if len(images) < 2:
            return images, target
        mixed_images, mixed_target = images.clone(), target.clone()
        for index in range(len(images)):
            if rng.random() >= self.probability:
                continue
            other = (index + 1) % len(images)
            if self.mix == "cutmix":
                mask = _box(images.shape[-2:], rng)
            else:
                mask = _classes(target[other], self.ignore_label, rng)
            mixed_images[index] = torch.where(mask, images[other], images[index])
            mixed_target[index] = torch.where(mask, target[other], target[index])
        return mixed_images, mixed_target


def _box(size: torch.Size, rng: np.random.Generator) -> Tensor:
    """Return a mask of a random box, ``(h, w)``, clipped at the borders of the image."""
    height, width = size
    side = np.sqrt(rng.uniform())
    row, column = rng.integers(height), rng.integers(width)
    half_rows, half_columns = height * side / 2, width * side / 2
    mask = torch.zeros(height, width, dtype=torch.bool)
    top, left = max(round(row - half_rows), 0), max(round(column - half_columns), 0)
    mask[top : round(row + half_rows), left : round(column + half_columns)] = True
    return mask


def _classes(target: Tensor, ignore_label: int, rng: np.random.Generator) -> Tensor:
    """Return a mask of the pixels of a random half of the classes, ``(h, w)``."""
    if target.dim() == 3:
        present = [index for index in range(len(target)) if bool((target[index] == 1).any())]
        chosen = _half(present, rng)
        return (target[chosen] == 1).any(0) if chosen else torch.zeros_like(target[0]).bool()
    present = [value for value in torch.unique(target).tolist() if value != ignore_label]
    return torch.isin(target, torch.tensor(_half(present, rng), dtype=target.dtype))


def _half(present: list[int], rng: np.random.Generator) -> list[int]:
    count = (len(present) + 1) // 2
    return [present[index] for index in rng.permutation(len(present))[:count]]
