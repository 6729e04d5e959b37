"""A writer of pictures: each layer draws the rows of a prediction into files of its folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from segtrain.inference.writers.base import Band, Target, Writer
from segtrain.inference.writers.pictures import Format, Picture, open_picture


class Layer(NamedTuple):
    """One picture per image.

    Attributes:
        folder: The folder of its files, below that of the output.
        form: Its pixels.
        draw: Returns the pixels of a band, ``(R, W)`` or ``(R, W, channels)``.
    """

    folder: str
    form: Format
    draw: Callable[[Band], NDArray[Any]]


class LayerWriter(Writer):
    """Writes the pictures of some layers.

    Args:
        output: The folder to write to.
        layers: The layers.
        needs_probabilities: Whether a layer draws probabilities.
        needs_pixels: Whether a layer draws the pixels of the image.
    """

    def __init__(
        self,
        output: Path,
        layers: Sequence[Layer],
        *,
        needs_probabilities: bool = False,
        needs_pixels: bool = False,
    ) -> None:
        self.output, self.layers = output, layers
        self.needs_probabilities, self.needs_pixels = needs_probabilities, needs_pixels
        self._open: list[Picture] = []

    def start(self, target: Target) -> None:
        """Open a picture per layer."""
        self._open = []
        for layer in self.layers:
            self._open.append(open_picture(self.output / layer.folder, target, layer.form))

    def write(self, band: Band) -> None:
        """Draw the next rows."""
        for layer, picture in zip(self.layers, self._open, strict=True):
            picture.write(band.rows, layer.draw(band))

    def finish(self) -> None:
        """Complete the pictures."""
        for picture in self._open:
            picture.finish()
        self._open = []

    def abort(self) -> None:
        """Remove the pictures."""
        for picture in self._open:
            with suppress(Exception):  # the error that led here is the one to report
                picture.abort()
        self._open = []
