"""What a mask holds, counted: all that a check against a contract needs to know of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

NAN = -(1 << 31)
"""The raw value that stands for NaN in a mask of floats: a pixel without a class."""


class MaskFacts(NamedTuple):
    """What is remembered of a mask: enough to check it against any contract.

    Attributes:
        shape: Height and width, and the number of channels where there are several.
        counts: Raw value to pixel count; of each channel where channels are classes.
        colours: Whether raw values are colours, ``0xRRGGBB``.
    """

    shape: tuple[int, ...]
    counts: tuple[dict[int, int], ...]
    colours: bool = False

    def to_json(self) -> list[Any]:
        """Plain lists."""
        return [list(self.shape), [sorted(c.items()) for c in self.counts], self.colours]

    @classmethod
    def from_json(cls, plain: Sequence[Any]) -> MaskFacts:
        """What :meth:`to_json` gave."""
        shape, counts, colours = plain
        found = tuple({int(value): int(n) for value, n in channel} for channel in counts)
        return cls(tuple(shape), found, bool(colours))

    @property
    def values(self) -> set[int]:
        """Every raw value that occurs, but for :data:`NAN`."""
        return {value for channel in self.counts for value, n in channel.items() if n} - {NAN}


def pack(colour: Sequence[int]) -> int:
    """A colour as one number.

    Example:
        >>> f"0x{pack((64, 0, 255)):06X}"
        '0x4000FF'
    """
    red, green, blue = (int(channel) for channel in colour[:3])
    return red << 16 | green << 8 | blue


def histogram(raw: NDArray[Any]) -> dict[int, int]:
    """Value to pixel count of an array of integers.

    Example:
        >>> histogram(np.array([[0, 7], [7, 7]], dtype=np.uint8))
        {0: 1, 7: 3}
    """
    if raw.dtype in (np.uint8, np.uint16):
        counts = np.bincount(raw.ravel())
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    values, numbers = np.unique(raw, return_counts=True)
    return {int(value): int(count) for value, count in zip(values, numbers, strict=True)}


def pack_colours(pixels: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Every pixel of ``(H, W, 3)`` as :func:`pack` gives it, ``(H, W)``."""
    wide = pixels.astype(np.int32)
    packed: NDArray[np.int32] = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    return packed
