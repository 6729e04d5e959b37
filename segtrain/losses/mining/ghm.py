"""Gradient harmonising: pixels of every difficulty have the same total weight."""

from __future__ import annotations

import torch
from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.losses.base import safe_ratio
from segtrain.losses.mining.base import MININGS, Mining
from segtrain.losses.scope import Scope


@MININGS.register("ghm")
class GhmMining(Mining):
    r"""The mean over all pixels, with lower weights where many pixels have the same difficulty.

    The gradient norm of a pixel is :math:`g = 1 - p`, with :math:`p` the probability of its target.
    The range [0, 1] is divided into bins. :math:`M` bins hold a pixel, and bin :math:`b` holds
    :math:`R_b` of the :math:`N` valid pixels. Then

    .. math:: L = \sum_i \beta_i w_i \ell_i \Big/ \sum_i w_i, \qquad \beta_i = \frac{N}{M R_{b(i)}}

    so every bin with a pixel in it has the same total weight.

    Args:
        bins: Number of bins of equal width in [0, 1], at least 1; one bin is the mean.
        momentum: :math:`\alpha` in [0, 1): the counts are running averages, :math:`R_b \leftarrow
            \alpha R_b + (1 - \alpha) \cdot \text{count}`, and :math:`N` is their sum. Set it above
            0 if batches are too small to fill every bin; the authors train with 0.75 and 30 bins.
            With 0 every batch has its own counts.
        per_class: Count each class of a pixel as an example, as in the paper: for losses with a
            sigmoid per class, such as ``bce``. Otherwise a pixel is one example, with the gradient
            norm of its worst class. Training then holds all upsampled logits at once.
        scope: ``global`` takes the pixels of all processes together, which exchange their losses at
            each step; ``process`` those of each process alone.

    Attributes:
        running_counts: ``(bins,)``; None without a momentum. It is part of the state, so a resumed
            run gives the same losses. It is updated once per forward in training mode. Each process
            has its own, which are equal with a global scope.

    Note:
        If all bins hold the same number of pixels it is the mean, weighted by class if there are
        class weights. For smooth L1, whose ``target_probability`` is one minus the normalised
        gradient norm, it is GHM-R. If nearly all pixels are hard, the few that are easy in all
        classes have the weight of a whole bin. With `per_class` they share this bin with the easy
        classes of the other pixels. The values of the parts of a batch do not add up to the
        value of the batch.

    Example:
        >>> valid = torch.ones(1, 1, 4, dtype=torch.bool)
        >>> values, probability = torch.tensor([[[[6.0, 1, 1, 1]]], [[[0.1, 0.9, 0.9, 0.9]]]])
        >>> GhmMining(bins=2)(values, valid.float(), valid, probability)  # (6 * 2 + 3 * 2 / 3) / 4
        tensor(3.5000)

    References:
        Li, Liu and Wang, Gradient Harmonized Single-stage Detector, AAAI 2019. The paper's
        :math:`\beta_i = N / (R_b \cdot \text{bins})` counts empty bins, too, so the weights add up
        to less than :math:`N`; the authors' code counts the bins with a pixel, as here. With a
        momentum, the code divides the number of pixels of the batch by counts that start at 0, so
        the first losses are :math:`1 / (1 - \alpha)` times as large, and it updates only bins with
        a pixel. Here :math:`N` is averaged like the counts, and all bins are updated, as in the
        paper.
    """

    needs_probability = True

    def __init__(
        self,
        *,
        bins: int = 10,
        momentum: float = 0.0,
        per_class: bool = False,
        scope: Scope = "process",
    ) -> None:
        super().__init__()
        self.scope = scope
        if bins < 1:
            raise ConfigError(f"mining.bins must be at least 1, got {bins}")
        if not 0 <= momentum < 1:
            raise ConfigError(f"mining.momentum must be at least 0 and below 1, got {momentum}")
        self.bins = bins
        self.momentum = momentum
        self.per_class = per_class
        self.running_counts: Tensor | None
        self.register_buffer("running_counts", torch.zeros(bins) if momentum else None)

    def forward(
        self,
        values: Tensor,
        weights: Tensor,
        valid: Tensor,
        probability: Tensor | None = None,
        target: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        assert probability is not None
        norm = 1 - probability.detach()
        index = (norm * self.bins).long().clamp(0, self.bins - 1)
        counts = _histogram(index, valid, self.bins)
        averaged = self._averaged(counts).to(values.dtype)
        factor = safe_ratio(averaged.sum(), averaged * (counts > 0).sum())
        total = weights.sum()
        return (values * factor[index]).sum() / torch.where(total > 0, total, 1)

    def share(self, weights: Tensor, valid: Tensor) -> Tensor:  # noqa: ARG002
        return weights.sum()

    def _averaged(self, counts: Tensor) -> Tensor:
        """The counts; with a momentum their running average, which training mode stores."""
        running = self.running_counts
        if running is None:
            return counts
        averaged = self.momentum * running + (1 - self.momentum) * counts
        if self.training:
            running.copy_(averaged)
        return averaged

    def extra_repr(self) -> str:
        return f"bins={self.bins}, momentum={self.momentum}, per_class={self.per_class}"


def _histogram(index: Tensor, valid: Tensor, bins: int) -> Tensor:
    """The number of valid pixels with each `index`, ``(bins,)``."""
    index = torch.where(valid, index, bins).flatten()
    if index.device.type == "cpu":
        return torch.bincount(index, minlength=bins + 1)[:bins]
    return _compare(index, bins)  # bincount would wait for the device to know its output's size


def _compare(index: Tensor, bins: int) -> Tensor:
    return torch.stack([(index == number).sum() for number in range(bins)])
