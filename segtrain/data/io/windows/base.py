"""What every source of windows has: the layout of its image, and a way to decode a window."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segtrain.data.io.geo import Georeference


class Layout(NamedTuple):
    """What a source says about its image.

    Attributes:
        height: Number of rows.
        width: Number of columns.
        channels: Number of channels, as the file holds them; palettes count as three.
        dtype: Type of the values, as the file holds them.
        has_alpha: Whether the last channel is transparency.
        nodata: The value without data that the file declares; None: it does not.
        whole_rows: Whether a part of a row costs as much as the row, as in a file of strips.
        georeference: Where the image lies on the ground; None: the file does not say.
    """

    height: int
    width: int
    channels: int
    dtype: np.dtype[Any]
    has_alpha: bool = False
    nodata: float | None = None
    whole_rows: bool = False
    georeference: Georeference | None = None


class WindowSource(ABC):
    """Decodes windows of one file.

    Attributes:
        layout: What the file holds.
    """

    layout: Layout

    @abstractmethod
    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Return a window ``(r, c, channels)`` as the file holds it."""

    def valid(self, rows: slice, columns: slice) -> NDArray[np.bool_] | None:
        """Return which pixels of a window ``(r, c)`` have data, by the file; None: all have."""
        del rows, columns
        return None

    @abstractmethod
    def close(self) -> None:
        """Close the file."""
