"""Low-rank adapters: small layers that are trained beside the frozen layers of a backbone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Protocol

import torch
from torch import Tensor, nn

from segtrain.errors import CheckpointError, ConfigError, one_line
from segtrain.models.segmentor import Segmentor
from segtrain.models.unused import called_modules
from segtrain.schema.registry import Registry
from segtrain.schema.values import did_you_mean

# Names of peft, for an adapter with the name that it gives by default.
_BASE = ".base_layer."
_DOWN = ".lora_A.default.weight"
_UP = ".lora_B.default.weight"


class Adapter(Protocol):
    """The contract of every adapter.

    Attributes:
        targets: Names of layers of the backbone or patterns of them; None: a default choice.
    """

    targets: list[str] | None

    def add(self, model: nn.Module, layers: Sequence[str]) -> None:
        """Add trained layers beside the `layers` of a model."""

    def merged(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of the model without adapters that computes the same."""


ADAPTERS = Registry[Adapter]("adapter")


@ADAPTERS.register("lora")
class LoRA:
    r"""Low-rank adaptation, with the library peft.

    A layer with the weight :math:`W` computes :math:`Wx + \frac{\alpha}{r} B A x`. Only :math:`A`
    and :math:`B` are trained, and :math:`B` is 0 at the start.

    Args:
        rank: The rank :math:`r` of the added layers.
        alpha: The scale :math:`\alpha`.
        dropout: Probability of dropout before the added layers during training.
        targets: Names of linear layers and convolutions of the backbone, parts of these names, or
            patterns, such as ``qkv``, ``blocks.11`` or ``blocks.1[01].attn.*``. None: all linear
            layers; in a backbone without any, all convolutions.

    Raises:
        ConfigError: If a value is out of range.

    Example:
        >>> adapter = LoRA(rank=2, alpha=4)
        >>> down, up = torch.ones(2, 3), torch.ones(1, 2)
        >>> state = {"fc.lora_A.default.weight": down, "fc.lora_B.default.weight": up}
        >>> adapter.merged({"fc.base_layer.weight": torch.zeros(1, 3), **state})
        {'fc.weight': tensor([[4., 4., 4.]])}

    References:
        Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, ICLR 2022,
        https://arxiv.org/abs/2106.09685.
    """

    def __init__(
        self,
        *,
        rank: int = 8,
        alpha: int = 8,
        dropout: float = 0.0,
        targets: list[str] | None = None,
    ) -> None:
        for name, value in (("rank", rank), ("alpha", alpha)):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        if not 0.0 <= dropout < 1.0:
            raise ConfigError(f"dropout must be at least 0 and below 1, got {dropout}")
        if targets is not None and not targets:
            raise ConfigError("targets must name at least one layer; null chooses the layers")
        self.rank = rank
        self.alpha = alpha
        self.dropout = dropout
        self.targets = targets

    def add(self, model: nn.Module, layers: Sequence[str]) -> None:
        """Add trained layers beside the `layers`; all other parameters of `model` get frozen.

        Raises:
            ConfigError: If peft cannot be imported.
        """
        try:
            import peft  # noqa: PLC0415  an extra, and slow to import
        except ImportError as error:
            raise ConfigError(
                f"adapters need the package peft, which cannot be imported ({one_line(error)}): pip"
                " install 'segtrain[peft]'"
            ) from error
        config = peft.LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules="|".join(map(re.escape, layers)),  # a text is a regular expression
        )
        peft.inject_adapter_in_model(config, model)

    def merged(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of the model without adapters that computes the same.

        Raises:
            CheckpointError: If an added layer lacks a part, or does not fit its layer.
        """
        layers = {key.removesuffix(_DOWN) for key in state if key.endswith(_DOWN)}
        found = {}
        for key, value in state.items():
            layer, _, name = key.rpartition(_BASE)
            if layer in layers:
                found[f"{layer}.{name}"] = value
            elif not key.endswith((_DOWN, _UP)):
                found[key] = value
        for layer in layers:
            weight, up = found.get(f"{layer}.weight"), state.get(f"{layer}{_UP}")
            if weight is None or up is None:
                raise CheckpointError(f"the weights of the adapter of {layer} are incomplete")
            found[f"{layer}.weight"] = self._sum(weight, state[f"{layer}{_DOWN}"], up, layer)
        return found

    def _sum(self, weight: Tensor, down: Tensor, up: Tensor, layer: str) -> Tensor:
        """A weight plus the product of the two added ones; convolutions have a kernel in `down`."""
        ones = (1,) * (weight.dim() - 2)
        expected = (weight.shape[:1] + down.shape[:1] + ones, down.shape[:1] + weight.shape[1:])
        if weight.dim() < 2 or (up.shape, down.shape) != expected or not len(down):
            shapes = ", ".join(str(tuple(each.shape)) for each in (weight, down, up))
            raise CheckpointError(
                f"the weights of the adapter of {layer} do not fit it: their shapes are {shapes}"
            )
        product: Tensor = torch.tensordot(up.float().flatten(1), down.float(), dims=1)
        total: Tensor = weight.float() + product * (self.alpha / len(down))
        return total.to(weight.dtype)


def add_adapter(model: Segmentor, adapter: Adapter, where: str = "adapter") -> None:
    """Add an adapter to the backbone of a model, and freeze the backbone's own weights.

    Batch norms of the backbone use and keep their running statistics. The head stays as it is.

    Args:
        model: The model, with its initial weights.
        adapter: The adapter.
        where: The path of the adapter in the config, for error messages.

    Raises:
        ConfigError: If the library of the adapter is not installed, the model has no head or no
            layer that an adapter can be added to, or a target matches no layer.
    """
    if not model.parameter_groups()["head"]:
        raise ConfigError(
            f"{where}: {model.label} does not say which of its modules are the head, which must be"
            " trained; set head_prefixes in its class, or leave the adapter out"
        )
    layers = _chosen(_layers(model), adapter.targets, model.label, where)
    backbone = {key for key in model.state_dict() if not model.is_head(key)}
    trained = [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and name not in backbone
    ]
    model.held_norms = model.norms_in(backbone)
    adapter.add(model, layers)
    model.has_adapter = True
    for parameter in trained:
        parameter.requires_grad_(True)
    model.train(model.training)


def _layers(model: Segmentor) -> dict[str, nn.Module]:
    """The layers of the backbone that an adapter can be added to.

    They are called in a forward pass: attention may use the weight of a layer without calling it,
    and would ignore the adapter. Convolutions with groups cannot be merged with peft, which also
    ignores a dilation.
    """
    called = called_modules(model, model.in_channels)
    return {
        name: layer
        for name, layer in model.named_modules()
        if _is_plain(layer)
        and not model.is_head(name)
        and (called is None or name in called)
        and all(parameter.requires_grad for parameter in layer.parameters())
    }


def _is_plain(layer: nn.Module) -> bool:
    """Whether a layer is linear, or a convolution without groups and dilation.

    A subclass with its own forward pass, such as one that standardises its weight, is not.
    """
    if isinstance(layer, nn.Linear):
        return type(layer).forward is nn.Linear.forward
    return (
        isinstance(layer, nn.Conv2d)
        and type(layer).forward is nn.Conv2d.forward
        and layer.groups == 1
        and set(layer.dilation) == {1}
        and layer.padding_mode == "zeros"
    )


def _chosen(
    layers: Mapping[str, nn.Module], targets: Sequence[str] | None, label: str, where: str
) -> list[str]:
    """The names of the layers that match `targets`."""
    if not layers:
        raise ConfigError(
            f"{where}: the backbone of {label} has no linear layer and no plain convolution that an"
            " adapter can be added to; leave the adapter out"
        )
    if targets is None:
        linear = [name for name, layer in layers.items() if isinstance(layer, nn.Linear)]
        return linear or list(layers)
    found: set[str] = set()
    for target in targets:
        matched = {name for name in layers if _matches(name, target)}
        if not matched:
            ends = dict.fromkeys(re.split(r"\d+\.", name)[-1] for name in layers)
            raise ConfigError(
                f"{where}.targets: no layer of the backbone of {label} that an adapter can be added"
                f" to matches {target!r}{did_you_mean(target, ends)}"
            )
        found |= matched
    return [name for name in layers if name in found]


def _matches(name: str, target: str) -> bool:
    patterns = (target, f"*.{target}", f"{target}.*", f"*.{target}.*")
    return any(fnmatchcase(name, pattern) for pattern in patterns)
