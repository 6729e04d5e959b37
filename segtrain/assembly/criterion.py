"""The criterion of a run."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from segtrain.criterion.build import build_criterion
from segtrain.criterion.criterion import Criterion
from segtrain.data import LabelContract
from segtrain.errors import ConfigError
from segtrain.losses.build import is_no_mining
from segtrain.losses.class_weights import AutoWeights
from segtrain.schema.sections import Config


def criterion_of(
    config: Config,
    labels: LabelContract,
    align_corners: bool,
    outputs: Collection[str],
    auto_weights: AutoWeights,
) -> Criterion:
    """The criterion that `config` describes."""
    mining = None if is_no_mining(config.mining) else config.mining
    given = config.criterion
    for key in ("output_weights", "output_losses", "output_targets"):
        _check_names(getattr(given, key), outputs, key, config.model["name"])
    return build_criterion(
        config.loss,
        num_classes=labels.num_classes,
        ignore_label=labels.ignore_label,
        align_corners=align_corners,
        outputs=list(outputs),
        output_weights=given.output_weights,
        output_losses=given.output_losses,
        output_targets=given.output_targets,
        strip_rows=given.strip_rows,
        mining=mining,
        class_names=labels.names,
        auto_weights=auto_weights,
    )


def _check_names(given: Any, outputs: Collection[str], key: str, model: str) -> None:
    """Refuse an output that the model has not; weights must name every output that it has."""
    if not isinstance(given, dict):
        return
    missing = set(outputs) - set(given) if key == "output_weights" else set()
    if missing or not set(given) <= set(outputs):
        raise ConfigError(
            f"criterion.{key} names {', '.join(given) or 'no output'}, but the outputs of model"
            f" {model!r} are {', '.join(outputs)}"
        )


def add_learned(optimizer: torch.optim.Optimizer, criterion: Criterion) -> None:
    """Train what the criterion learns, at the learning rate of the backbone and without decay."""
    learned = [parameter for parameter in criterion.parameters() if parameter.requires_grad]
    if learned:
        rate = optimizer.param_groups[0]["lr"]
        optimizer.add_param_group({"params": learned, "lr": rate, "weight_decay": 0.0})
