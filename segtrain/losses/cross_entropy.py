"""The softmax losses of a pixel: cross entropy and focal."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from segtrain.errors import ConfigError
from segtrain.losses.base import PixelLoss
from segtrain.losses.registry import register_loss


@register_loss("cross_entropy")
class CrossEntropy(PixelLoss):
    r"""Cross entropy of softmax probabilities, averaged over the valid pixels.

    .. math:: \ell = -(1 - \varepsilon) \log p_y - \frac{\varepsilon}{C} \sum_c \log p_c, \qquad p =
    \text{softmax}(z)

    Args:
        label_smoothing: :math:`\varepsilon` in [0, 1): how much of the target is spread over all
            classes.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``mining`` of
            :class:`PixelLoss`.

    Note:
        Values and gradients are those of :class:`torch.nn.CrossEntropyLoss` with its weighted mean,
        except that a batch without a valid pixel gives 0 and not NaN. The mean over a batch is the
        mean over its parts, weighted by their valid pixels.

    Example:
        >>> loss = CrossEntropy(num_classes=2)
        >>> loss(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long))  # ln 2
        tensor(0.6931)

    References:
        Label smoothing: Szegedy et al., Rethinking the Inception Architecture for Computer Vision,
            CVPR 2016, section 7.
    """

    def __init__(self, *, label_smoothing: float = 0.0, **common: Any) -> None:
        super().__init__(**common)
        _check_channels(self.num_classes)
        if not 0 <= label_smoothing < 1:
            raise ConfigError(
                f"label_smoothing must be at least 0 and below 1, got {label_smoothing}"
            )
        self.label_smoothing = label_smoothing

    def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(
            logits, target, reduction="none", label_smoothing=self.label_smoothing
        )

    def weighted_pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        # Smoothing weighs every class's share of the target with that class's weight, so it is not
        # a product per pixel.
        weights = None if self.class_weights is None else self.class_weights.to(logits.dtype)
        return F.cross_entropy(
            logits, target, weights, reduction="none", label_smoothing=self.label_smoothing
        )


@register_loss("focal")
class Focal(PixelLoss):
    r"""Cross entropy with well-predicted pixels weighted down, averaged over the valid pixels.

    .. math:: \ell = -(1 - p_y)^\gamma \log p_y, \qquad p = \text{softmax}(z)

    Args:
        gamma: :math:`\gamma \ge 0`; 0 is cross entropy, and 2 is the paper's choice.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``mining`` of
            :class:`PixelLoss`.

    Note:
        The mean is over all valid pixels, so values are smaller than those of cross entropy.

    Example:
        >>> loss = Focal(num_classes=2, gamma=2.0)
        >>> loss(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long))  # ln 2 / 4
        tensor(0.1733)

    References:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, eq. 4; with softmax in place
        of the paper's sigmoid, and averaged over pixels in place of the number of anchors.
    """

    def __init__(self, *, gamma: float = 2.0, **common: Any) -> None:
        super().__init__(**common)
        _check_channels(self.num_classes)
        if gamma < 0:
            raise ConfigError(f"gamma must not be negative, got {gamma}")
        self.gamma = gamma

    def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        log_probability = logits.log_softmax(1).gather(1, target[:, None])[:, 0]
        # 1 - p from log p without cancellation; the floor keeps the slope of x**gamma finite at 0
        # for gamma < 1.
        miss = (-torch.expm1(log_probability)).clamp(min=torch.finfo(logits.dtype).tiny)
        return -(miss**self.gamma) * log_probability


def _check_channels(num_classes: int) -> None:
    if num_classes < 2:
        raise ConfigError("num_classes is 1, and the softmax of one channel is always 1: use bce")
