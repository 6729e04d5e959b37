"""A synthetic dataset without files: simple shapes, drawn on demand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from segtrain.data.dataset import DATASETS, SPLITS, Sample, SegmentationDataset, check_split
from segtrain.data.labels.contract import LabelContract
from segtrain.errors import ConfigError

_NAMES = ("background", "disc", "box", "line", "ring", "dot")
_DISC, _BOX, _LINE, _RING, _DOT = range(1, 6)
_COLOURS = ((90, 90, 90), (220, 60, 60), (60, 110, 220), (240, 200, 60), (70, 190, 90),
            (200, 80, 210))  # fmt: skip
# Mean colours of the objects of each class, with standard deviation _SPREAD: only a hint.
_TINTS = ((120, 120, 120), (190, 85, 70), (70, 100, 190), (215, 190, 60), (60, 175, 95),
          (205, 70, 195))  # fmt: skip
_SPREAD = 20.0
_NOISE = 6.0
_REFERENCE = 96.0  # side of the image to which the sizes below refer
_SMALLEST = 32
_VOID = 255  # the value of the border while drawing, where ids are uint8

_Box = tuple[float, float, float, float]
_Colour = tuple[int, int, int]


@DATASETS.register("shapes")
class ShapesDataset(SegmentationDataset):
    """Discs, boxes, thin lines, rings and rare dots on a textured background.

    Each sample is a pure function of seed, split and index. The dataset shows the usual
    difficulties of real data within minutes on a CPU: classes are far from balanced, colours only
    hint at the class, triangles and crosses in the same colours are background, and a border of one
    pixel around each object is ignored.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``; they share no sample.
        seed: Seed of the drawings; another seed gives another dataset.
        size: Height and width of the images, at least 32 each.
        num_train: Number of samples in the training split.
        num_val: Number of samples in the validation split.
        num_test: Number of samples in the test split; 0: there is no test split.
        ignore_label: The value of the border in the target.
        palette: One RGB colour per class, for drawing.

    Raises:
        ConfigError: When a value is out of range.

    Example:
        >>> dataset = ShapesDataset(split="val")
        >>> len(dataset), dataset[0].image.shape, dataset.class_names[3]
        (128, (96, 96, 3), 'line')
    """

    def __init__(
        self,
        *,
        split: str = "train",
        seed: int = 0,
        size: tuple[int, int] = (96, 96),
        num_train: int = 1024,
        num_val: int = 128,
        num_test: int = 0,
        ignore_label: int = 255,
        palette: Sequence[Sequence[int]] | None = None,
    ) -> None:
        colours = _COLOURS if palette is None else palette
        super().__init__(LabelContract(len(_NAMES), ignore_label, None, _NAMES, colours))
        if min(size) < _SMALLEST:
            raise ConfigError(f"dataset.size must be at least {_SMALLEST} each way, got {size}")
        numbers = {"num_train": num_train, "num_val": num_val, "num_test": num_test}
        for name, value in {"seed": seed, **numbers}.items():
            if value < 0:
                raise ConfigError(f"dataset.{name} must not be negative, got {value}")
        self.split_code = SPLITS.index(check_split(split))  # seeds the drawings of the split
        self.split, self.seed, self.size = split, seed, tuple(size)
        self.length = numbers[f"num_{split}"]
        if split == "test" and not num_test:
            raise ConfigError(
                "dataset.num_test=0, so there is no test split; set it to a number of samples, or"
                " choose another split"
            )

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.length:
            raise IndexError(f"index {index} is outside 0 to {self.length - 1}")
        entropy = np.random.SeedSequence([self.seed, self.split_code, index])
        rng = np.random.Generator(np.random.PCG64(entropy))
        image, ids = _Scene(self.size, rng).draw()
        target = np.where(ids == _VOID, self.ignore_label, ids.astype(np.int64))
        return Sample(image, target, f"{self.split}_{index:05d}")


class _Scene:
    """A drawing: an image and its class ids, drawn in parallel."""

    def __init__(self, size: Sequence[int], rng: np.random.Generator) -> None:
        self.height, self.width = size
        self.rng = rng
        self.unit = min(size) / _REFERENCE
        self.image = _texture(rng, self.height, self.width)
        self.ids = Image.new("L", self.image.size, 0)
        self.image_pen, self.ids_pen = ImageDraw.Draw(self.image), ImageDraw.Draw(self.ids)

    def draw(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Draw all objects, large ones first so that small ones stay visible."""
        rng = self.rng
        plan: list[tuple[Callable[[], None], int | np.integer[Any]]] = [
            (self._distractor, rng.integers(1, 4)),
            (self._disc, rng.integers(1, 3)),
            (self._box, rng.integers(1, 3)),
            (self._ring, rng.integers(0, 2)),
            (self._line, rng.integers(0, 3)),
            (self._dot, rng.integers(1, 4) if rng.random() < 0.3 else 0),
        ]
        for stroke, times in plan:
            for _ in range(times):
                stroke()
        soft = np.asarray(self.image.filter(ImageFilter.BoxBlur(0.5)), dtype=np.float32)
        noise = rng.standard_normal(soft.shape, dtype=np.float32) * _NOISE
        return np.clip(soft + noise, 0, 255).astype(np.uint8), np.array(self.ids)

    def _disc(self) -> None:
        box = self._square(self.rng.uniform(8, 16) * self.unit)
        self.ids_pen.ellipse(_grow(box, 1), fill=_VOID)
        self.ids_pen.ellipse(box, fill=_DISC)
        self.image_pen.ellipse(box, fill=self._paint(_DISC))

    def _box(self) -> None:
        left, top, right, bottom = self._square(self.rng.uniform(8, 15) * self.unit)
        squash = self.rng.uniform(-0.3, 0.3) * (right - left) / 2
        box = (left + squash, top - squash, right - squash, bottom + squash)
        self.ids_pen.rectangle(_grow(box, 1), fill=_VOID)
        self.ids_pen.rectangle(box, fill=_BOX)
        self.image_pen.rectangle(box, fill=self._paint(_BOX))

    def _ring(self) -> None:
        box = self._square(self.rng.uniform(9, 16) * self.unit)
        width = int(self.rng.integers(3, 5))
        self.ids_pen.ellipse(_grow(box, 1), outline=_VOID, width=width + 2)
        self.ids_pen.ellipse(box, outline=_RING, width=width)
        self.image_pen.ellipse(box, outline=self._paint(_RING), width=width)

    def _line(self) -> None:
        angle = self.rng.uniform(0, np.pi)
        reach = self.rng.uniform(18, 45) * self.unit
        x, y = self._point(0.2)
        dx, dy = reach * np.cos(angle), reach * np.sin(angle)
        ends = (x - dx, y - dy, x + dx, y + dy)
        width = int(self.rng.integers(2, 5))
        self.ids_pen.line(ends, fill=_VOID, width=width + 2)
        self.ids_pen.line(ends, fill=_LINE, width=width)
        self.image_pen.line(ends, fill=self._paint(_LINE), width=width)

    def _dot(self) -> None:
        box = self._square(self.rng.uniform(3.0, 4.5) * self.unit)
        self.ids_pen.ellipse(_grow(box, 1), fill=_VOID)
        self.ids_pen.ellipse(box, fill=_DOT)
        self.image_pen.ellipse(box, fill=self._paint(_DOT))

    def _distractor(self) -> None:
        """Draw a triangle or a cross in the colours of a class; the target is background there."""
        paint = self._paint(int(self.rng.integers(1, len(_TINTS))))
        left, top, right, bottom = self._square(self.rng.uniform(6, 13) * self.unit)
        x, y = (left + right) / 2, (top + bottom) / 2
        if self.rng.random() < 0.7:
            self.image_pen.polygon(((x, top), (right, bottom), (left, bottom)), fill=paint)
            return
        arm = (right - left) / 8
        self.image_pen.rectangle((x - arm, top, x + arm, bottom), fill=paint)
        self.image_pen.rectangle((left, y - arm, right, y + arm), fill=paint)

    def _point(self, margin: float) -> tuple[float, float]:
        x, y = self.rng.uniform(margin, 1 - margin, 2)
        return float(x * self.width), float(y * self.height)

    def _square(self, radius: float) -> _Box:
        x, y = self._point(0.08)
        return x - radius, y - radius, x + radius, y + radius

    def _paint(self, class_id: int) -> _Colour:
        colour = np.asarray(_TINTS[class_id]) + self.rng.normal(0, _SPREAD, 3)
        red, green, blue = (int(channel) for channel in np.clip(colour, 0, 255))
        return red, green, blue


def _texture(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """Return coarse and fine blotches of weak colour around a random grey."""
    base = rng.uniform(85, 155)
    layers = []
    for cells, strength in ((4, 22), (16, 12)):
        grid = np.clip(128 + rng.normal(0, strength, (cells, cells, 3)), 0, 255).astype(np.uint8)
        smooth = Image.fromarray(grid).resize((width, height), Image.Resampling.BILINEAR)
        layers.append(np.asarray(smooth, dtype=np.float32) - 128)
    return Image.fromarray(np.clip(base + sum(layers), 0, 255).astype(np.uint8))


def _grow(box: _Box, by: float) -> _Box:
    left, top, right, bottom = box
    return left - by, top - by, right + by, bottom + by
