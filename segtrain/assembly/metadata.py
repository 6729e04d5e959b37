"""What a checkpoint holds beside the weights, so that a predictor can use them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from segtrain.data import ImageValues, LabelContract, Normalization, SegmentationDataset
from segtrain.data.sample_table import SampleTable
from segtrain.engine.checkpoint import State
from segtrain.models import Segmentor
from segtrain.models.registry import WEIGHT_KEYS
from segtrain.schema.sections import Config, Spec
from segtrain.version import __version__

# The keys of the dataset that say how image files are read.
_READING = ("value_range", "exif", "max_pixels", "image_field", "nodata")


def checkpoint_metadata(
    config: Config,
    labels: LabelContract,
    model: Segmentor,
    class_weights: Mapping[str, list[float]] | None = None,
    image_values: ImageValues | None = None,
    samples: list[int | str] | None = None,
) -> State:
    """Return everything but the weights that a predictor needs, as plain values.

    Args:
        config: The configuration of the run.
        labels: The label contract of the training split.
        model: The model.
        class_weights: Class weights computed from the data, for a run that resumes.
        image_values: The values in the image files of the training split.
        samples: What :func:`samples_digest` returns for the training split, for a run that resumes.
    """
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
        **({} if image_values is None else {"image_values": list(image_values)}),
        **({} if samples is None else {"samples": samples}),
        **({} if class_weights is None else {"class_weights": dict(class_weights)}),
    }


def samples_digest(dataset: SegmentationDataset) -> list[int | str] | None:
    """The number of samples, and a text that their names in this order have.

    None: the dataset does not list its samples.
    """
    files = getattr(dataset, "files", None)
    if files is None:
        return None
    names = files.names() if isinstance(files, SampleTable) else (item.name for item in files)
    found = hashlib.sha256()
    for name in names:
        found.update(name.encode("utf-8", "surrogateescape") + b"\0")
    return [len(files), found.hexdigest()[:16]]


def without_weights(spec: Spec) -> Spec:
    """Return `spec` without the keys that say which weights to load."""
    return {key: value for key, value in spec.items() if key not in WEIGHT_KEYS}
