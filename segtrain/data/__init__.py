"""Datasets, the label contract, transforms and loaders."""

from segtrain.data.ahead import fetch_ahead
from segtrain.data.base import DATASETS, FileDataset, Sample, SampleFiles, SegmentationDataset
from segtrain.data.coco import CocoDataset
from segtrain.data.findings import Finding, summarize
from segtrain.data.folder import FolderDataset
from segtrain.data.images import (
    Reader,
    as_rgb,
    read_image,
    read_mask,
    write_mask,
    write_palette_mask,
)
from segtrain.data.labels import LabelContract
from segtrain.data.lists import ListDataset
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
from segtrain.data.mixing import Mixing
from segtrain.data.overlap import find_doubles
from segtrain.data.palette import default_palette
from segtrain.data.sampler import SampleKey, StepSampler
from segtrain.data.scan import (
    ScanReport,
    check_report,
    count_dataset,
    leave_out_unreadable,
    scan_dataset,
)
from segtrain.data.shapes import ShapesDataset
from segtrain.data.shard_writer import ShardsReport, make_shards, write_config
from segtrain.data.shards import ShardDataset
from segtrain.data.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    EvalTransform,
    Statistics,
    TrainTransform,
)

__all__ = [
    "DATASETS",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "CocoDataset",
    "EvalBatch",
    "EvalTransform",
    "EvalView",
    "FileDataset",
    "Finding",
    "FolderDataset",
    "LabelContract",
    "ListDataset",
    "Mixing",
    "Reader",
    "Sample",
    "SampleFiles",
    "SampleKey",
    "ScanReport",
    "SegmentationDataset",
    "ShapesDataset",
    "ShardDataset",
    "ShardsReport",
    "Statistics",
    "StepSampler",
    "TrainBatch",
    "TrainTransform",
    "TrainView",
    "as_rgb",
    "build_eval_loader",
    "build_train_loader",
    "check_report",
    "collate_eval",
    "collate_train",
    "count_dataset",
    "default_palette",
    "fetch_ahead",
    "find_doubles",
    "iterate",
    "leave_out_unreadable",
    "make_shards",
    "read_image",
    "read_mask",
    "scan_dataset",
    "summarize",
    "write_config",
    "write_mask",
    "write_palette_mask",
]
