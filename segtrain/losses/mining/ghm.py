"""A mining that gives easy, middling and hard pixels the same say."""

from __future__ import annotations

import torch
from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.losses.base import safe_ratio
from segtrain.losses.mining.base import MININGS, Mining


@MININGS.register("ghm")
class GhmMining(Mining):
    r"""The mean over all pixels, weighted down where many pixels are as hard: harmonised gradients.

    The gradient norm of a pixel is :math:`g = 1 - p`, with :math:`p` the probability of its target.
    [0, 1] is cut into bins; of those, :math:`M` hold a pixel, and bin :math:`b` holds :math:`R_b`
    of the :math:`N` valid ones. Then

    .. math:: L = \sum_i \beta_i w_i \ell_i \Big/ \sum_i w_i, \qquad \beta_i = \frac{N}{M R_{b(i)}}

    so every bin with a pixel in it has the same weight in total.

    Args:
        bins: Into how many bins of one width [0, 1] is cut, at least 1, which is the mean.
        momentum: :math:`\alpha` in [0, 1): the counts are running averages, :math:`R_b \leftarrow
            \alpha R_b + (1 - \alpha) \cdot \text{count}`, and :math:`N` is their sum. Above 0 for
            batches too small to show every bin; the authors train with 0.75, and 30 bins. 0 has no
            memory.

    Attributes:
        running_counts: ``(bins,)``, with a momentum. It is part of the state, so that a resumed run
            goes on as before, and is updated once for each forward in training mode. Each process
            has its own.

    Note:
        Where all bins hold equally many pixels it is the mean, weighted by class if there are class
        weights. For smooth L1, whose ``target_probability`` is one minus the normalised gradient
        norm, it is GHM-R. A dense or multi-label pixel is one example here, by its
        ``target_probability``; the paper has one per class. It is no mean over the parts of a
        batch.

    Example:
        >>> valid = torch.ones(1, 1, 4, dtype=torch.bool)
        >>> values, probability = torch.tensor([[[[6.0, 1, 1, 1]]], [[[0.1, 0.9, 0.9, 0.9]]]])
        >>> GhmMining(bins=2)(values, valid.float(), valid, probability)  # (6 * 2 + 3 * 2 / 3) / 4
        tensor(3.5000)

    References:
        Li, Liu and Wang, Gradient Harmonized Single-stage Detector, AAAI 2019. The paper's
        :math:`\beta_i = N / (R_b \cdot \text{bins})` counts empty bins too, so that the weights add
        up to less than :math:`N`; the authors' code counts those with a pixel, as here. With a
        momentum the code divides the pixels of the batch by counts that start at 0, which makes the
        first losses :math:`1 / (1 - \alpha)` times as large, and lets only bins with a pixel
        forget; here :math:`N` is averaged with the counts, and all bins forget, as in the paper.
    """

    needs_probability = True

    def __init__(self, *, bins: int = 10, momentum: float = 0.0) -> None:
        super().__init__()
        if bins < 1:
            raise ConfigError(f"mining.bins must be at least 1, got {bins}")
        if not 0 <= momentum < 1:
            raise ConfigError(f"mining.momentum must be at least 0 and below 1, got {momentum}")
        self.bins = bins
        self.momentum = momentum
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
        """The counts, or with a momentum their running average, kept if this is training."""
        running = self.running_counts
        if running is None:
            return counts
        averaged = self.momentum * running + (1 - self.momentum) * counts
        if self.training:
            running.copy_(averaged)
        return averaged

    def extra_repr(self) -> str:
        return f"bins={self.bins}, momentum={self.momentum}"


def _histogram(index: Tensor, valid: Tensor, bins: int) -> Tensor:
    """How many valid pixels have each `index`, ``(bins,)``."""
    index = torch.where(valid, index, bins).flatten()
    if index.device.type == "cpu":
        return torch.bincount(index, minlength=bins + 1)[:bins]
    return _compare(index, bins)  # bincount would wait for the device, to learn its size


def _compare(index: Tensor, bins: int) -> Tensor:
    return torch.stack([(index == number).sum() for number in range(bins)])
