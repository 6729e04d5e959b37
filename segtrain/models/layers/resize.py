"""Resizing of features and their concatenation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Resizing = Literal["bilinear", "nearest"]


def resize_as(
    features: Tensor, like: Tensor, *, align_corners: bool, mode: Resizing = "bilinear"
) -> Tensor:
    """Resize `features` to the height and width of `like`; `align_corners` is for bilinear only."""
    aligned = align_corners if mode == "bilinear" else None
    return F.interpolate(features, size=like.shape[-2:], mode=mode, align_corners=aligned)


def spread_as(values: Tensor, like: Tensor) -> Tensor:
    """Expand ``(N, C, 1, 1)`` to the height and width of `like`, in the memory format of `like`.

    A resize would return the default format, because a single pixel does not reveal that it is
    channels-last, and every later layer would run in the slower format.
    """
    is_last = like.is_contiguous(memory_format=torch.channels_last)
    memory_format = torch.channels_last if is_last else torch.contiguous_format
    return values.expand(-1, -1, *like.shape[-2:]).contiguous(memory_format=memory_format)


def concatenate(features: Sequence[Tensor], *, align_corners: bool) -> Tensor:
    """Concatenate feature maps along the channels, resized bilinearly to the first one.

    Shape:
        - features: ``(N, C_i, h_i, w_i)`` each.
        - output: ``(N, sum of C_i, h_0, w_0)``.

    Example:
        >>> features = [torch.zeros(1, 4, 8, 6), torch.zeros(1, 8, 4, 3)]
        >>> concatenate(features, align_corners=False).shape
        torch.Size([1, 12, 8, 6])
    """
    first, *others = features
    resized = [resize_as(other, first, align_corners=align_corners) for other in others]
    return torch.cat([first, *resized], dim=1)
