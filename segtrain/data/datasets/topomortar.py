"""TopoMortar, whose training images come with three sets of labels."""

from __future__ import annotations

from typing import Any, Literal

from segtrain.data.dataset import DATASETS
from segtrain.data.datasets.folder import FolderDataset, SplitFolders


@DATASETS.register("topomortar")
class TopoMortarDataset(FolderDataset):
    """Bricks and mortar, to study losses with accurate and with inaccurate labels.

    Args:
        labels: The labels of the training images: the folder that their masks are in. The other
            splits name the folder of their masks themselves.
        train: As in :class:`~segtrain.data.FolderDataset`, without ``masks``.
        **common: See :class:`~segtrain.data.FolderDataset`.

    References:
        Valverde et al., TopoMortar: A dataset to evaluate image segmentation methods focused on
            topology accuracy, BMVC 2025.
    """

    def __init__(
        self,
        *,
        labels: Literal["accurate", "noisy", "pseudo"] = "accurate",
        train: SplitFolders | None = None,
        **common: Any,
    ) -> None:
        super().__init__(train={"masks": f"{labels}/train", **(train or {})}, **common)
