"""Bilinear upsampling of a strip of rows at a time, and its adjoint.

Bilinear upsampling is two banded linear maps, one along the columns and one along the rows. Each
matrix is cut into blocks whose source is a few entries wide. A strip is then two small matrix
products, which cost little more than writing the result, for any ratio and either value of
`align_corners`. The adjoint is the transposed products.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from segtrain.criterion.strips.axis import Axis, linear_axis

# Columns of the result in one product: many enough to be fast, few enough for a narrow source.
_COLUMNS = 256


@dataclass(frozen=True)
class Block:
    """Some entries of the result along one axis, and the source entries that they depend on.

    Attributes:
        rows: The entries of the result, along either axis.
        source: The entries of the source.
        matrix: The weights, ``(source, rows)``.
    """

    rows: slice
    source: slice
    matrix: Tensor


def _blocks(axis: Axis, width: int, device: torch.device) -> tuple[Block, ...]:
    """The blocks of `width` results along an axis."""
    blocks = []
    for first in range(0, len(axis.low), width):
        rows = slice(first, min(first + width, len(axis.low)))
        low, high, weight = axis.part(rows.start, rows.stop)
        needed = slice(int(low[0]), int(high[-1]) + 1)
        matrix = weight.new_zeros(needed.stop - needed.start, len(low))
        entries = torch.arange(len(low))
        matrix[low - needed.start, entries] = 1 - weight
        matrix[high - needed.start, entries] += weight  # at the end both are one entry
        blocks.append(Block(rows, needed, matrix.to(device)))
    return tuple(blocks)


@lru_cache(maxsize=32)
def _blocks_of_all(
    source: int,
    size: int,
    width: int,
    align_corners: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Block, ...]:
    """The blocks of `width` results of a linear interpolation from `source` to `size` entries."""
    return _blocks(linear_axis(source, size, align_corners, dtype), width, device)


class Upsampling:
    """Upsampling from logits ``(N, C, h, w)`` to `size` ``(H, W)``.

    It takes other tensors of the same height, width, dtype and device, too.

    Args:
        logits: The logits.
        size: Height and width of the result.
        align_corners: Whether the corners are aligned.
        part: Some rows of the result, on the CPU, for logits that hold only the source rows that
            these lie between; None: all rows.
    """

    def __init__(
        self,
        logits: Tensor,
        size: tuple[int, int],
        align_corners: bool,
        part: Axis | None = None,
    ) -> None:
        self.size = size
        self._source = (logits.shape[-2], logits.shape[-1])
        self._options = (align_corners, logits.dtype, logits.device)
        self._part = part
        self._buffers: dict[str, Tensor] = {}
        self._columns = _blocks_of_all(self._source[1], size[1], _COLUMNS, *self._options)

    def strips(self, rows: int) -> tuple[Block, ...]:
        """The strips of `rows` rows each, from the top."""
        if self._part is not None:
            return _blocks(self._part, rows, self._options[2])
        return _blocks_of_all(self._source[0], self.size[0], rows, *self._options)

    def rows(self, logits: Tensor, strip: Block, *, lowered: bool = False) -> Tensor:
        """Compute one strip, ``(N, C, R, W)``, in memory that the next call uses again.

        Args:
            logits: ``(N, C, h, w)``.
            strip: One of :meth:`strips`.
            lowered: Whether to subtract the largest class from every source entry first. The result
                is then at most 0, and its softmax is the same.
        """
        source = logits[:, :, strip.source]
        if lowered:
            source = source - source.amax(1, keepdim=True)
        lines = source.reshape(-1, self._source[1])
        wide = self._buffer("wide", len(lines), self.size[1])
        for block in self._columns:
            torch.mm(lines[:, block.source], block.matrix, out=wide[:, block.rows])
        stacked = wide.view(-1, source.shape[2], self.size[1])
        vertical = strip.matrix.mT.expand(len(stacked), -1, -1)
        out = self._buffer("rows", len(stacked), vertical.shape[1], self.size[1])
        return torch.bmm(vertical, stacked, out=out).view(*source.shape[:2], -1, self.size[1])

    def add_adjoint(self, gradient: Tensor, strip: Block, total: Tensor) -> None:
        """Add to `total` ``(N, C, h, w)`` the gradient for the logits, from that for a strip."""
        stacked = gradient.reshape(-1, *gradient.shape[-2:])
        vertical = strip.matrix.expand(len(stacked), -1, -1)
        wide = self._buffer("wide", len(stacked), vertical.shape[1], self.size[1])
        wide = torch.bmm(vertical, stacked, out=wide).view(-1, self.size[1])
        lines = self._buffer("lines", len(wide), self._source[1]).zero_()
        for block in self._columns:
            lines[:, block.source].addmm_(wide[:, block.rows], block.matrix.mT)
        target = total[:, :, strip.source]
        target += lines.view(target.shape)

    def _buffer(self, name: str, *shape: int) -> Tensor:
        """A tensor in memory that all strips share: allocating it costs more than the products."""
        size = math.prod(shape)
        kept = self._buffers.get(name)
        if kept is None or kept.numel() < size:
            kept = self._buffers[name] = torch.empty(
                size, dtype=self._options[1], device=self._options[2]
            )
        return kept[:size].view(shape)

    def image(self, logits: Tensor, rows: int) -> Tensor:
        """Compute all rows of a few channels, ``(N, C, H, W)``, by strips of `rows` rows."""
        images = logits.new_empty(*logits.shape[:2], *self.size)
        for strip in self.strips(rows):
            images[:, :, strip.rows] = self.rows(logits, strip)
        return images

    def add_image_adjoint(self, gradient: Tensor, rows: int, total: Tensor) -> None:
        """:meth:`add_adjoint` of :meth:`image`."""
        for strip in self.strips(rows):
            self.add_adjoint(gradient[:, :, strip.rows], strip, total)


def is_safe_lowered(logits: Tensor) -> bool:
    """Whether the exponentials of the lowered logits do not all underflow at any pixel.

    Between two source entries with different largest classes, interpolation may bring every class
    far below 0, but never farther than the classes are apart at one source entry. On a device other
    than the CPU the answer is False, because reading the values would wait for the device.
    """
    if logits.device.type != "cpu" or not logits.numel():
        return False
    return bool((logits.amax(1) - logits.amin(1)).amax() < _SAFE_SPREAD)


# exp(-60) is 9e-27, twelve orders of magnitude above the smallest normal float32.
_SAFE_SPREAD = 60.0
