"""The base of the datasets whose objects have a mask file each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segtrain.data.datasets.exports.base import ObjectDataset
from segtrain.data.datasets.exports.objects import AnnotatedObject

_HALF = 127


class MaskPerObjectDataset(ObjectDataset):
    """A dataset whose samples have several mask files, each with one object."""

    def __init__(self, **common: Any) -> None:
        self.classes_of: dict[Path, str] = {}
        super().__init__(**common)

    def objects(self, index: int) -> list[AnnotatedObject]:
        files = self.files[index]
        found = []
        for mask in files.masks:
            if mask is None:
                continue
            pixels = self.reader.mask(mask)
            if pixels.ndim == 3:
                pixels = pixels.max(2)
            most = int(pixels.max(initial=0))
            there = pixels > (_HALF if most > _HALF else 0)
            value = self.value_of(self.classes_of[mask], mask)
            found.append(AnnotatedObject(value, pixels=(there, 0, 0)))
        return found

    def size(self, index: int) -> tuple[int, int]:
        masks = self.files[index].masks
        return super().size(index) if masks[0] is None else self.reader.size(masks[0])

    def mask_kind(self, index: int) -> str:
        names = [self.classes_of[mask] for mask in self.files[index].masks if mask is not None]
        values = [self.raw_values[name] for name in names]
        return f"one mask per object {values} {self.on_top} {self.class_of} {self.reader}"
