"""The type and the range of the values in image files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class ImageValues(NamedTuple):
    """The values in one or several image files, without pixels that have no data.

    Attributes:
        dtype: Their type, such as ``uint16``.
        low: The smallest value.
        high: The largest value.
    """

    dtype: str
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.dtype} values from {self.low:g} to {self.high:g}"

    @staticmethod
    def together(parts: Sequence[ImageValues]) -> ImageValues:
        """Return the values of several files, with the type of the first.

        Example:
            >>> str(ImageValues.together([ImageValues("uint8", 3, 9), ImageValues("uint8", 0, 7)]))
            'uint8 values from 0 to 9'
        """
        return ImageValues(
            parts[0].dtype, min(part.low for part in parts), max(part.high for part in parts)
        )

    def differs(self, trained: ImageValues) -> bool:
        """Whether a model that was trained on other values cannot be expected to fit these."""
        if self.dtype != trained.dtype:
            return True
        span = trained.high - trained.low
        is_far = self.high > trained.high + 4 * span or self.low < trained.low - 4 * span
        return self.dtype != "uint8" and (is_far or self.high - self.low < span / 64)
