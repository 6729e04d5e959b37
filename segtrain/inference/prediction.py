"""What a model predicts for one image: class ids, and probabilities by bands of rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segtrain.engine.views import Logits
from segtrain.errors import NumericError

_BAND_VALUES = 1 << 22  # values in a band


class Prediction:
    """The prediction for one image.

    Args:
        logits: The logits of one image.
        thresholds: As for :func:`~segtrain.engine.class_ids.predict_ids`.

    Attributes:
        ids: ``(H, W)``, int64; for multi-label data ``(H, W, C)``, uint8, 0 or 1.
        num_channels: Number of probabilities per pixel; 2 for one logit.

    Raises:
        NumericError: When a logit is NaN or infinite.
    """

    def __init__(self, logits: Logits, thresholds: tuple[float, ...] | None = None) -> None:
        check_finite(logits.is_finite())
        self.ids: NDArray[Any] = ids_last(logits.ids(thresholds)[0])
        num_logits = logits.views[0].shape[1]
        self.num_channels = 2 if num_logits == 1 and not logits.multi_label else num_logits
        self._logits = logits

    def bands(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield bands of rows from the top, each with its probabilities.

        Shape:
            - output: ``(num_channels, rows, W)``, float32, from 0 to 1. They add up to 1, except
              for multi-label data.
        """
        for rows, strip in self._logits.strips():
            yield rows, probabilities_of(strip[0], multi_label=self._logits.multi_label)

    def probabilities(self) -> NDArray[np.float32]:
        """Return the probabilities of the whole image, ``(num_channels, H, W)``, float32."""
        found = np.empty((self.num_channels, *self._logits.size), np.float32)
        for rows, band in self.bands():
            found[:, rows] = band
        return found


def check_finite(is_finite: Tensor) -> None:
    """Refuse logits that are not finite.

    Raises:
        NumericError: When `is_finite` is False.
    """
    if not bool(is_finite):
        raise NumericError(
            "the model's logits are NaN or infinite; check the values of the image, or train"
            " again with a lower optimizer.lr or trainer.precision=fp32"
        )


def ids_last(ids: Tensor) -> NDArray[Any]:
    """Class ids ``(H, W)`` or ``(C, H, W)`` as an array, the classes last."""
    found: NDArray[Any] = (ids.permute(1, 2, 0) if ids.ndim == 3 else ids).cpu().numpy()
    return found


def probabilities_of(logits: Tensor, *, multi_label: bool) -> NDArray[np.float32]:
    """The probabilities of logits ``(C, H, W)``; of one logit those of both classes."""
    if multi_label:
        found = logits.sigmoid()
    elif len(logits) == 1:
        there = logits.sigmoid()
        found = torch.cat([1 - there, there])
    else:
        found = logits.softmax(0)
    values: NDArray[np.float32] = found.cpu().numpy()
    return values


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
