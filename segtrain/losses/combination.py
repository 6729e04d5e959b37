"""Combinations of losses: a weighted sum, and a sum with learned weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from segtrain.errors import ConfigError
from segtrain.losses.base import Dense, Loss, Term, check_is_mean
from segtrain.losses.class_weights import ClassWeights
from segtrain.losses.mining.base import MiningSpec, build_mining
from segtrain.losses.registry import LOSSES, register_loss
from segtrain.schema.values import build_dataclass

Terms = Mapping[str, Mapping[str, Any] | None]


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """A weight that changes linearly from `start` to `end` and is constant before and after.

    The change begins and ends at numbers of optimizer steps, or at shares of all steps of a run.

    Attributes:
        start: The weight before the change.
        end: The weight after the change.
        from_step: Number of optimizer steps after which the change begins.
        to_step: Number of optimizer steps after which it ends.
        from_share: Share of all steps, from 0 to 1, after which the change begins.
        to_share: Share of all steps after which it ends; replaces `to_step`.

    Example:
        >>> ramp = Ramp(start=1.0, end=0.0, from_step=100, to_step=300)
        >>> [ramp.at(step) for step in (0, 100, 200, 1000)]
        [1.0, 1.0, 0.5, 0.0]
        >>> Ramp(start=1.0, end=0.0, to_share=0.5).at(100, total_steps=400)
        0.5
    """

    start: float
    end: float
    from_step: int | None = None
    to_step: int | None = None
    from_share: float | None = None
    to_share: float | None = None

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            _check_weight(getattr(self, name), name)
        if self.to_step is None and self.to_share is None:
            raise ConfigError(
                "to_step or to_share is missing: give the end of the change as a number of steps or"
                " as a share of all steps"
            )
        if self.to_step is not None and self.to_share is not None:
            raise ConfigError(
                "to_share and to_step are both set; set one of them to null, such as to_share=null"
                " where a preset sets it"
            )
        kind, other = ("share", "step") if self.to_step is None else ("step", "share")
        if getattr(self, f"from_{other}") is not None:
            raise ConfigError(f"from_{other} does not go with to_{kind}; use from_{kind}")
        begin, end = self._span()
        if not 0 <= begin < end:
            raise ConfigError(f"to_{kind} must come after from_{kind}, got {begin} to {end}")
        if self.to_share is not None and end > 1:
            raise ConfigError(f"to_share must be at most 1, got {end}")

    def _span(self) -> tuple[float, float]:
        """Where the change begins and ends, as steps or as shares."""
        if self.to_step is not None:
            return self.from_step or 0, self.to_step
        assert self.to_share is not None
        return self.from_share or 0.0, self.to_share

    def at(self, step: int, total_steps: int | None = None) -> float:
        """The weight after `step` of `total_steps` optimizer steps.

        Raises:
            ConfigError: When the ramp has shares and `total_steps` is None.
        """
        begin, end = self._span()
        now = float(step)
        if self.to_share is not None:
            if total_steps is None:
                raise ConfigError(
                    "a weight changes by to_share, a share of all steps: call"
                    " at_step(step, total_steps), or use to_step"
                )
            now = step / total_steps
        done = min(max((now - begin) / (end - begin), 0.0), 1.0)
        return self.start + (self.end - self.start) * done


class Combination(Loss):
    """Several losses of the same logits and target; base of `sum` and `uncertainty`.

    Args:
        terms: The parameters of each term by its name:
            ``{"dice": {"weight": 0.5, "smooth": 1.0}}``. The ``name`` of a term is the loss it
            uses, by default its key. Its ``weight`` is 1 by default and may change during
            training: ``{"start": 1.0, "end": 0.0, "from_step": 0, "to_step": 5000}``, or
            with ``from_share`` and ``to_share``, which are shares of all steps of the run.
        class_weights: Passed to the terms that do not set their own.
        mining: Passed to the pixel losses among the terms that do not set their own.
        num_classes: Number of channels of the logits.
        ignore_label: Target value of ignored pixels.
    """

    def __init__(
        self,
        *,
        terms: Terms,
        num_classes: int,
        ignore_label: int = 255,
        class_weights: ClassWeights = None,
        mining: MiningSpec = None,
    ) -> None:
        super().__init__(num_classes=num_classes, ignore_label=ignore_label)
        # A configuration removes a term by setting it to null.
        specs = {
            key: {"name": key, **params} for key, params in terms.items() if params is not None
        }
        _check_terms(specs, mining)
        plans = [
            _weight(spec.pop("weight", 1.0), f"terms.{key}.weight") for key, spec in specs.items()
        ]
        self.ramps = {index: plan for index, plan in enumerate(plans) if isinstance(plan, Ramp)}
        shared = {"class_weights": class_weights, "mining": mining}
        self.names = tuple(specs)
        self.parts = nn.ModuleDict(
            {
                _module_name(key, index): self._build_term(key, spec, shared)
                for index, (key, spec) in enumerate(specs.items())
            }
        )
        check_is_mean([self])
        self.dense = _common_kind(self.terms())  # type: ignore[misc]
        self.weights: Tensor
        start = [plan.at(0, 1) if isinstance(plan, Ramp) else plan for plan in plans]
        self.register_buffer("weights", torch.tensor(start), persistent=False)

    def _build_term(self, key: str, spec: dict[str, Any], shared: Mapping[str, Any]) -> Term:
        known = LOSSES.schema(spec["name"], where=f"terms.{key}")
        defaults = {
            name: value for name, value in shared.items() if value is not None and name in known
        }
        part = LOSSES.build(
            {**defaults, **spec},
            where=f"terms.{key}",
            num_classes=self.num_classes,
            ignore_label=self.ignore_label,
        )
        if not isinstance(part, Term):
            raise ConfigError(
                f"terms.{key} is itself a combination; list its terms next to the others"
            )
        return part

    def terms(self) -> dict[str, Term]:
        parts = zip(self.names, self.parts.values(), strict=True)
        return {name: part for name, part in parts if isinstance(part, Term)}

    def term_weights(self, like: Tensor) -> Tensor:
        return self.weights.to(like)

    def at_step(self, step: int, total_steps: int | None = None) -> None:
        for index, ramp in self.ramps.items():
            self.weights[index] = ramp.at(step, total_steps)


@register_loss("sum")
class WeightedSum(Combination):
    r"""Weighted sum of losses.

    .. math:: L = \sum_t w_t L_t

    Args:
        **common: ``terms``, ``class_weights``, ``mining``, ``num_classes``, ``ignore_label`` of
            :class:`Combination`.

    Note:
        In strips, the terms share one upsampling and, where possible, one softmax.

    Example:
        >>> loss = WeightedSum(terms={"cross_entropy": {}, "dice": {"weight": 0.5}}, num_classes=2)
        >>> list(loss.terms()), loss.term_weights(torch.zeros(())).tolist()
        (['cross_entropy', 'dice'], [1.0, 0.5])

    References:
        Cross entropy plus Dice: Isensee et al., nnU-Net, Nature Methods 2021. A hand-over from
        region to boundary: Kervadec et al., Boundary Loss for Highly Unbalanced Segmentation,
        MIDL 2019, section 3.
    """


@register_loss("uncertainty")
class Uncertainty(Combination):
    r"""Sum of losses, each weighted by the learned inverse of its noise variance.

    .. math:: L = \sum_t w_t\, e^{-s_t} L_t + \tfrac{1}{2} s_t, \qquad s_t = \log \sigma_t^2

    with one learned parameter :math:`s_t` per term, initialised to 0.

    Args:
        **common: ``terms``, ``class_weights``, ``mining``, ``num_classes``, ``ignore_label`` of
            :class:`Combination`.

    Note:
        The weight of a term converges to :math:`e^{-s_t} = 1 / (2 w_t L_t)`, so small losses get
        large weights, and the value may be negative. A term adds nothing if it has no valid pixel
        or if its weight :math:`w_t` is 0 at the current step: without a loss,
        :math:`\tfrac{1}{2} s_t` alone would decrease :math:`s_t` without bound. The :math:`s_t`
        are parameters of the module: pass ``loss.parameters()`` to the optimizer, as the trainer
        does. To learn weights of outputs instead of terms, use
        ``criterion.output_weights=learned``.

    Example:
        >>> loss = Uncertainty(terms={"cross_entropy": {}, "dice": {}}, num_classes=2)
        >>> loss(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]])).item()  # ln 2 + 1/3
        1.0264804...

    References:
        Kendall, Gal and Cipolla, Multi-Task Learning Using Uncertainty to Weigh Losses, CVPR 2018,
        eq. 10, in the form for classification for every term; for a regression the paper has a
        factor 1/2, which is ``weight: 0.5`` here.
    """

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.log_variances = nn.Parameter(torch.zeros(len(self.parts)))

    def term_weights(self, like: Tensor) -> Tensor:
        return super().term_weights(like) * torch.exp(-self.log_variances.to(like))

    def term_penalties(self, like: Tensor) -> Tensor:
        return torch.where(self.weights > 0, self.log_variances.to(like) / 2, 0)


def _module_name(term: str, index: int) -> str:
    """Return the key of a term in a ModuleDict: its name, or `index` where torch refuses it."""
    return term if term.isidentifier() and not hasattr(nn.ModuleDict(), term) else str(index)


def _check_terms(specs: Mapping[str, Mapping[str, Any]], mining: MiningSpec) -> None:
    if not specs:
        raise ConfigError("terms is empty: name at least one loss, as in terms.dice.weight=1")
    schemas = [LOSSES.schema(spec["name"], where=f"terms.{key}") for key, spec in specs.items()]
    if mining is None:
        return
    build_mining(mining)  # its mistakes are reported under mining, not under a term
    if not any("mining" in schema for schema in schemas):
        raise ConfigError(f"mining needs a pixel loss, and no term is one: {', '.join(specs)}")


def _common_kind(terms: Mapping[str, Term]) -> Dense | None:
    """Return the kind of dense target that all `terms` accept, or None."""
    kinds = {term.dense for term in terms.values()}
    if None in kinds or ("regression" in kinds and len(kinds) > 1):
        return None
    return "probability" if len(kinds) > 1 else kinds.pop()


def _weight(value: Any, where: str) -> float | Ramp:
    if isinstance(value, Mapping):
        return build_dataclass(Ramp, value, where)
    return _check_weight(value, where)


def _check_weight(value: Any, where: str) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not 0 <= value < float("inf")
    ):
        raise ConfigError(f"{where} must be a number, finite and not negative, got {value!r}")
    return float(value)
