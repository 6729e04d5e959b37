"""Semantic segmentation training with a pluggable loss registry."""

from segtrain.build import (
    build_criterion,
    build_dataset,
    build_loss,
    build_model,
    list_datasets,
    list_losses,
    list_minings,
    list_models,
)
from segtrain.criterion import Criterion, CriterionReport
from segtrain.data import DATASETS, LabelContract, Sample, SegmentationDataset
from segtrain.errors import CheckpointError, ConfigError, DataError, NumericError, SegtrainError
from segtrain.inference import Predictor
from segtrain.losses import Loss, Mining, PixelLoss, RegionLoss, register_loss
from segtrain.losses.mining import MININGS
from segtrain.metrics import ConfusionMatrix
from segtrain.models import MODELS, Segmentor
from segtrain.plugins import load_plugins
from segtrain.version import __version__

register_dataset = DATASETS.register
register_mining = MININGS.register
register_model = MODELS.register

__all__ = [
    "CheckpointError",
    "ConfigError",
    "ConfusionMatrix",
    "Criterion",
    "CriterionReport",
    "DataError",
    "LabelContract",
    "Loss",
    "Mining",
    "NumericError",
    "PixelLoss",
    "Predictor",
    "RegionLoss",
    "Sample",
    "SegmentationDataset",
    "Segmentor",
    "SegtrainError",
    "__version__",
    "build_criterion",
    "build_dataset",
    "build_loss",
    "build_model",
    "list_datasets",
    "list_losses",
    "list_minings",
    "list_models",
    "load_plugins",
    "register_dataset",
    "register_loss",
    "register_mining",
    "register_model",
]
