"""The batches that a run trains on."""

from __future__ import annotations

from dataclasses import replace

from segtrain.data import LabelContract, Mixing, TrainTransform
from segtrain.data.transforms.tensors import RGB
from segtrain.schema.sections import AugmentationConfig, Config
from segtrain.terminal import logger


def train_transform(
    augmentation: AugmentationConfig, labels: LabelContract, channels: int
) -> TrainTransform:
    """Return the transform of training samples, without saturation and hue for other than RGB."""
    if channels != RGB and (augmentation.saturation or augmentation.hue):
        logger.warning(
            "images of %d channels have no saturation and no hue, so augmentation.saturation and"
            " augmentation.hue do nothing",
            channels,
        )
        augmentation = replace(augmentation, saturation=0.0, hue=0.0)
    return TrainTransform(labels, augmentation, channels)


def build_mixing(config: Config, labels: LabelContract) -> Mixing | None:
    """How samples of a batch are mixed; None: not at all."""
    given = config.augmentation
    return None if given.mix is None else Mixing(given.mix, given.mix_prob, labels.ignore_label)
