"""From a map of pixel losses to one number: which pixels count, and how much."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from segtrain.errors import ConfigError
from segtrain.registry import Registry


class Mining(nn.Module, ABC):
    """Reduces the weighted losses of the pixels of a batch to a scalar."""

    needs_probability: ClassVar[bool] = False

    @abstractmethod
    def forward(
        self, values: Tensor, weights: Tensor, valid: Tensor, probability: Tensor | None = None
    ) -> Tensor:
        """The value of the batch; 0 with a zero gradient when no pixel is kept.

        Shape:
            - values: ``(N, H, W)``, losses times the weights, 0 where not valid.
            - weights: ``(N, H, W)``, what each pixel weighs in a mean, 0 where not valid.
            - valid: ``(N, H, W)``, bool.
            - probability: ``(N, H, W)`` of the target's class, only when ``needs_probability``.
            - output: ``()``.
        """

    def share(self, weights: Tensor, valid: Tensor) -> Tensor:  # noqa: ARG002
        """How much this batch counts among several of one step: its valid pixels by default."""
        return valid.sum().float()


MININGS: Registry[Mining] = Registry("mining")


def build_mining(spec: str | Mapping[str, object]) -> Mining:
    """The mining that `spec` names, parameters checked."""
    return MININGS.build(spec)


@MININGS.register("none")
class MeanMining(Mining):
    r"""Every valid pixel counts: the mean, weighted by class if there are class weights.

    .. math:: L = \sum_i w_i \ell_i \Big/ \sum_i w_i

    Example:
        >>> valid = torch.tensor([[[True, True, False]]])
        >>> MeanMining()(torch.tensor([[[1.0, 3.0, 0.0]]]), valid.float(), valid)
        tensor(2.)
    """

    def forward(
        self,
        values: Tensor,
        weights: Tensor,
        valid: Tensor,  # noqa: ARG002
        probability: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        total = weights.sum()
        return values.sum() / torch.where(total > 0, total, 1)

    def share(self, weights: Tensor, valid: Tensor) -> Tensor:  # noqa: ARG002
        return weights.sum()


@MININGS.register("ohem")
class OhemMining(Mining):
    r"""Online hard example mining: the mean over the pixels predicted with little probability.

    With the probabilities of the valid pixels of the batch in ascending order, :math:`p_{(0)} \le
    p_{(1)} \le \dots`,

    .. math:: t = \max(\text{threshold},\ p_{(\min(\text{min\_kept},\,n-1))}), \qquad
              L = \frac{1}{|K|} \sum_{i \in K} w_i \ell_i, \quad K = \{i : p_i < t\}

    so at least ``min_kept`` pixels count when there are more. The mean divides by the number of
    kept pixels, not by their weights, as the official HRNet code does.

    Args:
        threshold: Pixels predicted with less than this probability are hard, in (0, 1].
        min_kept: How many pixels to keep at least, over the batch of one process.

    Note:
        When no more than ``min_kept`` pixels are valid, the easiest ones are left out if they reach
        the threshold. The official code crashes without a valid pixel and gives NaN when none is
        below ``t``; here the loss is 0 then.

    Example:
        >>> valid = torch.ones(1, 1, 3, dtype=torch.bool)
        >>> mine = OhemMining(threshold=0.7, min_kept=1)
        >>> values, probability = torch.tensor([[[[2.0, 0.1, 1.0]]], [[[0.1, 0.9, 0.4]]]])
        >>> mine(values, valid.float(), valid, probability)
        tensor(1.5000)

    References:
        Shrivastava et al., Training Region-based Object Detectors with Online Hard Example Mining,
        CVPR 2016; in the per-pixel form of HRNet-Semantic-Segmentation (Sun et al., 2019).
    """

    needs_probability = True

    def __init__(self, *, threshold: float = 0.7, min_kept: int = 100_000) -> None:
        super().__init__()
        if not 0 < threshold <= 1:
            raise ConfigError(f"mining.threshold must be above 0 and at most 1, got {threshold}")
        if min_kept < 1:
            raise ConfigError(f"mining.min_kept must be at least 1, got {min_kept}")
        self.threshold = threshold
        self.min_kept = min_kept

    def forward(
        self,
        values: Tensor,
        weights: Tensor,  # noqa: ARG002
        valid: Tensor,
        probability: Tensor | None = None,
    ) -> Tensor:
        assert probability is not None
        if not values.numel():
            return values.sum()
        hardness = torch.where(valid, probability.detach(), torch.inf)
        kept = (hardness < self._limit(hardness.flatten(), valid)) & valid
        return torch.where(kept, values, 0).sum() / kept.sum().clamp(min=1)

    def _limit(self, probability: Tensor, valid: Tensor) -> Tensor:
        """The probability below which a pixel is kept, without waiting for the device."""
        threshold = probability.new_tensor(self.threshold)
        rank = (valid.sum() - 1).clamp(0, self.min_kept)
        if probability.device.type != "cpu":
            return torch.maximum(probability.sort().values.gather(0, rank[None])[0], threshold)
        if int((probability < threshold).sum()) > int(
            rank
        ):  # enough hard pixels: no need to rank them
            return threshold
        return torch.maximum(probability.kthvalue(int(rank) + 1).values, threshold)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, min_kept={self.min_kept}"
