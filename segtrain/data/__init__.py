"""Datasets, the label contract, transforms and loaders."""

from segtrain.data.base import DATASETS, FileDataset, Sample, SegmentationDataset
from segtrain.data.camvid import CamVidDataset
from segtrain.data.folder import FolderDataset
from segtrain.data.images import image_size, read_image, read_mask, write_mask, write_palette_mask
from segtrain.data.labels import LabelContract
from segtrain.data.loader import (
    EvalBatch,
    EvalView,
    TrainBatch,
    TrainView,
    build_eval_loader,
    build_train_loader,
    collate_eval,
    collate_train,
    iterate,
)
from segtrain.data.palette import default_palette
from segtrain.data.sampler import SampleKey, StepSampler
from segtrain.data.scan import ScanReport, check_disjoint, scan_dataset
from segtrain.data.shapes import ShapesDataset
from segtrain.data.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    EvalTransform,
    TrainTransform,
    normalize,
)

__all__ = [
    "DATASETS",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "CamVidDataset",
    "EvalBatch",
    "EvalTransform",
    "EvalView",
    "FileDataset",
    "FolderDataset",
    "LabelContract",
    "Sample",
    "SampleKey",
    "ScanReport",
    "SegmentationDataset",
    "ShapesDataset",
    "StepSampler",
    "TrainBatch",
    "TrainTransform",
    "TrainView",
    "build_eval_loader",
    "build_train_loader",
    "check_disjoint",
    "collate_eval",
    "collate_train",
    "default_palette",
    "image_size",
    "iterate",
    "normalize",
    "read_image",
    "read_mask",
    "scan_dataset",
    "write_mask",
    "write_palette_mask",
]
