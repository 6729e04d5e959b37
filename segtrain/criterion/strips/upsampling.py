"""Bilinear upsampling a strip of rows at a time, and its adjoint.

Bilinear upsampling is two banded linear maps, one along the columns and one along the rows. Each is
cut into blocks whose source is a few entries wide, so a strip costs little more than writing it:
two small matrix products, for any ratio and either `align_corners`, and the adjoint is the same
products transposed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

_COLUMNS = 256  # of the result in one product: wide enough to be fast, narrow enough to be sparse


@dataclass(frozen=True)
class Block:
    """Some entries of the result along one axis, and the source entries that they come from."""

    rows: slice
    source: slice
    matrix: Tensor  # (source, rows)


@lru_cache(maxsize=32)
def _blocks(
    source: int,
    size: int,
    width: int,
    align_corners: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Block, ...]:
    """Linear interpolation from `source` to `size` entries in blocks of `width` results."""
    identity = torch.eye(source, dtype=dtype)[None]
    whole = F.interpolate(identity, size=size, mode="linear", align_corners=align_corners)[0]
    blocks = []
    for first in range(0, size, width):
        rows = slice(first, min(first + width, size))
        used = whole[:, rows].ne(0).any(1).nonzero().flatten()
        needed = slice(int(used[0]), int(used[-1]) + 1)
        blocks.append(Block(rows, needed, whole[needed, rows].contiguous().to(device)))
    return tuple(blocks)


class Upsampling:
    """From logits ``(N, C, h, w)`` to `size` ``(H, W)``, for tensors of one dtype and device."""

    def __init__(self, logits: Tensor, size: tuple[int, int], align_corners: bool) -> None:
        self.size = size
        self._source = (logits.shape[-2], logits.shape[-1])
        self._options = (align_corners, logits.dtype, logits.device)
        self._buffers: dict[str, Tensor] = {}
        self._columns = _blocks(self._source[1], size[1], _COLUMNS, *self._options)

    def strips(self, rows: int) -> tuple[Block, ...]:
        """The strips of `rows` rows each, from the top."""
        return _blocks(self._source[0], self.size[0], rows, *self._options)

    def rows(self, logits: Tensor, strip: Block, *, lowered: bool = False) -> Tensor:
        """The rows ``(N, C, R, W)`` of one strip, in memory that the next call uses again.

        Args:
            logits: ``(N, C, h, w)``.
            strip: One of :meth:`strips`.
            lowered: Subtract the largest class from every source entry first, which no softmax
                notices: no entry of the result is above 0 then.
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
        """Add to `total` ``(N, C, h, w)`` what a strip's `gradient` means for the logits."""
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
        """Memory that every strip uses anew: a fresh page costs more than what is done with it."""
        size = math.prod(shape)
        kept = self._buffers.get(name)
        if kept is None or kept.numel() < size:
            kept = self._buffers[name] = torch.empty(
                size, dtype=self._options[1], device=self._options[2]
            )
        return kept[:size].view(shape)

    def image(self, logits: Tensor, rows: int) -> Tensor:
        """The whole of some channels, ``(N, C, H, W)``."""
        images = logits.new_empty(*logits.shape[:2], *self.size)
        for strip in self.strips(rows):
            images[:, :, strip.rows] = self.rows(logits, strip)
        return images

    def add_image_adjoint(self, gradient: Tensor, rows: int, total: Tensor) -> None:
        """:meth:`add_adjoint` of :meth:`image`."""
        for strip in self.strips(rows):
            self.add_adjoint(gradient[:, :, strip.rows], strip, total)


def is_safe_lowered(logits: Tensor) -> bool:
    """Whether some exponential of lowered logits is above 0 everywhere, without a look per strip.

    Interpolated between pixels that two different classes lead, every class may be far below 0;
    never farther than the classes are apart at one source entry. Only the CPU is asked, as a look
    at the values would wait for any other device.
    """
    if logits.device.type != "cpu" or not logits.numel():
        return False
    return bool((logits.amax(1) - logits.amin(1)).amax() < _SAFE_SPREAD)


_SAFE_SPREAD = 60.0  # exp(-60) leaves twelve digits above the smallest normal float32
