"""Cross entropy weighted by the distance of each pixel to a boundary."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from segtrain.losses.distance import boundary_distance
from segtrain.losses.families.pixel import PixelLoss, check_softmax_channels
from segtrain.losses.registry import register_loss
from segtrain.schema.arguments import check_not_negative, check_positive


@register_loss("distance_weighted_cross_entropy")
class DistanceWeightedCrossEntropy(PixelLoss):
    r"""Cross entropy with larger weights near class boundaries, averaged over the valid pixels.

    .. math:: \ell = -(1 + s\, e^{-d / \tau}) \log p_y, \qquad p = \text{softmax}(z)

    with the distance :math:`d` of a pixel to the nearest boundary between two classes, in pixels
    (:func:`~segtrain.losses.distance.boundary_distance`).

    Args:
        strength: :math:`s \ge 0`, the weight that is added on the boundary itself; 0 is cross
            entropy.
        scale: :math:`\tau > 0`, the distance in pixels at which the added weight has fallen to
            about a third.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``mining`` of
            :class:`PixelLoss`.

    Note:
        The mean is over the valid pixels, with class weights the weighted mean. It does not divide
        by the weights of the distance, so values are larger than those of cross entropy and parts
        of a batch add up. The edge of an ignored region is not a boundary, and an image without a
        boundary has weight 1 everywhere. Distances are computed on the CPU, once per image, which
        synchronises other devices.

    Example:
        >>> loss = DistanceWeightedCrossEntropy(num_classes=2, strength=1.0, scale=1.0)
        >>> loss(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]))  # (1 + e^-0.5) ln 2
        tensor(1.1136)

    References:
        Caliva et al., Distance Map Loss Penalty Term for Semantic Segmentation, MIDL 2019 (extended
            abstract): cross entropy times one plus a map that is large at the boundary. There the
            map is the largest distance of the mask minus the distance, and depends on the size of
            the object; here it falls off with the distance alone, as in Ronneberger et al., U-Net,
            MICCAI 2015, eq. 2, which has a Gaussian of the distances to two objects.
    """

    def __init__(self, *, strength: float = 5.0, scale: float = 5.0, **common: Any) -> None:
        super().__init__(**common)
        check_softmax_channels(self.num_classes)
        self.strength = check_not_negative("strength", strength)
        self.scale = check_positive("scale", scale)

    def context(self, target: Tensor) -> Tensor:
        distance = boundary_distance(target, self.ignore_label)
        return 1 + self.strength * torch.exp(-distance / self.scale)

    def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(logits, target, reduction="none")

    def pixel_loss_in_context(self, logits: Tensor, target: Tensor, context: Tensor) -> Tensor:
        return context * self.pixel_loss(logits, target)
