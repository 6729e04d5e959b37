"""Divergences of predicted and target distributions: Kullback-Leibler and Jensen-Shannon."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from segtrain.losses.base import Dense
from segtrain.losses.families.pixel import TargetProbabilityLoss
from segtrain.losses.registry import register_loss
from segtrain.schema.arguments import check_positive

LN_2 = math.log(2)


class _Divergence(TargetProbabilityLoss):
    """Divergence between the softmax of the logits and the distribution of the target.

    A subclass implements :meth:`loss_of` for class ids and :meth:`divergence` for dense targets.
    """

    dense: Dense | None = "probability"  # type: ignore[misc]

    def __init__(
        self, *, target_logits: bool = False, temperature: float = 1.0, **common: Any
    ) -> None:
        super().__init__(**common)
        self.temperature = check_positive("temperature", temperature)
        self.target_logits = target_logits
        if target_logits:  # any numbers, with NaN at ignored pixels
            self.dense = "regression"

    @abstractmethod
    def divergence(self, log_p: Tensor, q: Tensor, log_q: Tensor) -> Tensor:
        """Divergence of each pixel, ``(N, R, W)``, from arguments ``(N, C, R, W)``.

        `p` is the prediction and `q` the target. `log_q` may be minus infinity where `q` is 0, and
        has no gradient.
        """

    def reads_target_probability(self, target: Tensor) -> bool:
        # The softmax that terms share in strips has temperature 1.
        return self.temperature == 1 and super().reads_target_probability(target)

    def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        log_p = (logits / self.temperature).log_softmax(1)
        target = target.detach()  # strips compute no gradient for it either
        if target.dim() == 3:
            values = self.loss_of(log_p.gather(1, target[:, None])[:, 0], target)
        elif self.target_logits:
            log_q = (target / self.temperature).log_softmax(1)
            values = self.divergence(log_p, log_q.exp(), log_q)
        else:
            values = self.divergence(log_p, target, target.log())
        return values * self.temperature**2

    def target_probability(self, logits: Tensor, target: Tensor) -> Tensor:
        if target.dim() == 4 and self.target_logits:
            target = target.softmax(1)
        return super().target_probability(logits, target)

    def class_weight_map(self, target: Tensor, dtype: torch.dtype) -> Tensor | None:
        if target.dim() == 4 and self.target_logits and self.class_weights is not None:
            target = (target.detach().to(dtype) / self.temperature).softmax(1)
        return super().class_weight_map(target, dtype)


@register_loss("kl_divergence")
class KLDivergence(_Divergence):
    r"""Kullback-Leibler divergence of the target from the prediction, averaged over valid pixels.

    .. math:: \ell = T^2\, \text{KL}(q \,\|\, p) = T^2 \sum_c q_c\, (\log q_c - \log p_c), \qquad
              p = \text{softmax}(z / T)

    in nats. For a class id it is :math:`-\log p_y`, cross entropy, because a one-hot :math:`q` has
    no entropy. For any other :math:`q` it is cross entropy minus the entropy of :math:`q`, so its
    minimum is 0.

    Args:
        target_logits: If true, a dense target holds the logits of another network, a teacher, and
            :math:`q = \text{softmax}(t / T)`; otherwise it holds the probabilities :math:`q`.
        temperature: :math:`T > 0`. Above 1, the classes that a teacher does not predict get more
            weight; the factor :math:`T^2` keeps the scale of the gradients.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``mining`` of
            :class:`PixelLoss`.

    Note:
        In the target, only logits are divided by the temperature. Probabilities are used as they
        are, so those of a teacher have to be computed at the same temperature, and a class id stays
        one-hot. Probabilities should add up to 1 over the classes.

        A pixel is ignored where a channel of the target is NaN or, in a target of probabilities,
        ``ignore_label``. The target gets no gradient. Hard-example mining ranks pixels by
        :math:`\sum_c q_c p_c` at temperature 1. The class weight of a pixel is
        :math:`\sum_c w_c q_c`.

    Example:
        >>> target = torch.tensor([0.75, 0.25]).reshape(1, 2, 1, 1)
        >>> loss = KLDivergence(num_classes=2)
        >>> loss(torch.zeros(1, 2, 1, 1), target)  # ln 2 - (3/4 ln 4/3 + 1/4 ln 4)
        tensor(0.1308)

    References:
        Kullback and Leibler, On Information and Sufficiency, Annals of Mathematical Statistics
        1951. Temperature: Hinton et al., Distilling the Knowledge in a Neural Network, 2015,
        section 2, where the term is the cross entropy of the teacher; its gradient is the same.
    """

    def loss_of(self, log_probability: Tensor, target: Tensor) -> Tensor:  # noqa: ARG002
        return -log_probability

    def divergence(self, log_p: Tensor, q: Tensor, log_q: Tensor) -> Tensor:  # noqa: ARG002
        return (torch.xlogy(q, q) - q * log_p).sum(1)


@register_loss("js_divergence")
class JSDivergence(_Divergence):
    r"""Jensen-Shannon divergence of prediction and target, averaged over the valid pixels.

    .. math:: \ell = \frac{T^2}{2} \left[ \text{KL}(p \,\|\, m) + \text{KL}(q \,\|\, m) \right],
              \qquad m = \frac{p + q}{2}, \qquad p = \text{softmax}(z / T)

    in nats. It is symmetric in prediction and target, and lies in :math:`[0, T^2
    \ln 2]`. For a class id it is :math:`\tfrac{1}{2} [p_y \ln p_y - (1 + p_y) \ln (1 + p_y)] + \ln
    2`.

    Args:
        target_logits: If true, a dense target holds the logits of another network and :math:`q =
            \text{softmax}(t / T)`; otherwise it holds the probabilities :math:`q`.
        temperature: :math:`T > 0`, of both distributions; the factor :math:`T^2` keeps the scale of
            the gradients, as in ``kl_divergence``.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``mining`` of
            :class:`PixelLoss`.

    Note:
        The loss is bounded, so it is robust to wrong labels: the gradient vanishes as :math:`p_y
        \to 0`, where that of cross entropy is largest.

        In the target, only logits are divided by the temperature. Probabilities are used as they
        are and should add up to 1 over the classes, and a class id stays one-hot. Ignored pixels,
        hard-example mining and class weights are as in ``kl_divergence``. Only the prediction gets
        a gradient.

    Example:
        >>> loss = JSDivergence(num_classes=2)
        >>> target = torch.zeros(1, 1, 1, dtype=torch.long)
        >>> loss(torch.zeros(1, 2, 1, 1), target)  # p = (1/2, 1/2), m = (3/4, 1/4): 3/4 ln 4/3
        tensor(0.2158)

    References:
        Lin, Divergence Measures Based on the Shannon Entropy, IEEE Transactions on Information
        Theory 1991, section IV with equal weights.
    """

    def loss_of(self, log_probability: Tensor, target: Tensor) -> Tensor:  # noqa: ARG002
        # A separate 1 - p avoids cancellation as p approaches 1, where the loss approaches 0.
        p, miss = log_probability.exp(), -torch.expm1(log_probability)
        return (LN_2 * miss + p * log_probability - (1 + p) * torch.log1p(-miss / 2)) / 2

    def divergence(self, log_p: Tensor, q: Tensor, log_q: Tensor) -> Tensor:
        log_m = torch.logaddexp(log_p, log_q) - LN_2
        return (log_p.exp() * (log_p - log_m) + torch.xlogy(q, q) - q * log_m).sum(1) / 2
