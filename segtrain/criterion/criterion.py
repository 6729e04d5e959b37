"""From the outputs of a model to one number: their weights, the upsampling and the losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segtrain.criterion.strips import strip_total
from segtrain.errors import ConfigError
from segtrain.losses import DerivedTarget, Loss
from segtrain.losses.base import at_least_float32, safe_ratio

MAIN_OUTPUT = "out"
LEARNED = "learned"
_OTHERS = ""  # the outputs that learn the main target with the auxiliary loss
OutputWeights = Mapping[str, float | Literal["learned"]]
AUXILIARY_WEIGHT = 0.4  # of every output but the main one, unless output_weights says otherwise
AUTO_STRIP_ROWS = 16
AUTO_STRIP_BYTES = (
    8 * 2**20
)  # upsampled logits smaller than this are cheaper to hold than to make twice


@dataclass(frozen=True)
class CriterionReport:
    """What a criterion found: the scalar to train, and its parts.

    Attributes:
        total: ``()``, with a graph.
        parts: The value of each term of each output, ``"out/dice"``, detached and before its
            weights.
    """

    total: Tensor
    parts: dict[str, Tensor]


@dataclass(frozen=True)
class Task:
    """What an output learns where it is not what the main output learns.

    Attributes:
        loss: Its own loss.
        target: Makes its target of the class ids; None: the class ids themselves.
    """

    loss: Loss
    target: DerivedTarget | None = None


class Criterion(nn.Module):
    """The weighted sum of a loss over the outputs of a model, upsampled to the target's size.

    Args:
        loss: For the main output, ``out``.
        auxiliary_loss: For every other output; `loss` unless given. The configuration builds it
            without mining, which acts on the main output only, as in the official HRNet code.
        tasks: Outputs with a loss, or a loss and a target, of their own.
        output_weights: Weight per output; 1 for ``out`` and 0.4 for any other unless given. An
            output that weighs ``learned`` has a trained number :math:`s`, 0 at first, and counts
            as :math:`e^{-s} L + s / 2` (Kendall et al., CVPR 2018, eq. 10): hand
            ``criterion.parameters()`` to the optimizer, as the trainer does.
        align_corners: As in :func:`torch.nn.functional.interpolate`; the model must use the same.
        strip_rows: How many rows of the target to upsample at a time; None upsamples the whole,
            ``"auto"`` chooses by size. It changes memory and time, not the value.

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
        # Lists, because a name of an output may be one that a container of torch has for itself.
        self.task_losses = nn.ModuleList([task.loss for task in self.tasks.values()])
        self.output_weights = None if output_weights is None else dict(output_weights)
        weights = (output_weights or {}).items()
        self._learned = [name for name, weight in weights if weight == LEARNED]
        self.log_variances = nn.ParameterList([torch.zeros(()) for _ in self._learned])
        self.align_corners = align_corners
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
        """Total and parts.

        Args:
            outputs: Logits, or a dict of logits that has ``out``, each at any resolution.
            target: Class ids or ``ignore_label`` at label resolution; or a dict that has ``out``
                and may have the target of any other output.
            step_share: The sum of :meth:`share` over all batches of the step, when this is one of
                several; values are scaled so that the sum over the batches is what one large batch
                would give.

        Shape:
            - outputs: ``(N, C, h, w)`` each, float.
            - target: ``(N, H, W)``, integer, or what the loss of the output takes.

        Raises:
            ValueError: On an output without a weight, a weight without an output, or as
                :meth:`Loss.forward`.
        """
        named = {MAIN_OUTPUT: outputs} if isinstance(outputs, Tensor) else dict(outputs)
        weights = self._weights(named)
        targets = self._targets(target)
        factors = self._factors(targets, step_share)
        total, parts = torch.zeros((), device=targets[MAIN_OUTPUT].device), {}
        for name, logits in named.items():
            loss = self._loss_of(name)
            goal = targets[name if name in targets else MAIN_OUTPUT]
            factor = None if factors is None else factors[self._key(name, targets)]
            value, values = self._value(loss, logits, goal, factor)
            total = total + self._weighted(name, value, weights[name], goal, factor)
            parts.update(
                {f"{name}/{term}": value for term, value in zip(loss.terms(), values, strict=True)}
            )
        return CriterionReport(total, parts)

    def at_step(self, step: int) -> None:
        """Tell the losses that `step` optimizer steps are done: see :meth:`Loss.at_step`."""
        for loss in self._losses():
            loss.at_step(step)

    def share(self, target: Tensor | Mapping[str, Tensor]) -> Tensor:
        """How much a batch counts within its step, per term of every loss and target."""
        targets = self._targets(target)
        return torch.cat(list(self._shares(targets).values()))

    def _shares(self, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The shares of the terms of each output that has a loss or a target of its own."""
        shares = {name: self._loss_of(name).share(goal) for name, goal in targets.items()}
        if self.auxiliary_loss is not self.loss:
            shares[_OTHERS] = self.auxiliary_loss.share(targets[MAIN_OUTPUT])
        return shares

    def _key(self, output: str, targets: Mapping[str, Tensor]) -> str:
        """Under which name of :meth:`_shares` an output is found."""
        if output in targets:
            return output
        return _OTHERS if self.auxiliary_loss is not self.loss else MAIN_OUTPUT

    def _factors(
        self, targets: Mapping[str, Tensor], step_share: Tensor | None
    ) -> dict[str, Tensor] | None:
        """What scales the terms of each loss."""
        if step_share is None:
            return None
        shares = self._shares(targets)
        factors = safe_ratio(torch.cat(list(shares.values())), step_share)
        pieces = torch.split(factors, [len(share) for share in shares.values()])
        return dict(zip(shares, pieces, strict=True))

    def _losses(self) -> list[Loss]:
        """Every loss once."""
        tasks = [task.loss for task in self.tasks.values()]
        return list(dict.fromkeys([self.loss, self.auxiliary_loss, *tasks]))

    def _loss_of(self, output: str) -> Loss:
        if output in self.tasks:
            return self.tasks[output].loss
        return self.loss if output == MAIN_OUTPUT else self.auxiliary_loss

    def _targets(self, given: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The target of the main output, and of each that has one of its own."""
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

    def _weighted(
        self,
        name: str,
        value: Tensor,
        weight: float | str,
        target: Tensor,
        factor: Tensor | None,
    ) -> Tensor:
        """What an output adds to the total."""
        if not isinstance(weight, str):
            return weight * value
        log_variance = self.log_variances[self._learned.index(name)]
        share = self._loss_of(name).share(target)[0] if factor is None else factor[0]
        penalty = log_variance / 2 * (share.sign() if factor is None else share)
        weighted: Tensor = torch.exp(-log_variance) * value + penalty
        return weighted

    def _value(
        self, loss: Loss, logits: Tensor, target: Tensor, factor: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The loss of one output, and the detached values ``(T,)`` of its terms."""
        target = loss.check_target(target, logits, resized=True)
        with torch.autocast(logits.device.type, enabled=False):
            logits = at_least_float32(logits)
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
        values = torch.stack([term.value(logits, target) for term in terms])
        return (values * weights).sum(), values.detach()

    def _rows(self, logits: Tensor, target: Tensor) -> int | None:
        if logits.shape[-2:] == target.shape[-2:] or not target.numel():
            return None
        if self.strip_rows != "auto":
            return self.strip_rows
        pixels = len(target) * target.shape[-2] * target.shape[-1]
        upsampled = logits.shape[1] * pixels * logits.element_size()
        return AUTO_STRIP_ROWS if upsampled > AUTO_STRIP_BYTES else None

    def extra_repr(self) -> str:
        return (
            f"align_corners={self.align_corners}, strip_rows={self.strip_rows},"
            f" weights={self.output_weights}"
        )
