"""Pretrained stems for images with another number of channels than three."""

from __future__ import annotations

import torch
from torch import Tensor


def widen(weight: Tensor, in_channels: int) -> Tensor:
    r"""Convert the filters of a stem to another number of input channels.

    The filters are repeated cyclically over the new channels and scaled by old / new, so that an
    image whose channels repeat in the same way gives the same features. For a single channel the
    filters are summed: a grey image gives the features of three equal channels. This is the rule of
    timm.

    Args:
        weight: Filters of shape ``(out, old, kh, kw)``.
        in_channels: Number of channels of the images.

    Shape:
        - output: ``(out, in_channels, kh, kw)``.

    Example:
        >>> import torch
        >>> weight = torch.tensor([3.0, 6.0, 9.0]).reshape(1, 3, 1, 1)
        >>> widen(weight, 1).flatten().tolist(), widen(weight, 4).flatten().tolist()
        ([18.0], [2.25, 4.5, 6.75, 2.25])
    """
    old = weight.shape[1]
    if in_channels == old:
        return weight
    if in_channels == 1:
        return weight.sum(1, keepdim=True)
    repeated = weight.repeat(1, -(-in_channels // old), 1, 1)[:, :in_channels]
    return repeated * (old / in_channels)


def differs_in_channels(weight: Tensor, own: Tensor) -> bool:
    """Whether `weight` and `own` are stems that differ only in their input channels."""
    same = weight.dim() == own.dim() and weight.is_floating_point()
    return (
        same
        and weight.layout == torch.strided
        and weight.shape[0] == own.shape[0]
        and weight.shape[2:] == own.shape[2:]
        and 0 < weight.shape[1] != own.shape[1]
    )
