"""Predict files: whole images, images larger than memory, and videos."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segtrain.data import ImageValues
from segtrain.data.io.dicom import DICOM_ENDINGS
from segtrain.data.io.geo import GEO_ADVICE, is_georeferenced, load_rasterio
from segtrain.data.io.windows import RasterFile, open_raster
from segtrain.errors import DataError
from segtrain.inference.inputs import read_file
from segtrain.inference.prediction import Prediction, split_rows
from segtrain.inference.predictor import Predictor
from segtrain.inference.rasters import predict_raster, write_band
from segtrain.inference.sources import Source, Video
from segtrain.inference.writers import Band, Target, Writer
from segtrain.terminal import logger

_UNCUT = (".npy", ".npz", *DICOM_ENDINGS)  # formats without windows
_MAY_LACK_DATA = (".tif", ".tiff", *_UNCUT)


def may_lack_data(source: Source) -> bool:
    """Whether pixels of a file may have no data: NaN, or a value or a mask of its own."""
    return source.path.suffix.lower() in _MAY_LACK_DATA


class FilePredictor:
    """Predicts files and writes the results.

    Args:
        predictor: The predictor.
        writers: What is written.
        show: Called with the progress inside a file, in words.

    Attributes:
        num_images: Number of images and frames that were written.
        unlike: Number of files that hold other values than those of the training.
    """

    def __init__(
        self,
        predictor: Predictor,
        writers: Sequence[Writer],
        show: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.predictor, self.writers, self._show = predictor, writers, show
        self.num_images = self.unlike = 0
        self._told_of_rasterio = self._told_of_size = False
        self._needs_probabilities = any(writer.needs_probabilities for writer in writers)

    def __call__(self, source: Source, valid: Path | None = None) -> None:
        """Predict one input.

        Args:
            source: The input.
            valid: A file that is not 0 at the pixels that count; None: all pixels count.

        Raises:
            DataError: When it cannot be read, or the sizes differ.
            NumericError: When a logit is NaN or infinite.
            ResourceError: When it does not fit into memory.
        """
        if source.is_video:
            self._predict_video(source)
        elif self._is_large(source.path):
            self._predict_large(source, valid)
        else:
            self._predict_whole(source, valid)

    def close(self) -> None:
        """Complete what concerns all files."""
        for writer in self.writers:
            writer.close()
        if self.unlike > 1:
            logger.warning(
                "%d files hold other values than those of the training; the first is named above",
                self.unlike,
            )

    # ------------------------------------------------------------------ the kinds of inputs

    def _is_large(self, path: Path) -> bool:
        if path.suffix.lower() in _UNCUT or not path.is_file():
            return False
        reader = self.predictor.reader
        height, width, orientation = replace(reader, max_pixels=sys.maxsize).header(path)
        is_large = height * width > reader.max_pixels
        if is_large and reader.turns and orientation != 1:
            raise DataError(
                f"{path}: it has more pixels than dataset.max_pixels={reader.max_pixels:,} and is"
                f" stored turned or mirrored (orientation {orientation}), but windows are read"
                " upright only; write it upright"
            )
        return is_large

    def _predict_whole(self, source: Source, valid: Path | None) -> None:
        path = source.path
        pixels, values = read_file(path, self.predictor.reader)
        self._compare(path, values)
        height, width = pixels.shape[:2]
        counts = None if valid is None else self.predictor.read_valid(valid, path, pixels.shape)
        place = None
        with self._georeferenced(path) as raster:
            if raster is not None:
                place = raster.georeference
                has_data = raster.valid(slice(0, height), slice(0, width))
                if has_data is not None:
                    counts = has_data if counts is None else counts & has_data
        prediction = self.predictor.predict(pixels, counts, name=str(path))
        target = Target(
            source.stem, _file_name(source), height, width, place, as_tiff=place is not None
        )
        self._write_whole(target, pixels, prediction)

    def _write_whole(self, target: Target, pixels: NDArray[Any], prediction: Prediction) -> None:
        with self._written(target):
            for rows, probabilities in self._bands(prediction, target):
                write_band(
                    self.writers, Band(rows, prediction.ids[rows], probabilities, pixels[rows])
                )

    def _bands(
        self, prediction: Prediction, target: Target
    ) -> Iterator[tuple[slice, NDArray[np.float32] | None]]:
        if self._needs_probabilities:
            yield from prediction.bands()
        else:
            yield from ((rows, None) for rows in split_rows(target.height, target.width))

    def _predict_large(self, source: Source, valid: Path | None) -> None:
        reader, trained = self.predictor.reader, self.predictor.size
        if trained is not None and not self._told_of_size:
            logger.warning(
                "%s has more pixels than dataset.max_pixels, so it is predicted in windows at the"
                " resolution of the file; size=[%d,%d] is not used",
                *(source.path, *trained),
            )
            self._told_of_size = True
        with ExitStack() as stack:
            raster = stack.enter_context(open_raster(source.path, reader))
            counts = None if valid is None else stack.enter_context(open_raster(valid, reader))
            size = (raster.height, raster.width)
            if counts is not None and (counts.height, counts.width) != size:
                raise DataError(
                    f"{valid}: the valid file is {counts.height} x {counts.width} (height x width),"
                    f" but its image {source.path} is {size[0]} x {size[1]}; resize or replace one"
                    " of them"
                )
            target = Target(
                source.stem, _file_name(source), *size, raster.georeference, as_tiff=True
            )
            with self._written(target):
                predict_raster(
                    self.predictor, raster, self.writers, target, valid=counts, show=self._show
                )
            if raster.values is not None:
                self._compare(source.path, raster.values)

    def _predict_video(self, source: Source) -> None:
        with Video(source.path) as video:
            for writer in self.writers:
                writer.start_video(source.stem, video.rate)
            complete = False
            try:
                for number, frame in enumerate(video, start=1):
                    self._predict_frame(source, number, frame)
                    self._show(f"frame {number} of {video.num_frames}")
                complete = True
            finally:
                for writer in self.writers:
                    writer.finish_video(complete=complete)

    def _predict_frame(self, source: Source, number: int, frame: NDArray[np.uint8]) -> None:
        name = f"{source.path}, frame {number}"
        pixels = self.predictor.reader.convert(frame, name)
        stem = f"{source.stem}_{number:06d}"
        height, width = pixels.shape[:2]
        target = Target(stem, f"{stem}.png", height, width)
        self._write_whole(target, pixels, self.predictor.predict(pixels, name=name))

    # ------------------------------------------------------------------ what they share

    @contextmanager
    def _written(self, target: Target) -> Iterator[None]:
        """Start the writers, and finish them if the block succeeds."""
        started: list[Writer] = []
        try:
            for writer in self.writers:
                started.append(writer)
                writer.start(target)
            yield
            for writer in self.writers:
                writer.finish()
        except BaseException:
            for writer in started:
                writer.abort()
            raise
        self.num_images += 1

    @contextmanager
    def _georeferenced(self, path: Path) -> Iterator[RasterFile | None]:
        """Open a GeoTIFF file for what lies beside its pixels; None for another file."""
        if not is_georeferenced(path):
            yield None
        elif load_rasterio() is None:
            if not self._told_of_rasterio:
                logger.warning(
                    "%s is a GeoTIFF, but predictions are written without its place on the ground,"
                    " which needs the package rasterio: %s",
                    *(path, GEO_ADVICE),
                )
            self._told_of_rasterio = True
            yield None
        else:
            with open_raster(path, self.predictor.reader) as raster:
                yield raster

    def _compare(self, path: Path, values: ImageValues) -> None:
        """Warn of a file that holds other values than those of the training, such as 16 bits."""
        found = self.predictor.other_values(values)
        if found is None:
            return
        self.unlike += 1
        if self.unlike == 1:
            logger.warning(
                "%s holds %s, so predictions may mean nothing: convert the images", path, found
            )


def _file_name(source: Source) -> str:
    return f"{source.stem}{source.path.suffix}"
