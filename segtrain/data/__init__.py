"""Datasets, the label contract, transforms and loaders."""

from segtrain.data.dataset import DATASETS, FileDataset, Sample, SampleFiles, SegmentationDataset
from segtrain.data.datasets.coco import CocoDataset
from segtrain.data.datasets.exports.ade20k_full import Ade20kFullDataset
from segtrain.data.datasets.exports.base import ExportDataset
from segtrain.data.datasets.exports.coco_instances import CocoInstancesDataset
from segtrain.data.datasets.exports.label_studio import LabelStudioDataset
from segtrain.data.datasets.exports.labelme import LabelmeDataset
from segtrain.data.datasets.exports.object_masks import ObjectMasksDataset
from segtrain.data.datasets.exports.png_masks import CvatDataset, RoboflowDataset
from segtrain.data.datasets.exports.rle_table import RleTableDataset
from segtrain.data.datasets.exports.supervisely import SuperviselyDataset
from segtrain.data.datasets.exports.yolo import YoloDataset
from segtrain.data.datasets.folder import FolderDataset
from segtrain.data.datasets.lists import ListDataset
from segtrain.data.datasets.shapes import ShapesDataset
from segtrain.data.io.image_values import ImageValues
from segtrain.data.io.reader import Reader, as_rgb, read_image, read_mask
from segtrain.data.io.writer import write_mask, write_palette_mask
from segtrain.data.labels.contract import LabelContract
from segtrain.data.labels.palette import default_palette
from segtrain.data.loading.loader import (
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
from segtrain.data.loading.sampler import StepSampler
from segtrain.data.loading.seeds import SampleKey
from segtrain.data.scan.content_hash import content_hash
from segtrain.data.scan.duplicates import find_duplicates
from segtrain.data.scan.findings import Finding, summarize
from segtrain.data.scan.report import ScanReport
from segtrain.data.scan.scan import (
    check_report,
    count_dataset,
    leave_out_unreadable,
    scan_dataset,
)
from segtrain.data.shards.config import write_config
from segtrain.data.shards.dataset import ShardDataset
from segtrain.data.shards.prefetch import prefetch_shards
from segtrain.data.shards.writer import ShardsReport, make_shards
from segtrain.data.transforms.evaluation import EvalTransform
from segtrain.data.transforms.mixing import Mixing
from segtrain.data.transforms.tensors import IMAGENET_MEAN, IMAGENET_STD, Normalization
from segtrain.data.transforms.training import TrainTransform

__all__ = [
    "DATASETS",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Ade20kFullDataset",
    "CocoDataset",
    "CocoInstancesDataset",
    "CvatDataset",
    "EvalBatch",
    "EvalTransform",
    "EvalView",
    "ExportDataset",
    "FileDataset",
    "Finding",
    "FolderDataset",
    "ImageValues",
    "LabelContract",
    "LabelStudioDataset",
    "LabelmeDataset",
    "ListDataset",
    "Mixing",
    "Normalization",
    "ObjectMasksDataset",
    "Reader",
    "RleTableDataset",
    "RoboflowDataset",
    "Sample",
    "SampleFiles",
    "SampleKey",
    "ScanReport",
    "SegmentationDataset",
    "ShapesDataset",
    "ShardDataset",
    "ShardsReport",
    "StepSampler",
    "SuperviselyDataset",
    "TrainBatch",
    "TrainTransform",
    "TrainView",
    "YoloDataset",
    "as_rgb",
    "build_eval_loader",
    "build_train_loader",
    "check_report",
    "collate_eval",
    "collate_train",
    "content_hash",
    "count_dataset",
    "default_palette",
    "find_duplicates",
    "iterate",
    "leave_out_unreadable",
    "make_shards",
    "prefetch_shards",
    "read_image",
    "read_mask",
    "scan_dataset",
    "summarize",
    "write_config",
    "write_mask",
    "write_palette_mask",
]
