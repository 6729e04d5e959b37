"""Run every part that a user may have written once on small data, before training starts."""

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
    """Read the first sample and check it.

    Raises:
        DataError: When there is no sample, or it has the wrong shape or dtype.
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
            f"dataset {name!r} must return images (H, W, {channels}), uint8, or float32 from 0 to"
            f" 1, got {np.shape(image)} {dtype}"
        )
    wanted = np.shape(image)[:2]
    wanted = (*wanted, dataset.num_classes) if dataset.labels.multi_label else wanted
    if np.shape(target) != wanted:
        raise DataError(
            f"dataset {name!r} returned an image of {np.shape(image)[:2]} and a target of"
            f" {np.shape(target)}; the target must be {wanted}"
        )


def check_channels(model: Segmentor, channels: int) -> None:
    """Check that the model takes images with the dataset's number of channels.

    Raises:
        ConfigError: When it takes another number of channels.
    """
    if model.in_channels != channels:
        raise ConfigError(
            f"model.in_channels={model.in_channels}, but the images have"
            f" dataset.channels={channels}; make them the same"
        )


def try_model(model: Segmentor, name: str) -> dict[str, Tensor]:
    """Return the outputs of the model for one image, in evaluation mode.

    Raises:
        ConfigError: When the model fails, or does not return a dict of logits.
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
        # The number of channels of the other outputs depends on their losses.
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
    """Compute one loss and its gradient, for a target with every class and an ignored row.

    Raises:
        ConfigError: When an output has the wrong number of channels for its target, or the loss
            does not support the kind of target, fails, or returns no number or no gradient.
    """
    _check_output_channels(criterion, outputs)
    if multi_label:
        _check_multi_label(criterion, name)
    logits = {key: value.detach().requires_grad_() for key, value in outputs.items()}
    criterion.eval()  # running averages stay as they are
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
        raise ConfigError(f"loss {name!r} returned {value} without a gradient on a trial batch")


def _check_output_channels(criterion: Criterion, outputs: Mapping[str, Tensor]) -> None:
    for name, logits in outputs.items():
        task = criterion.tasks.get(name)
        loss = criterion.loss if name == MAIN_OUTPUT else criterion.auxiliary_loss
        loss = loss if task is None else task.loss
        if logits.shape[1] == loss.num_classes:
            continue
        found = f"output {name!r} has {_channels(logits.shape[1])}"
        if task is None or task.target is None:
            raise ConfigError(
                f"{found}, but learns {loss.num_classes} class ids; set its target in"
                " criterion.output_targets"
            )
        raise ConfigError(f"{found}, but its target has {_channels(loss.num_classes)}")


def _check_multi_label(criterion: Criterion, name: str) -> None:
    """Refuse losses for one class per pixel, and targets that are made from class ids."""
    for loss in (criterion.loss, criterion.auxiliary_loss):
        if not loss.is_multi_label:
            raise ConfigError(
                f"loss {name!r} needs exactly one class per pixel, but with"
                " dataset.multi_label=true a pixel may have several classes or none; use bce,"
                " sigmoid_focal, asymmetric or quality_focal, or a loss with"
                " loss.activation=sigmoid, such as dice"
            )
    derived = [key for key, task in criterion.tasks.items() if task.target is not None]
    if derived:
        raise ConfigError(
            f"output {derived[0]!r} learns a target that is made from class ids, which do not exist"
            " with dataset.multi_label=true; leave the output out"
        )


def _channels(count: int) -> str:
    return f"{count} channel{'' if count == 1 else 's'}"
