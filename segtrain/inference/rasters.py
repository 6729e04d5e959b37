"""Predict images larger than memory, window by window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from segtrain.data.io.windows import RasterFile
from segtrain.engine.class_ids import predict_ids, strips_of
from segtrain.engine.windows import Span, rows_of
from segtrain.errors import ChannelsError, NumericError
from segtrain.inference.inputs import wrong_channels
from segtrain.inference.prediction import check_finite, ids_last, probabilities_of, split_rows
from segtrain.inference.predictor import Predictor
from segtrain.inference.writers import Band, Target, Writer

WINDOW = (1024, 1024)
"""Height and width of the windows, unless the predictor has others."""
_BAND_VALUES = 1 << 22  # ids or probabilities in a band of whole rows
_WRITTEN_PIXELS = 1 << 20  # of a band as writers get it


def predict_raster(
    predictor: Predictor,
    raster: RasterFile,
    writers: Sequence[Writer],
    target: Target,
    *,
    valid: RasterFile | None = None,
    show: Callable[[str], None] = lambda _: None,
) -> None:
    """Predict an image in windows, and write it in bands of rows.

    Args:
        predictor: The predictor; its `size` is not used, since windows keep their resolution.
        raster: The image.
        writers: The writers, which have been started.
        target: The image as the writers know it.
        valid: A file of the same size that is not 0 at the pixels that count; None: all count.
        show: Called with the progress in words.

    Raises:
        DataError: When a window cannot be read.
        NumericError: When a logit is NaN or infinite.
    """
    needs = {
        "with_probabilities": any(writer.needs_probabilities for writer in writers),
        "with_pixels": any(writer.needs_pixels for writer in writers),
    }
    for band in predict_bands(predictor, raster, **needs):
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
    predictor: Predictor, raster: RasterFile, *, with_probabilities: bool, with_pixels: bool
) -> Iterator[Band]:
    """Yield predictions for bands of whole rows, from the top.

    The model sees overlapping windows, whose logits are blended.

    Raises:
        ConfigError: When several scales are chosen.
    """
    views = predictor.views_of_windows(WINDOW)
    size = (raster.height, raster.width)

    def read(rows: Span, columns: Span) -> Tensor:
        try:
            pixels = raster.read(slice(*rows), slice(*columns))
        except ChannelsError:
            raise wrong_channels(str(raster.path), raster.channels) from None
        return predictor.normalized(pixels)

    multi_label, align_corners = predictor.labels.multi_label, predictor.model.align_corners
    per_pixel = predictor.labels.num_ids if with_probabilities or multi_label else 1
    most = max(_BAND_VALUES // (per_pixel * raster.width), 1)
    with torch.no_grad():
        bands = views.bands(read, size)
        for rows, part, logits in rows_of(bands, raster.height, align_corners, most):
            try:
                check_finite(torch.isfinite(logits).all())
            except NumericError as error:
                raise NumericError(f"{raster.path}: {error}") from None
            found = predict_ids(
                logits,
                size,
                align_corners,
                multi_label=multi_label,
                thresholds=predictor.thresholds,
                part=part,
            )[0]
            probabilities = None
            if with_probabilities:
                strips = strips_of(logits, size, align_corners, part)
                values = [probabilities_of(one[0], multi_label=multi_label) for _, one in strips]
                probabilities = np.concatenate(values, axis=1)
            yield Band(
                rows,
                ids_last(found).astype(predictor.labels.dtype, copy=False),
                probabilities,
                raster.read(rows, slice(0, raster.width)) if with_pixels else None,
            )


def _ignore(band: Band, raster: RasterFile, valid: RasterFile | None, label: int) -> None:
    """Give pixels of a band that have no data, or do not count, the ignore label."""
    everything = slice(0, raster.width)
    has_data = raster.valid(band.rows, everything)
    if has_data is not None:
        band.ids[~has_data] = label
    if valid is not None:
        band.ids[~valid.nonzero(band.rows, everything)] = label
