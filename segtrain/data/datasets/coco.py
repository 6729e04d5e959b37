"""COCO's panoptic format: PNG files of segments, and a JSON file with the category of each."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segtrain.data.dataset import DATASETS, SampleFiles
from segtrain.data.datasets.configured import ConfiguredDataset
from segtrain.data.io.storage import is_file, read_bytes
from segtrain.errors import DataError, one_line

_KEYS = ("annotations", "images", "masks")
_VOID = 0  # segment id and raw value of pixels without a category


@DATASETS.register("coco")
class CocoDataset(ConfiguredDataset):
    """Images with panoptic masks, from which the categories are learned.

    The raw value of a pixel is the category of its segment, or 0 without a category; `label_map`
    maps it to a class. Use ``folder`` for COCO's stuff masks, which hold class ids.

    Args:
        train: ``annotations``, the JSON file, and the directories ``images`` and ``masks``.
        val: The same for the validation split.
        test: The same for the test split; None: there is no test split.
        **common: See :class:`~segtrain.data.datasets.configured.ConfiguredDataset`.

    Raises:
        ConfigError: When the split is not configured, or the labels contradict each other.
        DataError: When files are missing, or the JSON file does not have the panoptic format.

    References:
        Kirillov, He, Girshick, Rother, Dollar: Panoptic Segmentation. CVPR 2019.
    """

    def __init__(
        self,
        *,
        train: Mapping[str, str] | None = None,
        val: Mapping[str, str] | None = None,
        test: Mapping[str, str] | None = None,
        **common: Any,
    ) -> None:
        self.sections = {"train": train, "val": val, "test": test}
        self.segments: dict[Path, dict[int, int]] = {}
        super().__init__(**common)

    def find(self) -> list[SampleFiles]:
        where = f"dataset.{self.split}"
        section = self.check_section(
            self.sections[self.split], _KEYS, "a file or directory", needed=3
        )
        path = self.root / Path(section["annotations"]).expanduser()
        found = []
        try:
            content = json.loads(read_bytes(path))
            image_names = {entry["id"]: str(entry["file_name"]) for entry in content["images"]}
            for entry in content["annotations"]:
                image = self.root / section["images"] / image_names[entry["image_id"]]
                mask = self.root / section["masks"] / str(entry["file_name"])
                self.segments[mask] = {
                    int(segment["id"]): int(segment["category_id"])
                    for segment in entry["segments_info"]
                }
                found.append(SampleFiles(image, (mask,), image.stem))
        except OSError as error:
            raise DataError(
                f"{where}.annotations: {path} cannot be read ({error.strerror or error})"
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else one_line(error)
            raise DataError(f"{path} does not have COCO's panoptic format: {reason}") from None
        return self._existing(found, path)

    def _existing(self, found: list[SampleFiles], path: Path) -> list[SampleFiles]:
        kept = []
        for files in found:
            missing = [file for file in (files.image, files.mask) if not is_file(file)]
            if not missing:
                kept.append(files)
                continue
            problem = f"{missing[0]}: the file does not exist, but {path} names it"
            if self.max_bad == 0:
                raise DataError(problem)
            self.left_out.append(problem)
        if not kept:
            raise DataError(f"{path} names no image whose files exist")
        return sorted(kept, key=lambda files: files.name)

    def mask_kind(self, index: int) -> str:
        segments = sorted(self.segments[self.files[index].mask].items())
        return f"panoptic {zlib.crc32(repr(segments).encode())} {self.reader}"

    def read_mask(self, index: int) -> NDArray[Any]:
        mask = self.files[index].mask
        pixels = self.reader.mask(mask)
        if pixels.ndim != 3:
            raise DataError(
                f"{mask}: a panoptic mask must be an RGB file, but this one has one channel"
            )
        red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
        segments = red + (green << 8) + (blue << 16)
        known = np.array(sorted(self.segments[mask].items() | {(_VOID, _VOID)}), dtype=np.int32)
        rows = np.searchsorted(known[:, 0], segments).clip(max=len(known) - 1)
        wrong = known[rows, 0] != segments
        if wrong.any():
            raise DataError(
                f"{mask}: segment {int(segments[wrong][0])} ({int(wrong.sum())} pixels or fewer) is"
                " not in its segments_info in the annotations; mask and JSON file do not belong"
                " together"
            )
        categories: NDArray[Any] = known[rows, 1]
        return categories
