"""Losses made of losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from segtrain.errors import ConfigError
from segtrain.losses.base import ClassWeights, Loss, MiningSpec, Term
from segtrain.losses.registry import LOSSES, register_loss


@register_loss("sum")
class WeightedSum(Loss):
    r"""A sum of losses, each with a weight.

    .. math:: L = \sum_t w_t L_t

    Args:
        terms: Each term's parameters by its name: ``{"dice": {"weight": 0.5, "smooth": 1.0}}``. A
            term's ``name`` is the loss it uses, and may be left out where it equals the key; its
            ``weight`` is 1 unless given.
        class_weights: Passed to the terms that do not set their own.
        mining: Passed to the pixel losses among the terms that do not set their own.
        num_classes: Number of channels of the logits.
        ignore_label: Target value of the pixels that do not count.

    Example:
        >>> loss = WeightedSum(terms={"cross_entropy": {}, "dice": {"weight": 0.5}}, num_classes=2)
        >>> list(loss.terms()), loss.weights.tolist()
        (['cross_entropy', 'dice'], [1.0, 0.5])
    """

    def __init__(
        self,
        *,
        terms: Mapping[str, Mapping[str, Any] | None],
        num_classes: int,
        ignore_label: int = 255,
        class_weights: ClassWeights = None,
        mining: MiningSpec = None,
    ) -> None:
        super().__init__(num_classes=num_classes, ignore_label=ignore_label)
        shared = {"class_weights": class_weights, "mining": mining}
        # A term set to null in a config is a term taken out.
        specs = {
            key: {"name": key, **params} for key, params in terms.items() if params is not None
        }
        if not specs:
            raise ConfigError(
                "loss.terms is empty: name at least one loss, as in loss.terms.dice.weight=1"
            )
        if mining is not None and not any(
            "mining" in LOSSES.schema(spec["name"]) for spec in specs.values()
        ):
            raise ConfigError(
                f"mining works on pixel losses, and loss.terms has none: {', '.join(specs)}"
            )
        weights, modules = [], nn.ModuleDict()
        for key, spec in specs.items():
            weights.append(_weight(spec.pop("weight", 1.0), f"loss.terms.{key}.weight"))
            known = LOSSES.schema(spec["name"])
            defaults = {
                name: value for name, value in shared.items() if value is not None and name in known
            }
            modules[key] = LOSSES.build(
                {**defaults, **spec},
                where=f"loss.terms.{key}",
                num_classes=num_classes,
                ignore_label=ignore_label,
            )
            if not isinstance(modules[key], Term):
                raise ConfigError(
                    f"loss.terms.{key} is a combination itself; write its terms beside the others"
                )
        self.parts = modules
        self.weights: Tensor
        self.register_buffer("weights", torch.tensor(weights), persistent=False)

    def terms(self) -> dict[str, Term]:
        return {key: part for key, part in self.parts.items() if isinstance(part, Term)}

    def combine(self, values: Tensor) -> Tensor:
        return (values * self.weights.to(values.dtype)).sum()


def _weight(value: Any, where: str) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not 0 <= value < float("inf")
    ):
        raise ConfigError(f"{where} must be a number that is not negative, got {value!r}")
    return float(value)
