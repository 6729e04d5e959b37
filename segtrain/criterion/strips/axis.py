"""Linear interpolation along one axis, as indices and weights."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Axis(NamedTuple):
    """The two source entries that each entry of the result lies between, and its place there.

    Attributes:
        low: Index of the source entry before it, ``(S,)``, int64.
        high: Index of the source entry after it, ``(S,)``, int64; at the end the same as `low`.
        weight: Weight of `high`, ``(S,)``, from 0 to 1; that of `low` is the rest.
    """

    low: Tensor
    high: Tensor
    weight: Tensor

    def part(self, first: int, stop: int, offset: int = 0) -> Axis:
        """Some entries of the result, for a source that starts at entry `offset`."""
        return Axis(
            self.low[first:stop] - offset,
            self.high[first:stop] - offset,
            self.weight[first:stop],
        )

    def to(self, other: Tensor) -> Axis:
        """The same on the device of a tensor."""
        return Axis(*(values.to(other.device) for values in self))


@lru_cache(maxsize=64)
def linear_axis(
    source: int,
    size: int,
    align_corners: bool,
    dtype: torch.dtype = torch.float32,
) -> Axis:
    """The linear interpolation from `source` to `size` entries, on the CPU.

    The weights are of type `dtype`.

    Example:
        >>> linear_axis(2, 4, False).weight
        tensor([0.0000, 0.2500, 0.7500, 0.0000])
        >>> linear_axis(2, 4, False).low
        tensor([0, 0, 0, 1])
    """
    # NumPy has float64 whatever torch's default device is.
    entries = np.arange(size, dtype=np.float64)
    if align_corners:
        place = entries * ((source - 1) / max(size - 1, 1))
    else:
        place = np.maximum((entries + 0.5) * (source / size) - 0.5, 0)
    low = np.minimum(place.astype(np.int64), source - 1)
    high = np.minimum(low + 1, source - 1)
    weight = np.where(low == high, 0, place - low)
    return Axis(
        torch.from_numpy(low), torch.from_numpy(high), torch.tensor(weight.tolist(), dtype=dtype)
    )
