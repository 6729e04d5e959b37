"""From the outputs of a model to one number: their weights, the upsampling and the losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segtrain.errors import ConfigError
from segtrain.losses import Loss
from segtrain.losses.base import at_least_float32, safe_ratio
from segtrain.strips import strip_values

MAIN_OUTPUT = "out"
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


class Criterion(nn.Module):
    """The weighted sum of a loss over the outputs of a model, upsampled to the target's size.

    Args:
        loss: For the main output, ``out``.
        auxiliary_loss: For every other output; `loss` unless given. The configuration builds it
            without mining, which acts on the main output only, as in the official HRNet code.
        output_weights: Weight per output; 1 for ``out`` and 0.4 for any other unless given.
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
        output_weights: Mapping[str, float] | None = None,
        align_corners: bool = False,
        strip_rows: int | Literal["auto"] | None = "auto",
    ) -> None:
        super().__init__()
        self.loss = loss
        self.auxiliary_loss = auxiliary_loss or loss
        self.output_weights = None if output_weights is None else dict(output_weights)
        self.align_corners = align_corners
        self.strip_rows = self._check_strip_rows(strip_rows)

    def _check_strip_rows(self, rows: int | Literal["auto"] | None) -> int | Literal["auto"] | None:
        if rows not in (None, "auto") and not (isinstance(rows, int) and rows >= 1):
            raise ConfigError(
                f"criterion.strip_rows must be at least 1, 'auto' or null, got {rows!r}"
            )
        terms = [*self.loss.terms().items(), *self.auxiliary_loss.terms().items()]
        whole = [name for name, term in terms if not term.can_strip]
        if whole and isinstance(rows, int):
            raise ConfigError(
                f"criterion.strip_rows: loss {whole[0]!r} returns one number and needs the whole"
                " image"
            )
        return None if whole else rows

    def forward(
        self,
        outputs: Tensor | Mapping[str, Tensor],
        target: Tensor,
        *,
        step_share: Tensor | None = None,
    ) -> CriterionReport:
        """Total and parts.

        Args:
            outputs: Logits, or a dict of logits that has ``out``, each at any resolution.
            target: Class ids or ``ignore_label`` at label resolution.
            step_share: The sum of :meth:`share` over all batches of the step, when this is one of
                several; values are scaled so that the sum over the batches is what one large batch
                would give.

        Shape:
            - outputs: ``(N, C, h, w)`` each, float.
            - target: ``(N, H, W)``, integer.

        Raises:
            ValueError: On an output without a weight, a weight without an output, or as
                :meth:`Loss.forward`.
        """
        named = {MAIN_OUTPUT: outputs} if isinstance(outputs, Tensor) else dict(outputs)
        weights = self._weights(named)
        factors = self._factors(target, step_share)
        total, parts = torch.zeros((), device=target.device), {}
        for name, logits in named.items():
            loss = self._loss_of(name)
            factor = factors[0] if loss is self.loss else factors[1]
            values = self._values(loss, logits, target)
            values = values if factor is None else values * factor
            total = total + weights[name] * loss.combine(values)
            parts.update(
                {
                    f"{name}/{term}": value
                    for term, value in zip(loss.terms(), values.detach(), strict=True)
                }
            )
        return CriterionReport(total, parts)

    def share(self, target: Tensor) -> Tensor:
        """How much a batch counts within its step, per term of the main and the auxiliary loss."""
        shares = [self.loss.share(target)]
        if self.auxiliary_loss is not self.loss:
            shares.append(self.auxiliary_loss.share(target))
        return torch.cat(shares)

    def _factors(
        self, target: Tensor, step_share: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        if step_share is None:
            return None, None
        factors = safe_ratio(self.share(target), step_share)
        count = len(self.loss.terms())
        return factors[:count], factors[
            count:
        ] if self.auxiliary_loss is not self.loss else factors[:count]

    def _loss_of(self, output: str) -> Loss:
        return self.loss if output == MAIN_OUTPUT else self.auxiliary_loss

    def _weights(self, outputs: Mapping[str, Tensor]) -> Mapping[str, float]:
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

    def _values(self, loss: Loss, logits: Tensor, target: Tensor) -> Tensor:
        """The values ``(T,)`` of the terms of `loss` for one output."""
        target = loss.check_target(target, logits, resized=True)
        terms = list(loss.terms().values())
        with torch.autocast(logits.device.type, enabled=False):
            logits = at_least_float32(logits)
            rows = self._rows(logits, target)
            if rows is not None:
                return strip_values(
                    logits, target, terms, rows=rows, align_corners=self.align_corners
                )
            if logits.shape[-2:] != target.shape[-2:]:
                size = target.shape[-2:]
                logits = F.interpolate(
                    logits, size=size, mode="bilinear", align_corners=self.align_corners
                )
            return torch.stack(
                [term.finish(term.statistics(logits, target), target) for term in terms]
            )

    def _rows(self, logits: Tensor, target: Tensor) -> int | None:
        if logits.shape[-2:] == target.shape[-2:] or not target.numel():
            return None
        if self.strip_rows != "auto":
            return self.strip_rows
        upsampled = logits.shape[1] * target.numel() * logits.element_size()
        return AUTO_STRIP_ROWS if upsampled > AUTO_STRIP_BYTES else None

    def extra_repr(self) -> str:
        return (
            f"align_corners={self.align_corners}, strip_rows={self.strip_rows},"
            f" weights={self.output_weights}"
        )
