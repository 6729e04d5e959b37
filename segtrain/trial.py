"""One small trial of every part that a user may have written, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from segtrain.criterion import MAIN_OUTPUT, Criterion
from segtrain.data import SegmentationDataset
from segtrain.errors import ConfigError, DataError, SegtrainError
from segtrain.models import Segmentor

_SIZE = 64  # height and width of the trial image
_IMAGE_CHANNELS = 3


def try_dataset(dataset: SegmentationDataset, name: str) -> None:
    """Read the first sample.

    Raises:
        DataError: When there is none, or it is not what a dataset has to give.
    """
    if not len(dataset):
        raise DataError(f"dataset {name!r} has no samples in this split")
    try:
        image, target, _ = dataset[0]
    except SegtrainError:
        raise
    except Exception as error:
        raise DataError(f"dataset {name!r} failed on its first sample: {_said(error)}") from error
    if np.ndim(image) != 3 or np.shape(image)[2] != 3 or np.asarray(image).dtype != np.uint8:
        raise DataError(
            f"dataset {name!r} must give images (H, W, 3) uint8, got {np.shape(image)}"
            f" {np.asarray(image).dtype}"
        )
    if np.shape(target) != np.shape(image)[:2]:
        raise DataError(
            f"dataset {name!r} gave an image of {np.shape(image)[:2]} and a target of"
            f" {np.shape(target)}"
        )


def check_channels(model: Segmentor) -> None:
    """Refuse a model for other images than the datasets give.

    Raises:
        ConfigError: When it does not take three channels.
    """
    if model.in_channels != _IMAGE_CHANNELS:
        raise ConfigError(
            f"model.in_channels={model.in_channels}, but every dataset gives images of"
            f" {_IMAGE_CHANNELS} channels (red, green, blue); leave it at {_IMAGE_CHANNELS}, or"
            " train with a loop of your own"
        )


def try_model(model: Segmentor, name: str) -> dict[str, Tensor]:
    """The outputs for one image, in evaluation mode.

    Raises:
        ConfigError: When the model fails or returns something else than a dict of logits.
    """
    try:
        with torch.no_grad():
            outputs = model.eval()(torch.zeros(1, model.in_channels, _SIZE, _SIZE))
    except Exception as error:
        raise ConfigError(f"model {name!r} failed on a trial image: {_said(error)}") from error
    if not isinstance(outputs, Mapping) or MAIN_OUTPUT not in outputs:
        raise ConfigError(
            f"model {name!r} must return a dict of logits with the key {MAIN_OUTPUT!r}"
        )
    for key, logits in outputs.items():
        # Another output may learn something else, and its loss says with how many channels.
        channels = model.num_classes if key == MAIN_OUTPUT else logits.shape[1:2].numel()
        if logits.dim() != 4 or logits.shape[:2] != (1, channels):
            raise ConfigError(
                f"model {name!r} must return logits (N, {model.num_classes}, h, w),"
                f" got {tuple(logits.shape)} in {key!r}"
            )
    return dict(outputs)


def try_criterion(criterion: Criterion, outputs: Mapping[str, Tensor], name: str) -> None:
    """One loss and its gradient, with every class and an ignored row in the target.

    Raises:
        ConfigError: When an output has not the channels of what it learns, or the loss fails, or
            gives no number or no gradient.
    """
    _check_channels(criterion, outputs)
    logits = {key: value.detach().requires_grad_() for key, value in outputs.items()}
    criterion.eval()  # a trial leaves no trace in running averages
    loss = criterion.loss
    target = torch.arange(_SIZE**2).reshape(1, _SIZE, _SIZE) % loss.num_classes
    target[:, 0] = loss.ignore_label
    try:
        total = criterion(logits, target).total
        total.backward()
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"loss {name!r} failed on a trial batch: {_said(error)}") from error
    criterion.train().zero_grad()
    if logits[MAIN_OUTPUT].grad is None:
        value = float(total.detach())
        raise ConfigError(f"loss {name!r} gave {value} and no gradient on a trial batch")


def _check_channels(criterion: Criterion, outputs: Mapping[str, Tensor]) -> None:
    for name, logits in outputs.items():
        task = criterion.tasks.get(name)
        loss = criterion.loss if name == MAIN_OUTPUT else criterion.auxiliary_loss
        loss = loss if task is None else task.loss
        if logits.shape[1] == loss.num_classes:
            continue
        start = f"output {name!r} has {_counted(logits.shape[1])}, but learns"
        if task is None or task.target is None:
            raise ConfigError(
                f"{start} the class ids, of which there are {loss.num_classes}; name its target in"
                " criterion.output_targets"
            )
        raise ConfigError(f"{start} a target that has {_counted(loss.num_classes)}")


def _counted(channels: int) -> str:
    return f"{channels} channel{'' if channels == 1 else 's'}"


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
