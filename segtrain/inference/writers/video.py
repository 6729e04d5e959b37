"""Overlays: pictures of images, and one video for the frames of a video."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from segtrain.errors import ResourceError
from segtrain.files import temporary_name
from segtrain.inference.writers.base import Band, Target
from segtrain.inference.writers.layers import Layer, LayerWriter


class OverlayWriter(LayerWriter):
    """Writes overlays: a picture per image, and ``overlay/VIDEO.mp4`` for a video.

    Args:
        output: The folder to write to.
        layer: Draws the overlay of a band, ``(R, W, 3)``, uint8.
    """

    def __init__(self, output: Path, layer: Layer) -> None:
        super().__init__(output, [layer], needs_pixels=True)
        self._layer = layer
        self._video: _VideoFile | None = None

    def start_video(self, stem: str, rate: float) -> None:
        """Begin a video."""
        self._video = _VideoFile(self.output / self._layer.folder / f"{stem}.mp4", rate)

    def finish_video(self, *, complete: bool) -> None:
        """Complete the video, which replaces an older one, or drop it."""
        if self._video is not None:
            self._video.finish(complete=complete)
        self._video = None

    def start(self, target: Target) -> None:
        """Begin an image, or a frame of the video."""
        if self._video is None:
            super().start(target)
        else:
            self._frame = np.zeros((target.height, target.width, 3), np.uint8)

    def write(self, band: Band) -> None:
        """Draw the next rows."""
        if self._video is None:
            super().write(band)
        else:
            self._frame[band.rows] = self._layer.draw(band)

    def finish(self) -> None:
        """Complete the picture, or add the frame to the video."""
        if self._video is None:
            super().finish()
        else:
            self._video.add(self._frame)


class _VideoFile:
    """An MP4 file; frames of odd sizes get one more row or column, which the codec needs."""

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self.rate = path, rate
        self._file: Any = None
        self._temporary = temporary_name(path).with_suffix(".mp4")  # it decides about the format

    def add(self, frame: Any) -> None:
        """Add a frame, ``(H, W, 3)``, red, green, blue."""
        cv2: Any = importlib.import_module("cv2")
        height, width = frame.shape[:2]
        even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            code = cv2.VideoWriter_fourcc(*"mp4v")
            size = (even.shape[1], even.shape[0])
            self._file = cv2.VideoWriter(str(self._temporary), code, self.rate, size)
            if not self._file.isOpened():
                raise ResourceError(
                    f"{self.path} cannot be written, because OpenCV has no encoder for MPEG-4;"
                    " leave overlay out of outputs"
                )
        self._file.write(np.ascontiguousarray(even[..., ::-1]))

    def finish(self, *, complete: bool) -> None:
        """Complete the file, if it has a frame, or remove it."""
        if self._file is not None:
            self._file.release()
            if complete:
                self._temporary.replace(self.path)
        self._temporary.unlink(missing_ok=True)
