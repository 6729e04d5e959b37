"""Sums that float32 is not precise enough for, also on devices without float64."""

from __future__ import annotations

import torch
from torch import Tensor

WITHOUT_FLOAT64 = ("mps",)
"""Types of devices that have no float64."""


def wide(tensor: Tensor) -> Tensor:
    """Return a tensor as float64, on the CPU if its device has none."""
    return on_cpu(tensor).double() if lacks_float64(tensor) else tensor.double()


def lacks_float64(tensor: Tensor) -> bool:
    """Whether the device of a tensor has no float64."""
    return tensor.device.type in WITHOUT_FLOAT64


def on_cpu(tensor: Tensor) -> Tensor:
    """Return a tensor on the CPU."""
    return tensor.cpu()


def sums_by_class(values: Tensor, classes: Tensor, num_classes: int) -> Tensor:
    """Sum values by the class of their pixel, ``(N, C)``, with the dtype of `values`.

    A scatter adds one number after the other, for which float32 is not precise enough. Without
    float64, each class is summed alone, in pairs.

    Args:
        values: ``(N, P)``, float.
        classes: ``(N, P)``, int64, class ids.
        num_classes: C.

    Example:
        >>> sums_by_class(torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[0, 1, 0]]), 3)
        tensor([[5., 2., 0.]])
    """
    if lacks_float64(values):
        each = [torch.where(classes == index, values, 0).sum(1) for index in range(num_classes)]
        return torch.stack(each, dim=1)
    total = values.new_zeros(len(values), num_classes, dtype=torch.float64)
    return total.scatter_add(1, classes, values.double()).to(values.dtype)
