"""What every writer of predictions has: it takes an image in bands of rows, from the top."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segtrain.data.io.geo import Georeference
from segtrain.files import temporary_name


class Target(NamedTuple):
    """The image that is written.

    Attributes:
        stem: The name of its files below the folder of a writer, without ending, as in ``a/b/x``.
        file_name: The name of the image, with ending.
        height: Number of rows.
        width: Number of columns.
        georeference: Where the image lies on the ground; None: unknown.
        as_tiff: Whether pictures are TIFF files, not PNG files.
    """

    stem: str
    file_name: str
    height: int
    width: int
    georeference: Georeference | None = None
    as_tiff: bool = False


class Band(NamedTuple):
    """Some rows of a prediction.

    Attributes:
        rows: The first row, and the row after the last one.
        ids: ``(R, W)``, integers: class ids and the ignore label; for multi-label data
            ``(R, W, C)``, 0, 1 or the ignore label.
        probabilities: ``(num_ids, R, W)``, float32, from 0 to 1; None if no writer needs them.
        pixels: ``(R, W, channels)``, uint8, or float32 from 0 to 1; None if no writer needs them.
    """

    rows: slice
    ids: NDArray[Any]
    probabilities: NDArray[np.float32] | None = None
    pixels: NDArray[Any] | None = None


class NewFile:
    """A file that is written in parts, and takes its place when it is complete.

    Args:
        path: The file.
        mode: How it is opened: ``wb``, or ``w+b`` to read and seek as well.
    """

    def __init__(self, path: Path, mode: Literal["wb", "w+b"] = "wb") -> None:
        self.path, self._temporary = path, temporary_name(path)
        self.stream: IO[bytes] = self._temporary.open(mode)

    def finish(self) -> None:
        """Replace the file by what was written."""
        self.stream.close()
        self._temporary.replace(self.path)

    def abort(self) -> None:
        """Remove what was written."""
        self.stream.close()
        self._temporary.unlink(missing_ok=True)


class Writer:
    """Writes one kind of file for each image.

    The calls for an image are :meth:`start`, :meth:`write` for each band from the top without a
    gap, and :meth:`finish`, or :meth:`abort` after an error, which leaves nothing half-written.

    Attributes:
        needs_probabilities: Whether bands must have probabilities.
        needs_pixels: Whether bands must have the pixels of the image.
    """

    needs_probabilities = False
    needs_pixels = False

    def start(self, target: Target) -> None:
        """Begin the next image."""

    def write(self, band: Band) -> None:
        """Write the next rows."""

    def finish(self) -> None:
        """Complete the files of the image; they replace older ones."""

    def abort(self) -> None:
        """Drop what was written for the image."""

    def start_video(self, stem: str, rate: float) -> None:
        """Begin a video, whose frames are the images until :meth:`finish_video`."""

    def finish_video(self, *, complete: bool) -> None:
        """End the video; one that is not `complete`, because a frame failed, is dropped."""

    def close(self) -> None:
        """Write what concerns all images, after the last one."""


def path_of(folder: Path, target: Target, ending: str) -> Path:
    """Return the file of an image, whose folder is created."""
    path = folder / f"{target.stem}{ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
