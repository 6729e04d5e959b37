"""Whole masks from raw values to class ids, at the speed of a table."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_VALUES = 1 << 16
"""Raw values in a table for masks of up to 16 bits."""
NUM_COLOURS = 1 << 24
"""Raw values in a table for colours, ``0xRRGGBB``."""


class Lookup:
    """Map every pixel of a mask.

    Args:
        mapping: Raw value to class id.
        default: The result for every other raw value.
        dtype: The type of the result.
        size: :data:`NUM_VALUES`, or :data:`NUM_COLOURS` for colours as
            :func:`~segtrain.data.labels.mask_facts.pack_colours` gives them.

    Example:
        >>> lookup = Lookup({0: 0, 255: 1}, default=7, dtype=np.dtype(np.uint8))
        >>> lookup(np.array([[0, 255, 3]], dtype=np.uint8))
        array([[0, 1, 7]], dtype=uint8)
    """

    def __init__(
        self,
        mapping: Mapping[int, int],
        default: int,
        dtype: np.dtype[Any],
        size: int = NUM_VALUES,
    ) -> None:
        self._mapping, self._default = mapping, default
        self._table = np.full(size, default, dtype=dtype)
        for value, class_id in mapping.items():
            if 0 <= value < size:
                self._table[value] = class_id

    def __call__(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the class ids of an array of integers of any shape."""
        if values.dtype == np.uint8 and self._table.dtype == np.uint8:
            cv2 = importlib.import_module("cv2")  # several times as fast as NumPy's indexing
            flat = np.ascontiguousarray(values).reshape(len(values), -1)  # any number of channels
            found: NDArray[Any] = cv2.LUT(flat, self._table[:256])
            return found.reshape(values.shape)
        if values.dtype in (np.uint8, np.uint16) or len(self._table) == NUM_COLOURS:
            return np.take(self._table, values)
        # Wider types may hold values that are negative or beyond the table.
        raws, places = np.unique(values, return_inverse=True)
        mapped = [self._mapping.get(int(value), self._default) for value in raws]
        return np.array(mapped, dtype=self._table.dtype)[places].reshape(values.shape)
