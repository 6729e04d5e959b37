"""Predict images larger than memory, window by window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segtrain.data.io.windows import RasterFile
from segtrain.errors import ChannelsError
from segtrain.inference.inputs import wrong_channels
from segtrain.inference.prediction import split_rows
from segtrain.inference.predictor import Predictor
from segtrain.inference.writers import Band, Target, Writer

WINDOW = (1024, 1024)
_BAND_VALUES = 1 << 23  # ids or probabilities in a band of whole rows
_WRITTEN_PIXELS = 1 << 20  # of a band as writers get it


def predict_raster(
    predictor: Predictor,
    raster: RasterFile,
    writers: Sequence[Writer],
    target: Target,
    *,
    valid: RasterFile | None = None,
    window: tuple[int, int] | None = None,
    show: Callable[[str], None] = lambda _: None,
) -> None:
    """Predict an image in windows, and write it in bands of rows.

    Args:
        predictor: The predictor; its `size` is not used, since windows keep their resolution.
        raster: The image.
        writers: The writers, which have been started.
        target: The image as the writers know it.
        valid: A file of the same size that is not 0 at the pixels that count; None: all count.
        window: Height and width of a window; None: :data:`WINDOW`.
        show: Called with the progress in words.

    Raises:
        DataError: When a window cannot be read.
        NumericError: When a logit is NaN or infinite.
    """
    needs = {
        "with_probabilities": any(writer.needs_probabilities for writer in writers),
        "with_pixels": any(writer.needs_pixels for writer in writers),
    }
    for band in predict_bands(predictor, raster, window or WINDOW, **needs):
        _ignore(band, raster, valid, predictor.labels.ignore_label)
        write_band(writers, band)
        show(f"row {band.rows.stop} of {target.height}")


def write_band(writers: Sequence[Writer], band: Band) -> None:
    """Hand the rows of a band to writers, in parts that need little memory."""
    first = band.rows.start
    for rows in split_rows(len(band.ids), band.ids.shape[1], _WRITTEN_PIXELS):
        part = Band(
            slice(first + rows.start, first + rows.stop),
            band.ids[rows],
            None if band.probabilities is None else band.probabilities[:, rows],
            None if band.pixels is None else band.pixels[rows],
        )
        for writer in writers:
            writer.write(part)


def predict_bands(
    predictor: Predictor,
    raster: RasterFile,
    window: tuple[int, int],
    *,
    with_probabilities: bool,
    with_pixels: bool,
) -> Iterator[Band]:
    """Yield predictions for bands of whole rows, from the top."""
    labels = predictor.labels
    per_pixel = labels.num_ids if with_probabilities or labels.multi_label else 1
    most = max(_BAND_VALUES // (per_pixel * raster.width), 1)
    for rows in split_rows(raster.height, 1, min(window[0], most)):
        band = _predict_rows(predictor, raster, rows, window[1], with_probabilities)
        yield band if with_pixels else band._replace(pixels=None)


def _predict_rows(
    predictor: Predictor, raster: RasterFile, rows: slice, width: int, wanted: bool
) -> Band:
    """Predict whole rows, from windows of this width."""
    parts = [
        _predict_window(predictor, raster, rows, columns, wanted)
        for columns in split_rows(raster.width, 1, width)
    ]
    ids, probabilities, pixels = zip(*parts, strict=True)
    joined = np.concatenate(probabilities, axis=2) if wanted else None
    return Band(rows, np.concatenate(ids, axis=1), joined, _joined(pixels))


def _predict_window(
    predictor: Predictor, raster: RasterFile, rows: slice, columns: slice, wanted: bool
) -> tuple[NDArray[Any], NDArray[np.float32] | None, NDArray[Any]]:
    """Return ids in a small type, probabilities if they are `wanted`, and pixels of a window."""
    try:
        pixels = raster.read(rows, columns)
    except ChannelsError:
        raise wrong_channels(str(raster.path), raster.channels) from None
    found = predictor.predict(pixels, name=str(raster.path), resize=False)
    ids = found.ids.astype(predictor.labels.dtype, copy=False)
    return ids, found.probabilities() if wanted else None, pixels


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Join windows side by side; those without a missing pixel may be uint8 beside floats."""
    if any(part.dtype != np.uint8 for part in parts):
        parts = [part / np.float32(255) if part.dtype == np.uint8 else part for part in parts]
    return np.concatenate(parts, axis=1)


def _ignore(band: Band, raster: RasterFile, valid: RasterFile | None, label: int) -> None:
    """Give pixels of a band that have no data, or do not count, the ignore label."""
    everything = slice(0, raster.width)
    has_data = raster.valid(band.rows, everything)
    if has_data is not None:
        band.ids[~has_data] = label
    if valid is not None:
        band.ids[~valid.nonzero(band.rows, everything)] = label
