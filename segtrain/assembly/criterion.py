"""Build the criterion of a run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from segtrain.assembly.trial import try_criterion
from segtrain.criterion import Criterion, build_criterion
from segtrain.data import LabelContract
from segtrain.errors import ConfigError
from segtrain.losses.class_weights import AutoWeights
from segtrain.losses.mining.base import is_no_mining
from segtrain.models import Segmentor
from segtrain.schema.sections import Config


def criterion_for_model(
    config: Config,
    labels: LabelContract,
    model: Segmentor,
    outputs: Mapping[str, Tensor],
    auto_weights: AutoWeights,
) -> Criterion:
    """Build the criterion for the outputs of a model, and try it on one small batch.

    Args:
        config: The configuration of the run.
        labels: The label contract of the training split.
        model: The model; its `align_corners` decides how its outputs are upsampled.
        outputs: Its outputs for a trial image.
        auto_weights: Return class weights computed from the data, by the name of the method.

    Raises:
        ConfigError: When a key of `criterion` names an output that does not exist, or the loss does
            not fit the outputs or the targets.
    """
    for key in ("output_weights", "output_losses", "output_targets"):
        _check_names(getattr(config.criterion, key), outputs, key, config.model["name"])
    criterion = configured_criterion(
        config,
        labels,
        auto_weights,
        outputs=list(outputs),
        output_weights=config.criterion.output_weights,
        align_corners=model.align_corners,
    )
    try_criterion(criterion, outputs, config.loss["name"], multi_label=labels.multi_label)
    return criterion


def configured_criterion(
    config: Config, labels: LabelContract, auto_weights: AutoWeights, **options: Any
) -> Criterion:
    """Build the criterion that `config` describes for targets that follow `labels`.

    `options` are the arguments of :func:`~segtrain.criterion.build.build_criterion` that depend on
    the model.

    Raises:
        ConfigError: As :func:`~segtrain.criterion.build.build_criterion`.
    """
    given = config.criterion
    return build_criterion(
        config.loss,
        num_classes=labels.num_classes,
        ignore_label=labels.ignore_label,
        output_losses=given.output_losses,
        output_targets=given.output_targets,
        strip_rows=given.strip_rows,
        mining=None if is_no_mining(config.mining) else config.mining,
        class_names=labels.names,
        auto_weights=auto_weights,
        **options,
    )


def _check_names(given: Any, outputs: Collection[str], key: str, model: str) -> None:
    """Refuse an output that the model does not have; weights must name every output."""
    if not isinstance(given, dict):
        return
    missing = set(outputs) - set(given) if key == "output_weights" else set()
    if missing or not set(given) <= set(outputs):
        raise ConfigError(
            f"criterion.{key} names {', '.join(given) or 'no output'}, but the outputs of model"
            f" {model!r} are {', '.join(outputs)}"
        )


def add_learned_parameters(optimizer: torch.optim.Optimizer, criterion: Criterion) -> None:
    """Train the parameters of the criterion at the backbone's learning rate, without decay."""
    learned = [parameter for parameter in criterion.parameters() if parameter.requires_grad]
    if learned:
        rate = optimizer.defaults["lr"]
        optimizer.add_param_group({"params": learned, "lr": rate, "weight_decay": 0.0})
