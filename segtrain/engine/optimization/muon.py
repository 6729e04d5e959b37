"""Muon for the weights of hidden layers, and AdamW for all other parameters."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from segtrain.engine.optimization.groups import parameter_groups
from segtrain.engine.optimization.optimizers import (
    MODEL,
    OPTIMIZERS,
    optimizer_parameters,
    split_rates,
)
from segtrain.models import Segmentor
from segtrain.schema.signatures import set_signature

_BETAS = (0.9, 0.95)  # of AdamW


class MuonWithAdamW(torch.optim.Optimizer):
    """Two optimizers of torch that act as one, since :class:`torch.optim.Muon` takes matrices only.

    The kernel of a convolution is a matrix with a row per output channel. Its state is part of
    :meth:`state_dict` as that of any optimizer.

    Args:
        matrices: Groups of parameters with at least two dimensions, for Muon.
        others: Groups of parameters for AdamW.
        lr: The learning rate of groups without one.
        **muon: The parameters of Muon.

    References:
        Jordan et al., *Muon: An optimizer for hidden layers in neural networks*, 2024,
        https://kellerjordan.github.io/posts/muon/.
    """

    def __init__(
        self,
        matrices: Sequence[dict[str, Any]],
        others: Sequence[dict[str, Any]],
        *,
        lr: float,
        **muon: Any,
    ) -> None:
        groups = [{**group, "is_matrix": True} for group in matrices]
        groups += [{**group, "is_matrix": False} for group in others]
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0, "is_matrix": False})
        self._muon = muon

    @cached_property
    def _parts(self) -> list[tuple[dict[str, Any], torch.optim.Optimizer]]:
        """Every group with an optimizer of its own.

        They are built at the first step, because a matrix shares the memory of its parameter, and
        the memory format of a model may change before that.
        """
        parts = []
        for group in self.param_groups:
            rates = {"lr": group["lr"], "weight_decay": group["weight_decay"]}
            if group["is_matrix"]:
                matrices = [_matrix(parameter) for parameter in group["params"]]
                part: torch.optim.Optimizer = torch.optim.Muon(matrices, **rates, **self._muon)
            else:
                part = torch.optim.AdamW(group["params"], **rates, betas=_BETAS)
            self._share_state(group, part)
            parts.append((group, part))
        return parts

    def _share_state(self, group: dict[str, Any], part: torch.optim.Optimizer) -> None:
        """Let both optimizers hold the same state of each parameter."""
        for parameter, own in zip(group["params"], part.param_groups[0]["params"], strict=True):
            if parameter in self.state:  # it was loaded
                part.state[own] = self.state[parameter]
            elif own in part.state:
                self.state[parameter] = part.state[own]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """Take a step; `closure` is not used."""
        for group, part in self._parts:
            inner = part.param_groups[0]
            inner["lr"], inner["weight_decay"] = group["lr"], group["weight_decay"]
            if group["is_matrix"]:
                for parameter, matrix in zip(group["params"], inner["params"], strict=True):
                    grad = parameter.grad
                    matrix.grad = None if grad is None else _as_matrix(grad, parameter)
            part.step()
            self._share_state(group, part)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state as :meth:`state_dict` returned it."""
        self.__dict__.pop("_parts", None)
        super().load_state_dict(state_dict)


def _as_matrix(values: Tensor, parameter: Tensor) -> Tensor:
    """The values of a parameter, or of its gradient, as a matrix with a row per output channel."""
    if parameter.dim() == 4 and parameter.is_contiguous(memory_format=torch.channels_last):
        values = values.permute(0, 2, 3, 1)
    return values.reshape(len(values), -1)


def _matrix(parameter: nn.Parameter) -> Tensor:
    """A matrix that shares the memory of a parameter."""
    matrix = _as_matrix(parameter.detach(), parameter)
    if matrix.data_ptr() != parameter.data_ptr():
        raise RuntimeError(f"a parameter of shape {tuple(parameter.shape)} is not contiguous")
    return matrix


def _hidden(model: Segmentor) -> list[nn.Parameter]:
    """The weights of hidden layers: neither those that see the image nor those that give logits."""
    weights = [one for one in model.parameters() if one.dim() > 1 and one.requires_grad]
    heads = {id(parameter) for parameter in model.parameter_groups()["head"]}
    return [
        one
        for one in weights[1:]
        if not (len(one) == model.num_classes and (id(one) in heads or one is weights[-1]))
    ]


if hasattr(torch.optim, "Muon"):
    # With this rule, learning rates that suit AdamW suit Muon.
    _PARAMETERS = optimizer_parameters(torch.optim.Muon, {"adjust_lr_fn": "match_rms_adamw"})

    @OPTIMIZERS.register("muon")
    def muon(*, model: Segmentor, **given: Any) -> torch.optim.Optimizer:
        """torch.optim.Muon for hidden layers, and AdamW for all other parameters."""
        rates, own = split_rates(given, _PARAMETERS)
        hidden = _hidden(model)
        ids = {id(parameter) for parameter in hidden}
        others = [parameter for parameter in model.parameters() if id(parameter) not in ids]
        return MuonWithAdamW(
            parameter_groups(model, rates, hidden),
            parameter_groups(model, rates, others),
            lr=rates.lr,
            **own,
        )

    set_signature(muon, {"model": MODEL, **_PARAMETERS})
