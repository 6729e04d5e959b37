"""Hard-example mining by rank: the pixels with the lowest probability or the largest loss count."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TypeVar

import torch
from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.losses.mining.base import MININGS, Mining, StreamingMining
from segtrain.losses.scope import Scope

Count = TypeVar("Count", int, Tensor)


@MININGS.register("ohem")
class OhemMining(StreamingMining):
    r"""Online hard example mining: the mean over the pixels predicted with low probability.

    With the probabilities of the valid pixels of the batch in ascending order, :math:`p_{(0)} \le
    p_{(1)} \le \dots`,

    .. math:: t = \max(\text{threshold},\ p_{(\min(\text{min\_kept},\,n-1))}), \qquad
              L = \frac{1}{|K|} \sum_{i \in K} w_i \ell_i, \quad K = \{i : p_i < t\}

    so at least ``min_kept`` pixels count if more than these are valid. The sum is divided by the
    number of kept pixels, not by their weights, as in the official HRNet code.

    Args:
        threshold: Pixels whose target has less than this probability are hard, in (0, 1].
        min_kept: Minimum number of pixels to keep in the batch, of one process or of all.
        ratio: Minimum share of the valid pixels to keep, in (0, 1], for any size of the batch.
            Whichever of ``min_kept`` and ``ratio`` keeps more pixels decides; with ``min_kept=1``
            it is ``ratio``. Null: no minimum share.
        scope: ``global`` takes the pixels of all processes together, which exchange their losses at
            each step; ``process`` those of each process alone.

    Note:
        If at most ``min_kept`` pixels are valid, the easiest of them is dropped unless it is below
        the threshold. Pixels that tie with the last one that ``min_kept`` reaches are all dropped.
        Pixels that tie with the last one that ``ratio`` reaches are all kept, so ``ratio=1`` is the
        mean of all. Without a valid pixel, or without a pixel below :math:`t`, the loss is 0; the
        official code crashes in the first case and gives NaN in the second. The values of the parts
        of a batch do not add up to the value of the batch.

    Example:
        >>> valid = torch.ones(1, 1, 3, dtype=torch.bool)
        >>> mine = OhemMining(threshold=0.7, min_kept=1)
        >>> values, probability = torch.tensor([[[[2.0, 0.1, 1.0]]], [[[0.1, 0.9, 0.4]]]])
        >>> mine(values, valid.float(), valid, probability)
        tensor(1.5000)

    References:
        Shrivastava et al., Training Region-based Object Detectors with Online Hard Example Mining,
        CVPR 2016; in the per-pixel form of HRNet-Semantic-Segmentation (Sun et al., 2019), which
        has no ``ratio``.
    """

    needs_probability = True

    def __init__(
        self,
        *,
        threshold: float = 0.7,
        min_kept: int = 100_000,
        ratio: float | None = None,
        scope: Scope = "process",
    ) -> None:
        super().__init__()
        self.scope = scope
        if not 0 < threshold <= 1:
            raise ConfigError(f"mining.threshold must be above 0 and at most 1, got {threshold}")
        if min_kept < 1:
            raise ConfigError(f"mining.min_kept must be at least 1, got {min_kept}")
        if ratio is not None:
            _check_ratio(ratio)
        self.threshold = threshold
        self.min_kept = min_kept
        self.ratio = ratio

    def forward(
        self,
        values: Tensor,
        weights: Tensor,  # noqa: ARG002
        valid: Tensor,
        probability: Tensor | None = None,
        target: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        assert probability is not None
        if not values.numel():
            return values.sum()
        hardness = torch.where(valid, probability.detach(), torch.inf)
        # Not "<": a pixel whose probability is NaN must be kept, to make the loss NaN.
        kept = ~(hardness >= self._limit(hardness.flatten(), valid)) & valid
        if self.ratio is not None:
            kept |= (hardness <= self._last_of_ratio(hardness.flatten(), valid)) & valid
        return torch.where(kept, values, 0).sum() / kept.sum().clamp(min=1)

    def kept(self, valid: Tensor, probability: Tensor | None) -> Tensor:
        assert probability is not None
        return valid & ~(probability >= self.threshold)

    def denominator(self, weights: Tensor, kept: Tensor) -> Tensor:
        return kept.sum().to(weights.dtype)

    def decided(self, denominator: Tensor, num_valid: int) -> bool:
        wanted = 0 if self.ratio is None else portion(self.ratio, num_valid)
        return int(denominator) > self._rank(num_valid) and int(denominator) >= wanted

    def _rank(self, num_valid: int) -> int:
        return max(min(num_valid - 1, self.min_kept), 0)

    def _limit(self, probability: Tensor, valid: Tensor) -> Tensor:
        """The probability below which a pixel is kept, without waiting for the device."""
        threshold = probability.new_full((), self.threshold)
        rank = (valid.sum() - 1).clamp(0, self.min_kept)
        if self._are_hard(probability, rank + 1):
            return threshold
        return torch.maximum(ranked(probability, rank), threshold)

    def _last_of_ratio(self, probability: Tensor, valid: Tensor) -> Tensor:
        """The probability up to which a pixel is kept, to reach the share."""
        assert self.ratio is not None
        count = portion(self.ratio, valid.sum())
        if self._are_hard(probability, count):
            return probability.new_full((), -torch.inf)
        return ranked(probability, count - 1)

    def _are_hard(self, probability: Tensor, count: Tensor) -> bool:
        """Whether `count` pixels are below the threshold, so no ranking is needed; on the CPU."""
        if probability.device.type != "cpu":
            return False
        return int((probability < self.threshold).sum()) >= int(count)

    def extra_repr(self) -> str:
        ratio = "" if self.ratio is None else f", ratio={self.ratio}"
        return f"threshold={self.threshold}, min_kept={self.min_kept}{ratio}"


@MININGS.register("top_k")
class TopKMining(Mining):
    r"""The mean over a fixed share or number of pixels, those with the largest losses.

    With the losses of the valid pixels of the batch in descending order, :math:`v_{(1)} \ge v_{(2)}
    \ge \dots`, :math:`v_i = w_i \ell_i`,

    .. math:: L = \frac{1}{k} \sum_{j=1}^{k} v_{(j)}, \qquad
              k = \lceil \text{ratio} \cdot n \rceil \text{ or } \min(\text{k}, n)

    Args:
        ratio: Share of the :math:`n` valid pixels that count, in (0, 1]. A quarter is small enough
            for rare classes to matter, and too large for a few mislabelled pixels to dominate.
        k: Number of pixels that count in the batch, of one process or of all, at least 1; replaces
            `ratio`.
        scope: ``global`` takes the pixels of all processes together, which exchange their losses at
            each step; ``process`` those of each process alone.

    Note:
        Pixels are ranked by their loss times the class weight, and the sum is divided by the number
        of pixels, not by their weights; ``ratio=1`` without class weights is the mean. Pixels that
        tie for the last places share them equally, so neither value nor gradient depends on their
        order. The values of the parts of a batch do not add up to the value of the batch.

    Example:
        >>> valid = torch.ones(1, 1, 4, dtype=torch.bool)
        >>> values = torch.tensor([[[4.0, 1.0, 2.0, 1.0]]])
        >>> TopKMining(ratio=0.5)(values, valid.float(), valid)  # (4 + 2) / 2
        tensor(3.)

    References:
        Fan et al., Learning with Average Top-k Loss, NeurIPS 2017; here over the pixels of a batch
        and not over the training set. Wu, Shen and van den Hengel, Bridging Category-level and
        Instance-level Semantic Image Segmentation, 2016, rank the pixels of one image by their
        probability and keep a fixed number (512).
    """

    def __init__(
        self, *, ratio: float = 0.25, k: int | None = None, scope: Scope = "process"
    ) -> None:
        super().__init__()
        self.scope = scope
        self.ratio = _check_ratio(ratio)
        if k is not None and k < 1:
            raise ConfigError(f"mining.k must be at least 1, got {k}")
        self.k = k

    def forward(
        self,
        values: Tensor,
        weights: Tensor,  # noqa: ARG002
        valid: Tensor,
        probability: Tensor | None = None,  # noqa: ARG002
        target: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        if not values.numel():
            return values.sum()
        available = valid.sum()
        count = portion(self.ratio, available) if self.k is None else available.clamp(max=self.k)
        share = share_of_largest(values, valid, count)
        return (values * share).sum() / count.clamp(min=1)

    def extra_repr(self) -> str:
        return f"ratio={self.ratio}" if self.k is None else f"k={self.k}"


@MININGS.register("hard_negative")
class HardNegativeMining(Mining):
    r"""The mean over all object pixels and the background pixels with the largest losses.

    With the positive pixels :math:`P` and the :math:`k` negative pixels with the largest losses,
    :math:`N_k`,

    .. math:: L = \frac{1}{|P| + k} \sum_{i \in P \cup N_k} w_i \ell_i, \qquad
              k = \max(\text{ratio} \cdot |P|,\ \text{min\_negatives})

    Args:
        ratio: Number of negatives to keep per positive, at least 0. If the batch has fewer, all are
            kept. 3 is the paper's choice; infinity keeps all pixels.
        background: Class id of the negatives, below the number of classes; 0 or 1 for one channel.
        min_negatives: Minimum number of negatives to keep, so that a batch without a positive still
            has a loss; with 0 that loss is 0, as in the paper.
        scope: ``global`` takes the pixels of all processes together, which exchange their losses at
            each step; ``process`` those of each process alone.

    Note:
        A pixel of a target of probabilities has the class of its largest channel (any of them in a
        tie), so a one-hot target and its class ids give the same value. In a dense target of a
        sigmoid loss with several channels, a pixel may have several classes: it is positive if any
        channel is above 0.5, and `background` is not used.

        Negatives are ranked over the batch of one process by their loss times the class weight,
        :math:`k` is rounded, and pixels that tie for the last places share them equally. The sum is
        divided by the number of pixels, not by their weights; ``ratio=inf`` without class weights
        is the mean. The values of the parts of a batch do not add up to the value of the batch.

    Example:
        >>> valid = torch.ones(1, 1, 4, dtype=torch.bool)
        >>> values, target = torch.tensor([[[1.0, 4.0, 5.0, 3.0]]]), torch.tensor([[[1, 0, 0, 0]]])
        >>> mine = HardNegativeMining(ratio=2.0)
        >>> mine(values, valid.float(), valid, target=target)  # (1 + 5 + 4) / 3
        tensor(3.3333)

    References:
        Liu et al., SSD: Single Shot MultiBox Detector, ECCV 2016, section 2.2, hard negative
        mining. There the negatives are boxes chosen in each image, and the sum is divided by the
        number of positives alone: the value is about ``1 + ratio`` times as large, and undefined
        without a positive.
    """

    needs_target = True

    def __init__(
        self,
        *,
        ratio: float = 3.0,
        background: int = 0,
        min_negatives: int = 1,
        scope: Scope = "process",
    ) -> None:
        super().__init__()
        self.scope = scope
        for name, value in (
            ("ratio", ratio),
            ("background", background),
            ("min_negatives", min_negatives),
        ):
            if not value >= 0:
                raise ConfigError(f"mining.{name} must not be negative, got {value}")
        self.ratio = ratio
        self.background = background
        self.min_negatives = min_negatives

    def check_classes(self, num_classes: int) -> None:
        if self.background >= num_classes:  # all pixels would be positive
            raise ConfigError(
                f"mining.background must be a class id from 0 to {num_classes - 1},"
                f" got {self.background}"
            )

    def forward(
        self,
        values: Tensor,
        weights: Tensor,  # noqa: ARG002
        valid: Tensor,
        probability: Tensor | None = None,  # noqa: ARG002
        target: Tensor | None = None,
    ) -> Tensor:
        assert target is not None
        if not values.numel():
            return values.sum()
        is_object = target != self.background if target.dim() == 3 else (target > 0.5).any(1)
        positive, negative = valid & is_object, valid & ~is_object
        count = self._count(positive.sum(), negative.sum())
        share = positive + share_of_largest(values, negative, count)
        return (values * share).sum() / (positive.sum() + count).clamp(min=1)

    def _count(self, positives: Tensor, negatives: Tensor) -> Tensor:
        """The number of negatives that count."""
        if math.isinf(self.ratio):
            return negatives
        wanted = (positives * self.ratio).round().clamp(min=self.min_negatives)
        return torch.minimum(torch.minimum(wanted, negatives.to(wanted.dtype)).long(), negatives)

    def extra_repr(self) -> str:
        return (
            f"ratio={self.ratio}, background={self.background}, min_negatives={self.min_negatives}"
        )


def portion(ratio: float, count: Count) -> Count:
    """The smallest integer that is at least `ratio` times `count`, without floating-point errors.

    Example:
        >>> portion(0.1, 30), portion(0.25, torch.tensor(9))  # 0.1 * 30 is above 3
        (3, tensor(3))
    """
    share = Fraction(ratio).limit_denominator(10**9)
    return -(-count * share.numerator // share.denominator)


def ranked(values: Tensor, rank: Tensor) -> Tensor:
    """The element of flat `values` with `rank` others before it in ascending order.

    On the CPU it is found without a sort; on another device without waiting for `rank`.

    Example:
        >>> ranked(torch.tensor([4.0, 1.0, 3.0]), torch.tensor(1))
        tensor(3.)
    """
    rank = rank.clamp(0, values.numel() - 1)
    if values.device.type == "cpu":
        return values.kthvalue(int(rank) + 1).values
    return values.sort().values.gather(0, rank[None])[0]


def share_of_largest(values: Tensor, among: Tensor, count: Tensor) -> Tensor:
    """The mask of the `count` largest values, as numbers that add up to `count`.

    It is 1 for these values and 0 for the others. Values that tie for the last places share them
    equally.

    Args:
        values: ``(N, H, W)``.
        among: ``(N, H, W)``, bool: the pixels to choose from.
        count: ``()``, integer, at most the number of pixels in `among`.

    Example:
        >>> values, among = torch.tensor([3.0, 2.0, 2.0, 9.0]), torch.tensor([1, 1, 1, 0]).bool()
        >>> share_of_largest(values, among, torch.tensor(2))
        tensor([1.0000, 0.5000, 0.5000, 0.0000])
    """
    values = values.detach()
    candidates = torch.where(among, values, -torch.inf).flatten()
    last = ranked(candidates, values.numel() - count)
    # Not ">": NaN must be among the largest, to make the loss NaN.
    above, level = among & ~(values <= last), among & (values == last)
    left = (count - above.sum()).to(values.dtype)
    return above + level * (left / level.sum().clamp(min=1))


def _check_ratio(ratio: float) -> float:
    if not 0 < ratio <= 1:
        raise ConfigError(f"mining.ratio must be above 0 and at most 1, got {ratio}")
    return ratio
