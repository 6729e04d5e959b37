"""What a model predicts for one image: class ids, and probabilities by bands of rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segtrain.engine.evaluator import predict_ids, upsample
from segtrain.errors import NumericError

_BAND_VALUES = 1 << 22  # probabilities in a band


class Prediction:
    """The prediction for one image.

    Args:
        logits: The output of the model, at any resolution.
        size: Height and width of the image.
        align_corners: How logits are upsampled.
        multi_label: Whether each class has a probability of its own.

    Attributes:
        ids: ``(H, W)``, int64; for multi-label data ``(H, W, C)``, uint8, 0 or 1.
        num_channels: Number of probabilities per pixel; 2 for one logit.

    Shape:
        - logits: ``(1, C, h, w)``.

    Raises:
        NumericError: When a logit is NaN or infinite.
    """

    def __init__(
        self, logits: Tensor, size: tuple[int, int], align_corners: bool, *, multi_label: bool
    ) -> None:
        if not torch.isfinite(logits).all():
            raise NumericError(
                "the model's logits are NaN or infinite; check the values of the image, or train"
                " again with a lower optimizer.lr or trainer.precision=fp32"
            )
        found = predict_ids(logits, size, align_corners, multi_label=multi_label)[0]
        self.ids: NDArray[Any] = (found.permute(1, 2, 0) if multi_label else found).cpu().numpy()
        self.size = size
        self._logits, self._align_corners, self._multi_label = logits, align_corners, multi_label
        is_binary = logits.shape[1] == 1 and not multi_label
        self.num_channels = 2 if is_binary else logits.shape[1]

    def bands(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield bands of rows from the top, each with its probabilities.

        Shape:
            - output: ``(num_channels, rows, W)``, float32, from 0 to 1. They add up to 1, except
              for multi-label data.
        """
        height, width = self.size
        logits = upsample(self._logits, self.size, self._align_corners)[0]
        for rows in split_rows(height, width * self.num_channels):
            yield rows, self._probabilities(logits[:, rows].float()).cpu().numpy()

    def probabilities(self) -> NDArray[np.float32]:
        """Return the probabilities of the whole image, ``(num_channels, H, W)``, float32."""
        found = np.empty((self.num_channels, *self.size), np.float32)
        for rows, band in self.bands():
            found[:, rows] = band
        return found

    def _probabilities(self, logits: Tensor) -> Tensor:
        if self._multi_label:
            return logits.sigmoid()
        if len(logits) == 1:
            there = logits.sigmoid()
            return torch.cat([1 - there, there])
        return logits.softmax(0)


def split_rows(height: int, row_values: int, most: int = _BAND_VALUES) -> Iterator[slice]:
    """Cut rows into bands of about `most` values.

    Args:
        height: Number of rows.
        row_values: Number of values in a row.
        most: Number of values in a band; a band has at least one row.

    Example:
        >>> list(split_rows(5, 10, most=20))
        [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    step = max(most // max(row_values, 1), 1)
    for start in range(0, height, step):
        yield slice(start, min(start + step, height))
