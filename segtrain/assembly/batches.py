"""The batches that a run trains on."""

from __future__ import annotations

from dataclasses import fields

from segtrain.data import LabelContract, Mixing, TrainTransform
from segtrain.schema.sections import AugmentationConfig, Config
from segtrain.terminal import logger

_RGB = 3  # channels


def train_transform(
    augmentation: AugmentationConfig, labels: LabelContract, channels: int
) -> TrainTransform:
    """What training does to each sample."""
    of_batches = ("mix", "mix_prob")
    options = {
        field.name: getattr(augmentation, field.name)
        for field in fields(augmentation)
        if field.name not in of_batches
    }
    if channels != _RGB and (options["saturation"] or options["hue"]):
        logger.warning(
            "images of %d channels have no saturation and no hue, so augmentation.saturation and"
            " augmentation.hue do nothing",
            channels,
        )
        options.update(saturation=0.0, hue=0.0)
    return TrainTransform(labels=labels, channels=channels, **options)


def build_mixing(config: Config, labels: LabelContract) -> Mixing | None:
    """How samples of a batch are mixed; None: not at all."""
    given = config.augmentation
    return None if given.mix is None else Mixing(given.mix, given.mix_prob, labels.ignore_label)
