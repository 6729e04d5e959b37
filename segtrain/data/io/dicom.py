"""DICOM files with one image, read by pydicom."""

from __future__ import annotations

import importlib
import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from segtrain.data.io.raster import NeedsPackageError, NotAnImageError, Raster, check_pixels
from segtrain.errors import one_line

DICOM_ENDINGS = (".dcm", ".dicom")
START = 132  # bytes that tell a DICOM file
_MARK, _MARK_PLACE = b"DICM", 128
_INVERTED, _PALETTE = "MONOCHROME1", "PALETTE COLOR"
_LOSSY = ("JPEGBaseline8Bit", "JPEGExtended12Bit", "JPEGLSNearLossless", "JPEG2000", "HTJ2K")
# In the messages of pydicom about compression for which no decoder is installed.
_NO_DECODER = ("missing dependencies", "Pillow does not support")
_SIZE = ["Rows", "Columns", "NumberOfFrames", "Modality"]


def is_dicom(data: bytes) -> bool:
    """Whether `data` is the start of a DICOM file.

    Example:
        >>> is_dicom(bytes(128) + b"DICM"), is_dicom(bytes(132))
        (True, False)
    """
    return data[_MARK_PLACE:START] == _MARK


def load_image(data: bytes, max_pixels: int) -> Raster:
    """Decode an image; CT values become Hounsfield units, colours and palettes RGB.

    Raises:
        TooLargeError: When it has more than `max_pixels` pixels.
        NotAnImageError: When the file has no pixels, or several frames.
        NeedsPackageError: When pydicom, or a decoder for its compression, is not installed.
        ValueError: When it is damaged.
    """
    dataset = _read(data, max_pixels)
    pixels = _decode(dataset)
    if dataset.PhotometricInterpretation == _PALETTE:
        return _raster(dataset, _rules().apply_color_lut(pixels, dataset))
    if dataset.PhotometricInterpretation != _INVERTED:
        return _raster(dataset, _scaled(dataset, pixels))
    span = 1 << dataset.BitsStored
    low = -span // 2 if dataset.PixelRepresentation else 0
    ends = _scaled(dataset, np.array([low, low + span - 1], pixels.dtype))
    return _raster(dataset, ends.sum(dtype=ends.dtype) - _scaled(dataset, pixels))


def load_mask(data: bytes, max_pixels: int) -> Raster:
    """Decode the values of a mask as the file stores them; for a palette these are the indices.

    Raises:
        Exception: As :func:`load_image`.
    """
    dataset = _read(data, max_pixels)
    return _raster(dataset, _decode(dataset))


def load_size(stream: IO[bytes], max_pixels: int) -> tuple[int, int]:
    """Read height and width from the header.

    Raises:
        Exception: As :func:`load_image`.
    """
    pydicom = _pydicom()
    with _plain_errors():
        header = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=_SIZE)
        return _checked_size(header, max_pixels)


def _pydicom() -> Any:
    try:
        return importlib.import_module("pydicom")
    except ImportError:
        raise NeedsPackageError(
            'a DICOM file needs the package pydicom: pip install "segtrain[dicom]"'
        ) from None


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Turn the errors of pydicom for damaged files into :class:`ValueError`."""
    own = importlib.import_module("pydicom.errors").InvalidDicomError
    try:
        yield
    except (AttributeError, struct.error, own) as error:
        raise ValueError(one_line(error)) from error


def _read(data: bytes, max_pixels: int) -> Any:
    pydicom = _pydicom()
    with _plain_errors():
        dataset = pydicom.dcmread(io.BytesIO(data))
        _checked_size(dataset, max_pixels)
    return dataset


def _checked_size(header: Any, max_pixels: int) -> tuple[int, int]:
    if "Rows" not in header:
        raise NotAnImageError(
            f"the DICOM file (modality {header.get('Modality') or 'unknown'}) has no pixels; remove"
            " it, or give a glob that does not match it"
        )
    frames = int(header.get("NumberOfFrames") or 1)
    if frames > 1:
        raise NotAnImageError(
            f"the DICOM file has {frames} frames; write each frame to a file of its own, or all"
            " frames to a NIfTI volume"
        )
    check_pixels(header.Rows, header.Columns, max_pixels)
    return int(header.Rows), int(header.Columns)


def _decode(dataset: Any) -> NDArray[Any]:
    try:
        with _plain_errors():
            pixels: NDArray[Any] = dataset.pixel_array
    except RuntimeError as error:
        if any(text in str(error) for text in _NO_DECODER):
            raise NeedsPackageError(
                f"a DICOM file with {dataset.file_meta.TransferSyntaxUID.name} compression needs"
                " the package pylibjpeg: pip install pylibjpeg pylibjpeg-libjpeg"
                " pylibjpeg-openjpeg"
            ) from None
        raise
    if pixels.dtype == np.float64:
        return pixels.astype(np.float32)
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _raster(dataset: Any, pixels: NDArray[Any]) -> Raster:
    syntax = dataset.file_meta.TransferSyntaxUID
    lossy = f"DICOM ({syntax.name})" if syntax.keyword in _LOSSY else None
    return Raster(np.ascontiguousarray(pixels), lossy=lossy)


def _rules() -> Any:
    return importlib.import_module("pydicom.pixels")


def _scaled(dataset: Any, pixels: NDArray[Any]) -> NDArray[Any]:
    """Return the values that the stored ones mean, such as Hounsfield units."""
    line = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    if line == (1, 0) and "ModalityLUTSequence" not in dataset:
        return pixels  # pydicom would only make them floats
    scaled: NDArray[Any] = _rules().apply_modality_lut(pixels, dataset)
    return scaled.astype(np.float32) if scaled.dtype.kind == "f" else scaled
