"""Parameter groups: learning rates and weight decay of the parts of a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import nn

from segtrain.errors import ConfigError
from segtrain.models import Segmentor

# Names of the stages of a backbone, such as layer1, transition1, stages.0, stages_0 and blocks.7.
_STAGE = re.compile(r"(?:^|[._])(layers?|stages?|blocks?|features|transition)[._]?(\d+)(?=[._]|$)")


class Rates(NamedTuple):
    """Learning rates and weight decay, as a config sets them.

    Attributes:
        lr: Learning rate of the backbone.
        weight_decay: Weight decay of all parameters, or of all but norms and biases.
        head_lr_factor: Learning rate of the head divided by that of the backbone.
        layer_decay: The rate of each stage of the backbone divided by that of the next one; the
            last stage has `layer_decay` times `lr`. 1: one rate for all.
        decay_norms_and_biases: Whether one-dimensional parameters decay too.
    """

    lr: float
    weight_decay: float
    head_lr_factor: float = 1.0
    layer_decay: float = 1.0
    decay_norms_and_biases: bool = False


def parameter_groups(
    model: Segmentor, rates: Rates, chosen: Sequence[nn.Parameter] | None = None
) -> list[dict[str, Any]]:
    """Group the parameters of a model by learning rate and weight decay.

    Args:
        model: The model; it tells which of its parameters belong to the head.
        rates: The rates.
        chosen: Some parameters of the model; None: all.

    Raises:
        ConfigError: When `rates` has a layer decay, and the backbone has no stages.
    """
    allowed = None if chosen is None else {id(parameter) for parameter in chosen}
    head = {id(parameter) for parameter in model.parameter_groups()["head"]}
    layers = _layers(model, head) if rates.layer_decay != 1 else {}
    last = max(layers.values(), default=-1) + 1
    groups: dict[tuple[bool, int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or (allowed is not None and id(parameter) not in allowed):
            continue
        is_kept = parameter.dim() < 2 and not rates.decay_norms_and_biases
        key = (id(parameter) in head, layers.get(name, last), is_kept)
        groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": members,
            "lr": rates.lr
            * (rates.head_lr_factor if in_head else rates.layer_decay ** (last - layer)),
            "weight_decay": 0.0 if is_kept else rates.weight_decay,
        }
        for (in_head, layer, is_kept), members in sorted(groups.items(), key=lambda item: item[0])
    ]


def _layers(model: Segmentor, head: set[int]) -> dict[str, int]:
    """The layer of each parameter of the backbone."""
    names = [name for name, parameter in model.named_parameters() if id(parameter) not in head]
    layers = layers_of(names)
    if not any(layers.values()):
        raise ConfigError(
            f"layer_decay needs a backbone with stages, and {model.label} has none that its names"
            " show (layer1, stages.0, blocks.0, ...); leave layer_decay out"
        )
    return layers


def layers_of(names: Sequence[str]) -> dict[str, int]:
    """The layer of each parameter of a backbone: 0 for the stem, then one per stage.

    Stages are counted in the order of `names`. A transition of HRNet belongs to the stage after it.
    What follows the last stage belongs to it.

    Example:
        >>> layers_of(["conv1.weight", "layer1.0.weight", "layer2.0.weight", "norm.weight"])
        {'conv1.weight': 0, 'layer1.0.weight': 1, 'layer2.0.weight': 2, 'norm.weight': 2}
    """
    found: dict[str, int] = {}
    known: dict[tuple[str, int], int] = {}
    for name in names:
        match = _STAGE.search(name)
        if match is None:
            found[name] = len(known)
            continue
        kind, number = match[1].rstrip("s"), int(match[2])
        key = ("stage", number + 1) if kind == "transition" else (kind, number)
        found[name] = known.setdefault(key, len(known) + 1)
    return found
