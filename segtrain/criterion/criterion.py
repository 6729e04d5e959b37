"""The criterion: the weighted sum of losses over the outputs of a model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segtrain.criterion.strips import strip_total
from segtrain.errors import ConfigError
from segtrain.losses import DerivedTarget, Loss, MeanMining, PixelLoss
from segtrain.losses.base import at_least_float32, check_is_mean, is_finite, safe_ratio

MAIN_OUTPUT = "out"
LEARNED = "learned"
OutputWeights = Mapping[str, float | Literal["learned"]]
AUXILIARY_WEIGHT = 0.4  # the default weight of every output except the main one
AUTO_STRIP_ROWS = 16
# Keeping smaller upsampled logits in memory is cheaper than computing them twice.
AUTO_STRIP_BYTES = 8 * 2**20


@dataclass(frozen=True)
class CriterionReport:
    """The result of a criterion.

    Attributes:
        total: The scalar to train, ``()``, with a graph.
        parts: The value ``()`` of each term of each output, under keys such as ``"out/dice"``,
            detached and before its weights.
    """

    total: Tensor
    parts: dict[str, Tensor]


@dataclass(frozen=True)
class Task:
    """The loss and the target of an output that does not learn what the main output learns.

    Attributes:
        loss: The loss.
        target: Computes the target from the class ids; None: the class ids themselves.
    """

    loss: Loss
    target: DerivedTarget | None = None


@dataclass
class _Goal:
    """What an output learns from one batch.

    Attributes:
        loss: The loss.
        target: The target, as the loss takes it.
        factor: The scale of each term, ``(T,)``, if the batch is one of several of a step.
    """

    loss: Loss
    target: Tensor
    factor: Tensor | None = None

    def share(self) -> Tensor:
        """:meth:`Loss.share` of the target, ``(T,)``."""
        return self.loss.share(self.target)


@dataclass
class _Goals:
    """What all outputs learn from one batch.

    Attributes:
        by_output: The goals of the main output and of every output with a target or a task.
        auxiliary: The goal of all other outputs. It is the main one if they have the same loss.
    """

    by_output: dict[str, _Goal]
    auxiliary: _Goal

    def of(self, output: str) -> _Goal:
        return self.by_output.get(output, self.auxiliary)

    def share(self) -> Tensor:
        """The shares of all goals, each once, one after the other."""
        return torch.cat([goal.share() for goal in self._each()])

    def scale(self, step_share: Tensor) -> None:
        """Set the factors of a batch that is one of several of a step with `step_share`."""
        goals = self._each()
        shares = [goal.share() for goal in goals]
        factors = safe_ratio(torch.cat(shares), step_share)
        pieces = torch.split(factors, [len(share) for share in shares])
        for goal, factor in zip(goals, pieces, strict=True):
            goal.factor = factor

    def _each(self) -> list[_Goal]:
        goals = list(self.by_output.values())
        is_known = any(goal is self.auxiliary for goal in goals)
        return goals if is_known else [*goals, self.auxiliary]


class Criterion(nn.Module):
    """The weighted sum of a loss over the outputs of a model, upsampled to the target's size.

    Args:
        loss: The loss of the main output, ``out``.
        auxiliary_loss: The loss of every other output; by default `loss`. A configuration builds it
            without mining, which acts on the main output only, as in the official HRNet code.
        tasks: The outputs that have their own loss, or their own loss and target.
        output_weights: Weight per output; by default 1 for ``out`` and 0.4 for every other. The
            weight ``learned`` stands for a trained number :math:`s`, initially 0: the output adds
            :math:`e^{-s} L + s / 2` (Kendall et al., CVPR 2018, eq. 10). Pass
            ``criterion.parameters()`` to the optimizer, as the trainer does.
        align_corners: As in :func:`torch.nn.functional.interpolate`; the model must use the same.
        strip_rows: Number of rows of the target to upsample at a time; None: all at once;
            ``"auto"``: chosen by size. It changes memory and time, not the value.

    Raises:
        ConfigError: If a weight or `strip_rows` is not valid, or `strip_rows` is a number although
            a loss has no strips.

    Example:
        >>> import torch
        >>> from segtrain.losses import CrossEntropy
        >>> loss = CrossEntropy(num_classes=2)
        >>> criterion = Criterion(loss, output_weights={"out": 1.0, "aux": 0.5})
        >>> outputs = {"out": torch.zeros(1, 2, 2, 2), "aux": torch.zeros(1, 2, 1, 1)}
        >>> report = criterion(outputs, torch.zeros(1, 8, 8, dtype=torch.long))
        >>> report.total, sorted(report.parts)  # 1.5 ln 2
        (tensor(1.0397), ['aux/cross_entropy', 'out/cross_entropy'])
    """

    def __init__(
        self,
        loss: Loss,
        *,
        auxiliary_loss: Loss | None = None,
        tasks: Mapping[str, Task] | None = None,
        output_weights: OutputWeights | None = None,
        align_corners: bool = False,
        strip_rows: int | Literal["auto"] | None = "auto",
    ) -> None:
        super().__init__()
        self.loss = loss
        self.auxiliary_loss = auxiliary_loss or loss
        self.tasks = dict(tasks or {})
        # Lists, as the name of an output may be an attribute of torch's containers by name.
        self.task_losses = nn.ModuleList([task.loss for task in self.tasks.values()])
        for name, weight in (output_weights or {}).items():
            if weight != LEARNED and not (
                isinstance(weight, (int, float)) and math.isfinite(weight) and weight >= 0
            ):
                raise ConfigError(
                    f"criterion.output_weights.{name} must be finite and at least 0, or"
                    f" {LEARNED!r}, got {weight!r}"
                )
        self.output_weights = None if output_weights is None else dict(output_weights)
        weights = (output_weights or {}).items()
        self._learned = [name for name, weight in weights if weight == LEARNED]
        self.log_variances = nn.ParameterList([torch.zeros(()) for _ in self._learned])
        self.align_corners = align_corners
        check_is_mean(self._losses())
        self.strip_rows = self._check_strip_rows(strip_rows)

    def _check_strip_rows(self, rows: int | Literal["auto"] | None) -> int | Literal["auto"] | None:
        is_number = isinstance(rows, int) and not isinstance(rows, bool)
        if rows not in (None, "auto") and not (is_number and int(rows) >= 1):
            raise ConfigError(
                f"criterion.strip_rows must be at least 1, 'auto' or null, got {rows!r}"
            )
        terms = [item for loss in self._losses() for item in loss.terms().items()]
        whole = [name for name, term in terms if not term.runs_in_strips]
        if whole and isinstance(rows, int):
            raise ConfigError(
                f"criterion.strip_rows: loss {whole[0]!r} needs the whole image, so it has"
                " no strips; use auto or null"
            )
        return None if whole else rows

    def forward(
        self,
        outputs: Tensor | Mapping[str, Tensor],
        target: Tensor | Mapping[str, Tensor],
        *,
        step_share: Tensor | None = None,
    ) -> CriterionReport:
        """Compute the total and its parts.

        Args:
            outputs: Logits; or a dict of logits, each at any resolution, with the key ``out``.
            target: Class ids or ``ignore_label`` at label resolution; or a dict of targets by
                output. It must have ``out`` and may have any other output.
            step_share: The sum of :meth:`share` over all batches of the step, if this is one of
                several. The total is scaled so that the totals of these batches add up to the total
                of one large batch.

        Shape:
            - outputs: ``(N, C, h, w)`` each, float.
            - target: ``(N, H, W)``, integer, or as the loss of the output takes it.

        Raises:
            ValueError: If an output has no weight or a weight has no output, or as
                :meth:`Loss.forward`.
        """
        for what, given in (("outputs", outputs), ("target", target)):
            if not isinstance(given, (Tensor, Mapping)):
                raise TypeError(
                    f"{what} must be a tensor, or a dict of tensors with the key 'out', got"
                    f" {type(given).__name__}"
                )
        named = {MAIN_OUTPUT: outputs} if isinstance(outputs, Tensor) else dict(outputs)
        weights = self._weights(named)
        goals = self._goals(target)
        if step_share is not None:
            goals.scale(step_share)
        total, parts = torch.zeros((), device=goals.of(MAIN_OUTPUT).target.device), {}
        for name, logits in named.items():
            goal = goals.of(name)
            value, values = self._value(goal, logits)
            total = total + self._weighted(value, weights[name], name, goal)
            for term, part in zip(goal.loss.terms(), values, strict=True):
                parts[f"{name}/{term}"] = part
        return CriterionReport(total, parts)

    @property
    def is_global(self) -> bool:
        """Whether a term is computed from the pixels of all processes."""
        return any(
            "global" in (getattr(term, "scope", None), getattr(mining, "scope", None))
            for loss in self._losses()
            for term in loss.terms().values()
            for mining in (getattr(term, "mining", None),)
        )

    def at_step(self, step: int, total_steps: int | None = None) -> None:
        """Set the number of optimizer steps done so far: see :meth:`Loss.at_step`."""
        for loss in self._losses():
            loss.at_step(step, total_steps)

    @contextmanager
    def without_mining(self) -> Iterator[None]:
        """Inside the block, pixel losses are the mean over all valid pixels, as for validation.

        No loss sees the pixels of other processes.
        """
        losses = [module for module in self.modules() if isinstance(module, PixelLoss)]
        minings = [loss.mining for loss in losses]
        was_training = self.training
        self.eval()
        try:
            for loss in losses:
                loss.mining = MeanMining()
            yield
        finally:
            for loss, mining in zip(losses, minings, strict=True):
                loss.mining = mining
            self.train(was_training)

    def share(self, target: Tensor | Mapping[str, Tensor]) -> Tensor:
        """The share of a batch in its step, for each term of every loss and target.

        See :meth:`Loss.share`. The sum over the batches of a step is the `step_share` of
        :meth:`forward`.
        """
        return self._goals(target).share()

    def _goals(self, target: Tensor | Mapping[str, Tensor]) -> _Goals:
        targets = self._targets(target)
        goals = {name: _Goal(self._loss_of(name), found) for name, found in targets.items()}
        main = goals[MAIN_OUTPUT]
        is_same = self.auxiliary_loss is self.loss
        return _Goals(goals, main if is_same else _Goal(self.auxiliary_loss, main.target))

    def _losses(self) -> list[Loss]:
        """Every loss once."""
        tasks = [task.loss for task in self.tasks.values()]
        return list(dict.fromkeys([self.loss, self.auxiliary_loss, *tasks]))

    def _loss_of(self, output: str) -> Loss:
        if output in self.tasks:
            return self.tasks[output].loss
        return self.loss if output == MAIN_OUTPUT else self.auxiliary_loss

    def _targets(self, given: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The target of the main output, and of each output with a given target or a task."""
        targets = {MAIN_OUTPUT: given} if isinstance(given, Tensor) else dict(given)
        if MAIN_OUTPUT not in targets:
            raise ValueError(
                f"target must have {MAIN_OUTPUT!r}, got {', '.join(targets) or 'none'}"
            )
        main = targets[MAIN_OUTPUT]
        for name, task in self.tasks.items():
            if name not in targets:
                label = self.loss.ignore_label
                targets[name] = main if task.target is None else task.target(main, label)
        return targets

    def _weights(self, outputs: Mapping[str, Tensor]) -> OutputWeights:
        if MAIN_OUTPUT not in outputs:
            raise ValueError(
                f"outputs must have {MAIN_OUTPUT!r}, got {', '.join(outputs) or 'none'}"
            )
        if self.output_weights is None:
            return {name: 1.0 if name == MAIN_OUTPUT else AUXILIARY_WEIGHT for name in outputs}
        if self.output_weights.keys() != outputs.keys():
            raise ValueError(
                f"the model's outputs are {', '.join(outputs)}, but criterion.output_weights names"
                f" {', '.join(self.output_weights) or 'none'}"
            )
        return self.output_weights

    def _weighted(self, value: Tensor, weight: float | str, output: str, goal: _Goal) -> Tensor:
        """The part of the total that an output adds."""
        if not isinstance(weight, str):
            return weight * value
        log_variance = self.log_variances[self._learned.index(output)]
        share = goal.share()[0].sign() if goal.factor is None else goal.factor[0]
        weighted: Tensor = torch.exp(-log_variance) * value + log_variance / 2 * share
        return weighted

    def _value(self, goal: _Goal, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of one output, and the detached values ``(T,)`` of its terms."""
        loss, factor = goal.loss, goal.factor
        target = loss.check_target(goal.target, logits, resized=True)
        with torch.autocast(logits.device.type, enabled=False):
            logits = loss.usable(at_least_float32(logits), target)
            weights = loss.term_weights(logits)
            weights = weights if factor is None else weights * factor
            total, values = self._terms(loss, logits, target, weights)
            penalties = loss.term_penalties(logits)
            if penalties is not None:
                penalties = penalties if factor is None else penalties * factor
                total = total + loss.penalty(penalties, target)
            return total, values if factor is None else values * factor

    def _terms(
        self, loss: Loss, logits: Tensor, target: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The weighted sum of the terms of `loss`, ``()``, and their detached values ``(T,)``."""
        terms = list(loss.terms().values())
        rows = self._rows(logits, target)
        if rows is not None:
            return strip_total(
                logits,
                target,
                terms,
                weights=weights,
                rows=rows,
                align_corners=self.align_corners,
            )
        if logits.shape[-2:] != target.shape[-2:]:
            size = target.shape[-2:]
            logits = F.interpolate(
                logits, size=size, mode="bilinear", align_corners=self.align_corners
            )
        values = torch.stack([term.checked_value(logits, target) for term in terms])
        return (values * weights).sum(), values.detach()

    def _rows(self, logits: Tensor, target: Tensor) -> int | None:
        """The number of rows in a strip; None: all rows at once."""
        if logits.shape[-2:] == target.shape[-2:] or not target.numel():
            return None
        rows = self.strip_rows
        if rows == "auto":
            pixels = len(target) * target.shape[-2] * target.shape[-1]
            upsampled = logits.shape[1] * pixels * logits.element_size()
            rows = AUTO_STRIP_ROWS if upsampled > AUTO_STRIP_BYTES else None
        if rows is not None and logits.device.type == "cpu" and not is_finite(logits):
            return None  # strips do not look at what is at ignored pixels
        return rows

    def extra_repr(self) -> str:
        return (
            f"align_corners={self.align_corners}, strip_rows={self.strip_rows},"
            f" weights={self.output_weights}"
        )
