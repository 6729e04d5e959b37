"""One small trial of every part that a user may have written, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from segtrain.criterion.criterion import MAIN_OUTPUT, Criterion
from segtrain.data import SegmentationDataset
from segtrain.errors import ConfigError, DataError, SegtrainError, describe_error
from segtrain.models import Segmentor

_SIZE = 64  # height and width of the trial image


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
        raise DataError(
            f"dataset {name!r} failed on its first sample: {describe_error(error)}"
        ) from error
    channels, dtype = dataset.channels, np.asarray(image).dtype
    is_image = np.ndim(image) == 3 and np.shape(image)[2] == channels
    if not is_image or dtype not in (np.uint8, np.float32):
        raise DataError(
            f"dataset {name!r} must give images (H, W, {channels}), uint8, or float32 from 0 to 1,"
            f" got {np.shape(image)} {dtype}"
        )
    wanted = np.shape(image)[:2]
    wanted = (*wanted, dataset.num_classes) if dataset.labels.multi_label else wanted
    if np.shape(target) != wanted:
        raise DataError(
            f"dataset {name!r} gave an image of {np.shape(image)[:2]} and a target of"
            f" {np.shape(target)}, where {wanted} is needed"
        )


def check_channels(model: Segmentor, channels: int) -> None:
    """Refuse a model for other images than the dataset gives.

    Raises:
        ConfigError: When it takes another number of channels.
    """
    if model.in_channels != channels:
        raise ConfigError(
            f"model.in_channels={model.in_channels}, but the images have"
            f" dataset.channels={channels}; make them the same"
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
        raise ConfigError(
            f"model {name!r} failed on a trial image: {describe_error(error)}"
        ) from error
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


def try_criterion(
    criterion: Criterion, outputs: Mapping[str, Tensor], name: str, *, multi_label: bool = False
) -> None:
    """One loss and its gradient, with every class and an ignored row in the target.

    Raises:
        ConfigError: When an output has not the channels of what it learns, or the loss is not one
            for what the dataset gives, or it fails, or gives no number or no gradient.
    """
    _check_channels(criterion, outputs)
    if multi_label:
        _check_multi_label(criterion, name)
    logits = {key: value.detach().requires_grad_() for key, value in outputs.items()}
    criterion.eval()  # a trial leaves no trace in running averages
    loss = criterion.loss
    ids = torch.arange(_SIZE**2).reshape(1, _SIZE, _SIZE) % max(loss.num_classes, 2)
    bits = 2 ** torch.arange(loss.num_classes)[:, None, None] % 2**62
    target = (ids[:, None] // bits % 2).byte() if multi_label else ids
    target[..., 0, :] = loss.ignore_label
    try:
        total = criterion(logits, target).total
        total.backward()
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"loss {name!r} failed on a trial batch: {describe_error(error)}"
        ) from error
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


def _check_multi_label(criterion: Criterion, name: str) -> None:
    """Refuse losses that know of one class per pixel, and targets that are drawn from class ids."""
    for loss in (criterion.loss, criterion.auxiliary_loss):
        if not loss.is_multi_label:
            raise ConfigError(
                f"loss {name!r} gives each pixel one class, but with dataset.multi_label=true it"
                " may have several or none; use bce, sigmoid_focal, asymmetric or quality_focal, or"
                " one that takes loss.activation=sigmoid, such as dice"
            )
    derived = [key for key, task in criterion.tasks.items() if task.target is not None]
    if derived:
        raise ConfigError(
            f"output {derived[0]!r} learns a target that is drawn from class ids, and with"
            " dataset.multi_label=true there are none; leave the output out"
        )


def _counted(channels: int) -> str:
    return f"{channels} channel{'' if channels == 1 else 's'}"
