"""CamVid with the usual eleven classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segtrain.data.base import DATASETS, FileDataset, check_split
from segtrain.data.folder import find_pairs
from segtrain.data.labels import LabelContract
from segtrain.errors import DataError

_COLOURS = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign_symbol": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
_VOID = 11


@DATASETS.register("camvid")
class CamVidDataset(FileDataset):
    """The Cambridge-driving Labeled Video Database, 11 classes and void.

    Args:
        root: The directory that holds ``images/train``, ``images/val``, ``masks/train`` and
            ``masks/val``; masks hold the ids 0 to 10, and 11 for void.
        split: ``"train"`` or ``"val"``.
        ignore_label: The value that void becomes.
        palette: One RGB colour per class, for drawing; the usual CamVid colours by default.

    Raises:
        DataError: When the files are not there.

    References:
        Brostow, Fauqueur, Cipolla: Semantic object classes in video: a high-definition ground
        truth database. Pattern Recognition Letters 30(2), 2009. The merge of its 32 classes into
        11 follows Badrinarayanan, Kendall, Cipolla: SegNet, TPAMI 39(12), 2017.
    """

    def __init__(
        self,
        *,
        root: str,
        split: str = "train",
        ignore_label: int = 255,
        palette: Sequence[Sequence[int]] | None = None,
    ) -> None:
        check_split(split)
        label_map = {index: index for index in range(len(_COLOURS))} | {_VOID: ignore_label}
        colours = list(_COLOURS.values()) if palette is None else palette
        labels = LabelContract(len(_COLOURS), ignore_label, label_map, list(_COLOURS), colours)
        places = {"images": f"images/{split}", "masks": f"masks/{split}"}
        base = Path(root).expanduser()
        for place in places.values():
            if not (base / place).is_dir():
                raise DataError(
                    f"{base / place} is not a directory; CamVid is expected as images/train, "
                    f"images/val, masks/train and masks/val under dataset.root={root}"
                )
        samples = find_pairs(base, places, f"camvid {split}")
        super().__init__(labels, [sample[:2] for sample in samples], [name for *_, name in samples])
