"""What a predictor needs beside the weights."""

from __future__ import annotations

from segtrain.data import LabelContract, Normalization
from segtrain.engine.checkpoint import State
from segtrain.models import Segmentor
from segtrain.models.registry import WEIGHT_KEYS
from segtrain.schema.sections import Config, Spec
from segtrain.version import __version__

_READING = ("value_range", "exif", "max_pixels")  # of the dataset's keys, what files are read by


def metadata_of(config: Config, labels: LabelContract, model: Segmentor) -> State:
    """What a predictor needs beside the weights, in plain values."""
    given = config.augmentation
    normalization = Normalization(given.mean, given.std, model.in_channels)
    return {
        "segtrain": __version__,
        "model": {
            **without_weights(config.model),
            "align_corners": model.align_corners,
            **({"in_channels": model.in_channels} if "in_channels" in config.model else {}),
        },
        "channels": model.in_channels,
        "reading": {key: config.dataset[key] for key in _READING if key in config.dataset},
        "multi_label": labels.multi_label,
        "num_classes": labels.num_classes,
        "ignore_label": labels.ignore_label,
        "class_names": list(labels.names),
        "palette": [list(colour) for colour in labels.colours],
        "mean": list(normalization.mean),
        "std": list(normalization.std),
        "size": None if config.evaluation.size is None else list(config.evaluation.size),
        "align_corners": model.align_corners,
        "precision": config.trainer.precision,
        "channels_last": config.trainer.channels_last,
    }


def without_weights(spec: Spec) -> Spec:
    """`spec` as it is once its weights are loaded."""
    return {key: value for key, value in spec.items() if key not in WEIGHT_KEYS}
