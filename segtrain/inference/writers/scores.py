"""Files of probabilities and of uncertainty."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segtrain.inference.writers.base import Band, NewFile, Target, Writer, path_of
from segtrain.inference.writers.layers import Layer
from segtrain.inference.writers.pictures import Format

_FOLDER = "probabilities"


class NumpyProbabilities(Writer):
    """Writes probabilities as ``.npy`` files ``(num_ids, H, W)``, float16.

    Args:
        output: The folder to write to.
        num_ids: Number of probabilities per pixel.
    """

    needs_probabilities = True

    def __init__(self, output: Path, num_ids: int) -> None:
        self.folder, self.num_ids = output / _FOLDER, num_ids
        self._file: NewFile | None = None

    def start(self, target: Target) -> None:
        """Write the header."""
        self._file = NewFile(path_of(self.folder, target, ".npy"), "w+b")
        self._size = (target.height, target.width)
        header = {"descr": "<f2", "fortran_order": False, "shape": (self.num_ids, *self._size)}
        np.lib.format.write_array_header_2_0(self._file.stream, header)
        self._begin = self._file.stream.tell()

    def write(self, band: Band) -> None:
        """Write rows of every class at their place."""
        height, width = self._size
        if self._file is None or band.probabilities is None:
            raise ValueError("the writer was not started, or the band has no probabilities")
        for index, part in enumerate(band.probabilities.astype("<f2")):
            self._file.stream.seek(self._begin + (index * height + band.rows.start) * width * 2)
            self._file.stream.write(part.tobytes())

    def finish(self) -> None:
        """Complete the file."""
        if self._file is not None:
            self._file.finish()
            self._file = None

    def abort(self) -> None:
        """Remove the file."""
        if self._file is not None:
            self._file.abort()
            self._file = None


def probability_layer(num_ids: int) -> Layer:
    """Return the layer of probabilities as TIFF files with a band per class, 255 for 1."""

    def draw(band: Band) -> NDArray[Any]:
        return np.moveaxis(_as_bytes(_given(band)), 0, 2)

    return Layer(_FOLDER, Format("uint8", num_ids), draw)


def uncertainty_layers(*, multi_label: bool) -> list[Layer]:
    """Return the layers of entropy and margin, from 0 (certain) to 255, in ``uncertainty``."""

    def draw_entropy(band: Band) -> NDArray[Any]:
        return _as_bytes(entropy(_given(band), multi_label=multi_label))

    def draw_margin(band: Band) -> NDArray[Any]:
        return _as_bytes(margin(_given(band), multi_label=multi_label))

    form = Format("uint8")
    return [
        Layer("uncertainty/entropy", form, draw_entropy),
        Layer("uncertainty/margin", form, draw_margin),
    ]


def entropy(probabilities: NDArray[np.float32], *, multi_label: bool = False) -> NDArray[Any]:
    """Return the entropy of each pixel, divided by its maximum.

    For multi-label data this is the mean over the classes of the entropy of yes and no.

    Shape:
        - probabilities: ``(C, H, W)``.
        - output: ``(H, W)``, from 0 to 1.

    Example:
        >>> entropy(np.full((4, 1, 1), 0.25)).round(6).tolist()
        [[1.0]]
    """
    if multi_label:
        pairs = np.stack([probabilities, 1 - probabilities])
        return np.asarray(_plogp(pairs).sum(0).mean(0) / np.log(2))
    return np.asarray(_plogp(probabilities).sum(0) / np.log(max(len(probabilities), 2)))


def margin(probabilities: NDArray[np.float32], *, multi_label: bool = False) -> NDArray[Any]:
    """Return 1 minus the difference of the two largest probabilities of each pixel.

    For multi-label data this is the value of the least certain class, between yes and no.

    Shape:
        - probabilities: ``(C, H, W)``.
        - output: ``(H, W)``, from 0 to 1.

    Example:
        >>> margin(np.array([[[0.5]], [[0.25]], [[0.25]]])).tolist()
        [[0.75]]
    """
    if multi_label:
        return np.asarray((1 - np.abs(2 * probabilities - 1)).max(0))
    if len(probabilities) == 1:
        return np.zeros(probabilities.shape[1:], np.float32)
    second, first = np.partition(probabilities, -2, axis=0)[-2:]
    return np.asarray(1 - (first - second))


def _plogp(probabilities: NDArray[np.float32]) -> NDArray[Any]:
    found: NDArray[Any] = -probabilities * np.log(np.maximum(probabilities, 1e-30))
    return found


def _as_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    found: NDArray[np.uint8] = (values.clip(0, 1) * 255).round().astype(np.uint8)
    return found


def _given(band: Band) -> NDArray[np.float32]:
    if band.probabilities is None:
        raise ValueError("this output needs probabilities")
    return band.probabilities
