"""Softmax losses: cross entropy and its variants."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from segtrain.errors import ConfigError
from segtrain.losses.families.pixel import TargetProbabilityLoss
from segtrain.losses.registry import register_loss
from segtrain.schema.arguments import check_not_negative


class _SoftmaxLoss(TargetProbabilityLoss):
    """A function of the target's log-probability; for a dense target, its expectation."""

    dense = "probability"

    def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        if target.dim() == 3:
            return super().pixel_loss(logits, target)
        classes = torch.arange(self.num_classes, device=target.device)[:, None, None]
        return (target * self.loss_of(logits.log_softmax(1), classes)).sum(1)

    def weighted_pixel_loss(
        self, logits: Tensor, target: Tensor, context: Tensor | None = None
    ) -> Tensor:
        if target.dim() == 3 or self.class_weights is None:
            return super().weighted_pixel_loss(logits, target, context)
        # Each class's share of the target is multiplied by its weight, as in cross entropy.
        weights = self.class_weights.to(target.dtype)[:, None, None]
        return self.pixel_loss(logits, target * weights)


@register_loss("cross_entropy")
class CrossEntropy(TargetProbabilityLoss):
    r"""Cross entropy of softmax probabilities, averaged over the valid pixels.

    .. math:: \ell = -\sum_c \tilde t_c \log p_c, \qquad \tilde t_c = (1 - \varepsilon)\, t_c +
              \frac{\varepsilon}{C}, \qquad p = \text{softmax}(z)

    where :math:`t` is the one-hot vector of a class id, or the channels of a dense target. For a
    class id without smoothing, :math:`\ell = -\log p_y`.

    Args:
        label_smoothing: :math:`\varepsilon` in [0, 1), the share of the target that is spread over
            all classes, also of a dense one.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``mining``, ``reduction`` of
            :class:`PixelLoss`.

    Note:
        With class ids, values and gradients equal those of :class:`torch.nn.CrossEntropyLoss` with
        its weighted mean, except that a batch without a valid pixel gives 0 instead of NaN.

        A dense target holds class probabilities that add up to 1. It also gives torch's values, and
        a one-hot target gives those of its class ids. With class weights :math:`w`, the mean
        divides by the pixel weights :math:`\sum_c w_c t_c`, as it does for class ids; torch divides
        by the number of pixels if a target is dense.

        The loss of a batch is the mean over its parts, weighted by their valid pixels.

    Example:
        >>> loss = CrossEntropy(num_classes=2)
        >>> loss(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long))  # ln 2
        tensor(0.6931)
        >>> logits = torch.tensor([3.0, 1.0]).log().reshape(1, 2, 1, 1)  # p = 3/4 and 1/4
        >>> loss(logits, torch.full((1, 2, 1, 1), 0.5))  # (ln 4/3 + ln 4) / 2
        tensor(0.8370)

    References:
        Label smoothing: Szegedy et al., Rethinking the Inception Architecture for Computer Vision,
            CVPR 2016, section 7.
    """

    dense = "probability"
    smooths_itself = True

    def __init__(self, *, label_smoothing: float = 0.0, **common: Any) -> None:
        super().__init__(label_smoothing=label_smoothing, **common)

    def loss_of(self, log_probability: Tensor, target: Tensor) -> Tensor:  # noqa: ARG002
        return -log_probability

    def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return self._cross_entropy(logits, target, None)

    def weighted_pixel_loss(
        self,
        logits: Tensor,
        target: Tensor,
        context: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        # With smoothing, each class's share of the target has the weight of that class, so one
        # weight per pixel is not enough.
        weights = None if self.class_weights is None else self.class_weights.to(logits.dtype)
        return self._cross_entropy(logits, target, weights)

    def _cross_entropy(self, logits: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
        return F.cross_entropy(
            logits, target, weights, reduction="none", label_smoothing=self.label_smoothing
        )


@register_loss("focal")
class Focal(_SoftmaxLoss):
    r"""Cross entropy that down-weights well-predicted pixels, averaged over the valid pixels.

    .. math:: \ell = -\alpha_y (1 - p_y)^\gamma \log p_y, \qquad p = \text{softmax}(z)

    Args:
        gamma: :math:`\gamma \ge 0`; 0 is cross entropy, and 2 is the paper's choice.
        alpha: :math:`\alpha`, a number in (0, 1] for all pixels, or a list with one non-negative
            number per class. 1 means no weighting.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``mining`` of
            :class:`PixelLoss`.

    Note:
        The mean is over all valid pixels, so values are smaller than those of cross entropy.

        A number for ``alpha`` scales the whole loss, because no class of a softmax is the positive
        one; this matters only next to another term. A binary focal loss that gives
        :math:`\alpha = 0.25` to the object and :math:`1 - \alpha` to the background corresponds to
        the list ``[0.75, 0.25]`` for the classes background and object. The mean does not divide by
        ``alpha``. It does divide by ``class_weights``, which therefore shift weight between classes
        and keep the scale of the loss.

        With a dense target of class probabilities, it is the expectation over the classes:
        :math:`-\sum_c t_c \alpha_c (1 - p_c)^\gamma \log p_c`.

    Example:
        >>> target = torch.ones(1, 1, 1, dtype=torch.long)
        >>> Focal(num_classes=2, gamma=2.0)(torch.zeros(1, 2, 1, 1), target)  # ln 2 / 4
        tensor(0.1733)
        >>> loss = Focal(num_classes=2, gamma=2.0, alpha=[0.75, 0.25])
        >>> loss(torch.zeros(1, 2, 1, 1), target)  # a quarter of it
        tensor(0.0433)

    References:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, eq. 4, and eq. 5 with alpha;
        with softmax in place of the paper's sigmoid, and averaged over pixels in place of the
        number of anchors that hold an object.
    """

    def __init__(
        self, *, gamma: float = 2.0, alpha: float | list[float] = 1.0, **common: Any
    ) -> None:
        super().__init__(**common)
        self.gamma = check_not_negative("gamma", gamma)
        self.scale = 1.0
        self.alpha: Tensor | None
        self.register_buffer("alpha", None, persistent=False)
        if isinstance(alpha, (int, float)):
            if not 0 < alpha <= 1:
                raise ConfigError(f"alpha must be above 0 and at most 1, got {alpha}")
            self.scale = float(alpha)
        else:
            self.alpha = self._check_alpha(alpha)

    def _check_alpha(self, alpha: list[float]) -> Tensor:
        if len(alpha) != self.num_classes:
            raise ConfigError(
                f"alpha has {len(alpha)} values, but num_classes is {self.num_classes}"
            )
        if not all(0 <= value < math.inf for value in alpha) or not any(alpha):
            raise ConfigError(f"alpha must be finite, not negative and not all 0, got {alpha}")
        return torch.tensor(alpha, dtype=torch.float32)

    def loss_of(self, log_probability: Tensor, target: Tensor) -> Tensor:
        # expm1 keeps the digits of 1 - p near p = 1, which 1 - exp(log p) would lose. The floor
        # keeps the gradient of x**gamma finite at 0 for gamma < 1.
        tiny = torch.finfo(log_probability.dtype).tiny
        miss = (-torch.expm1(log_probability)).clamp(min=tiny)
        alpha = self.scale if self.alpha is None else self.alpha.to(miss.dtype)[target]
        return -alpha * (miss**self.gamma) * log_probability


@register_loss("poly1")
class Poly1(_SoftmaxLoss):
    r"""Cross entropy with an adjustable leading term, averaged over the valid pixels.

    .. math:: \ell = -\log p_y + \varepsilon\, (1 - p_y)
              = (1 + \varepsilon)(1 - p_y) + \tfrac{1}{2} (1 - p_y)^2 + \tfrac{1}{3} (1 - p_y)^3 +
              \dots, \qquad p = \text{softmax}(z)

    Args:
        epsilon: :math:`\varepsilon \ge -1`; 0 is cross entropy, -1 removes the leading term.
            Positive values keep a gradient on pixels that are predicted well. The paper finds 2
            best for ImageNet and -1 for detection, so it needs tuning.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``mining`` of
            :class:`PixelLoss`.

    Note:
        With a dense target of class probabilities, it is the expectation over the classes:
        :math:`\sum_c t_c [-\log p_c + \varepsilon\, (1 - p_c)]`.

    Example:
        >>> loss = Poly1(num_classes=2, epsilon=2.0)
        >>> loss(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long))  # ln 2 + 2 / 2
        tensor(1.6931)

    References:
        Leng et al., PolyLoss: A Polynomial Expansion Perspective of Classification Loss Functions,
        ICLR 2022, the loss :math:`L_\text{Poly-1}`; averaged over pixels.
    """

    def __init__(self, *, epsilon: float = 1.0, **common: Any) -> None:
        super().__init__(**common)
        if not -1 <= epsilon < math.inf:  # below, a well-predicted pixel would have a negative loss
            raise ConfigError(f"epsilon must be finite and at least -1, got {epsilon}")
        self.epsilon = epsilon

    def loss_of(self, log_probability: Tensor, target: Tensor) -> Tensor:  # noqa: ARG002
        return -log_probability - self.epsilon * torch.expm1(log_probability)


@register_loss("generalized_cross_entropy")
class GeneralizedCrossEntropy(_SoftmaxLoss):
    r"""Bounded variant of cross entropy for noisy labels, averaged over the valid pixels.

    .. math:: \ell = \frac{1 - p_y^{\,q}}{q}, \qquad p = \text{softmax}(z)

    Args:
        q: In (0, 1]. The limit at 0 is cross entropy. 1 is :math:`1 - p_y`, half the absolute error
            of the probabilities, which is the most robust to wrong labels and learns slowest. 0.7
            is the paper's choice.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``mining`` of
            :class:`PixelLoss`.

    Note:
        The gradient is that of cross entropy times :math:`p_y^{\,q}`. Labels that the model finds
        impossible, wrong ones among them, therefore have almost no gradient, and training from
        scratch may have to start with cross entropy.

        With a dense target of class probabilities, it is the expectation over the classes.

    Example:
        >>> loss = GeneralizedCrossEntropy(num_classes=4, q=0.5)
        >>> target = torch.zeros(1, 1, 1, dtype=torch.long)
        >>> loss(torch.zeros(1, 4, 1, 1), target)  # (1 - sqrt(1/4)) / 0.5
        tensor(1.)

    References:
        Zhang and Sabuncu, Generalized Cross Entropy Loss for Training Deep Neural Networks with
        Noisy Labels, NeurIPS 2018, section 3.2; without the truncation that the paper adds, and
        averaged over pixels.
    """

    def __init__(self, *, q: float = 0.7, **common: Any) -> None:
        super().__init__(**common)
        if not 0 < q <= 1:
            raise ConfigError(f"q must be above 0 and at most 1, got {q}")
        self.q = q

    def loss_of(self, log_probability: Tensor, target: Tensor) -> Tensor:  # noqa: ARG002
        return -torch.expm1(self.q * log_probability) / self.q
