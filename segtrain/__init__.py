"""Semantic segmentation training with a pluggable loss registry."""

from segtrain import startup  # noqa: F401  it comes first, since the others take seconds
from segtrain.cli.api import TrainResult, compare, train
from segtrain.criterion.build import build_criterion
from segtrain.criterion.criterion import Criterion, CriterionReport, Task
from segtrain.data import DATASETS, LabelContract, Sample, SegmentationDataset
from segtrain.data.build import build_dataset, list_datasets
from segtrain.engine import OPTIMIZERS, SCHEDULERS
from segtrain.engine.hooks import HOOKS, Hook, Watched
from segtrain.errors import CheckpointError, ConfigError, DataError, NumericError, SegtrainError
from segtrain.inference import Predictor
from segtrain.losses import (
    MININGS,
    ClassMapLoss,
    DerivedTarget,
    Loss,
    Mining,
    PixelLoss,
    RegionLoss,
    RegionSums,
    TargetProbabilityLoss,
    register_loss,
    register_target,
)
from segtrain.losses.build import build_loss, list_losses, list_minings
from segtrain.metrics import (
    METRICS,
    ConfusionMatrix,
    CountMetric,
    MaskMetric,
    OverallMetric,
    ProbabilityMetric,
    list_metrics,
)
from segtrain.models import BACKBONES, HEADS, MODELS, Backbone, Head, Segmentor
from segtrain.models.build import build_model, list_backbones, list_heads, list_models
from segtrain.models.weights import LoadReport, load_weights
from segtrain.schema.plugins import load_plugins
from segtrain.version import __version__

register_backbone = BACKBONES.register
register_dataset = DATASETS.register
register_head = HEADS.register
register_hook = HOOKS.register
list_hooks = HOOKS.names
register_metric = METRICS.register
register_mining = MININGS.register
register_model = MODELS.register
register_optimizer = OPTIMIZERS.register
register_scheduler = SCHEDULERS.register
list_optimizers = OPTIMIZERS.names
list_schedulers = SCHEDULERS.names

__all__ = [
    "Backbone",
    "CheckpointError",
    "ClassMapLoss",
    "ConfigError",
    "ConfusionMatrix",
    "CountMetric",
    "Criterion",
    "CriterionReport",
    "DataError",
    "DerivedTarget",
    "Head",
    "Hook",
    "LabelContract",
    "LoadReport",
    "Loss",
    "MaskMetric",
    "Mining",
    "NumericError",
    "OverallMetric",
    "PixelLoss",
    "Predictor",
    "ProbabilityMetric",
    "RegionLoss",
    "RegionSums",
    "Sample",
    "SegmentationDataset",
    "Segmentor",
    "SegtrainError",
    "TargetProbabilityLoss",
    "Task",
    "TrainResult",
    "Watched",
    "__version__",
    "build_criterion",
    "build_dataset",
    "build_loss",
    "build_model",
    "compare",
    "list_backbones",
    "list_datasets",
    "list_heads",
    "list_hooks",
    "list_losses",
    "list_metrics",
    "list_minings",
    "list_models",
    "list_optimizers",
    "list_schedulers",
    "load_plugins",
    "load_weights",
    "register_backbone",
    "register_dataset",
    "register_head",
    "register_hook",
    "register_loss",
    "register_metric",
    "register_mining",
    "register_model",
    "register_optimizer",
    "register_scheduler",
    "register_target",
    "train",
]
