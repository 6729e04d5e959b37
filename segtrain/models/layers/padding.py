"""Padding of images to a size that a network can halve, and its removal from the logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def padded_to(images: Tensor, multiple: int, least: int = 0) -> Tensor:
    """Pad images with zeros at the bottom and right to multiples of a number.

    At other sizes, features of a coarse stride cover more than the image. Resized to those of a
    fine stride, they no longer lie on them.

    Args:
        images: ``(N, C, H, W)``.
        multiple: The number.
        least: The least height and width.

    Example:
        >>> padded_to(torch.zeros(1, 3, 33, 64), 32).shape
        torch.Size([1, 3, 64, 64])
    """
    height, width = images.shape[-2:]
    bottom = _padded(height, multiple, least) - height
    right = _padded(width, multiple, least) - width
    if torch.compiler.is_exporting():  # with symbolic sizes, which decide about no branch
        return F.pad(images, (0, right, 0, bottom))
    return F.pad(images, (0, right, 0, bottom)) if right or bottom else images


def without_padding(logits: Tensor, padded: Tensor, images: Tensor) -> Tensor:
    """Remove what :func:`padded_to` added from logits of a lower resolution.

    Args:
        logits: ``(N, C, h, w)``, of the padded images.
        padded: The padded images.
        images: The images.

    Example:
        >>> images = torch.zeros(1, 3, 33, 50)
        >>> without_padding(torch.zeros(1, 2, 16, 16), padded_to(images, 64), images).shape
        torch.Size([1, 2, 9, 13])
    """
    rows, columns = (
        _kept(length, count, whole)
        for length, count, whole in zip(
            images.shape[-2:], logits.shape[-2:], padded.shape[-2:], strict=True
        )
    )
    return logits[..., :rows, :columns]


def _kept(length: int, count: int, whole: int) -> int:
    """The number of logits for `length` pixels, if there are `count` for `whole` pixels."""
    for factor in (1, 2):  # the stride may be 3.5
        if factor * whole % count == 0:  # with symbolic sizes, it becomes a number
            return rounded_up(factor * length, factor * whole // count)
    return rounded_up(length * count, whole)


def rounded_up(length: int, stride: int) -> int:
    """Divide and round up, without negative numbers: ONNX rounds a quotient towards zero."""
    return (length + stride - 1) // stride


def _padded(length: int, multiple: int, least: int) -> int:
    found = rounded_up(length, multiple) * multiple
    return max(found, least) if least > multiple else found
