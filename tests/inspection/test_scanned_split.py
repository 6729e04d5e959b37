"""The counts of a split, by class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segtrain.data import LabelContract, Sample, SegmentationDataset, count_dataset
from segtrain.inspection import ScannedSplit


class Drawn(SegmentationDataset):
    """Targets as samples."""

    title = None

    def __init__(self, targets: list[NDArray[np.uint8]], labels: LabelContract) -> None:
        super().__init__(labels)
        self.targets = targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Sample:
        target = self.targets[index]
        return Sample(np.zeros((*target.shape[:2], 3), np.uint8), target, f"sample {index}")


def scanned(targets: list[NDArray[np.uint8]], labels: LabelContract) -> ScannedSplit:
    dataset = Drawn(targets, labels)
    return ScannedSplit(dataset, count_dataset(dataset))


def test_shares_leave_out_ignored_pixels() -> None:
    first, second = np.zeros((2, 4), np.uint8), np.full((2, 4), 255, np.uint8)
    first[0] = 1
    split = scanned([first, second], LabelContract(3))
    assert split.areas is None
    assert split.class_shares.tolist() == [0.5, 0.5, 0.0]
    assert split.class_images.tolist() == [1, 1, 0]
    assert split.sample_name(1) == "sample 1"


def test_a_multi_label_share_is_one_of_all_pixels() -> None:
    target = np.zeros((2, 4, 2), np.uint8)
    target[..., 0] = 1
    target[0, 0, 1] = 1
    split = scanned([target], LabelContract(2, multi_label=True))
    assert split.areas is not None
    assert split.areas.tolist() == [8]
    assert split.class_shares.tolist() == [1.0, 0.125]
