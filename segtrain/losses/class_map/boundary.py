"""Losses of the distance between a pixel and a boundary."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.losses.distance import signed_distance
from segtrain.losses.families.class_map import ClassMapLoss
from segtrain.losses.registry import register_loss
from segtrain.schema.arguments import check_positive


@register_loss("boundary")
class Boundary(ClassMapLoss):
    r"""Probability error times signed distance to the target's boundary, averaged over classes.

    .. math:: L = \frac{1}{|K|} \sum_{c \in K} \frac{1}{N} \sum_i \phi_{ic}\,(p_{ic} - y_{ic})

    with the signed distance :math:`\phi_{ic}` of pixel :math:`i` to the boundary of class
    :math:`c`, in pixels, negative inside (:func:`~segtrain.losses.distance.signed_distance`), and
    the :math:`N` valid pixels of the batch.

    Args:
        max_distance: Distances are clamped to this number of pixels, above 0. By default there is
            no limit. A limit keeps distant errors in a large image from dominating the loss.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``activation``, ``classes``,
            ``per_image`` of :class:`ClassMapLoss`.

    Note:
        Use it next to a region loss, as in the preset ``dice_boundary``: the loss is linear in the
        probabilities, so its gradient does not grow with the error, and pixels near a boundary
        hardly count. A class that an image lacks, or that fills it, has no boundary there, and the
        image adds 0 to its loss. Values are in pixels and double with the side of the image.
        Distances are computed on the CPU, one class at a time: two transforms per image, which take
        a few milliseconds each for half a megapixel. On a GPU, each class waits for them.

    Example:
        >>> import torch
        >>> loss = Boundary(num_classes=2)  # |phi| is 1.5, 0.5, 0.5, 1.5 and |p - y| is 1/2
        >>> loss(torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 0, 1, 1]]]))
        tensor(0.5000)

    References:
        Kervadec et al., Boundary Loss for Highly Unbalanced Segmentation, MIDL 2019, eq. 5. That
            equation lacks :math:`-\phi y`, the second integral of its eq. 4, which no prediction
            changes; with it the gradient is the same and a perfect prediction is 0 in place of some
            negative number. The paper's code has distances that are 1/2 larger everywhere, which
            are 0 on the pixels inside the boundary, and one class only: ``classes: [1]``.
    """

    def __init__(self, *, max_distance: float = math.inf, **common: Any) -> None:
        super().__init__(**common)
        self.max_distance = _check_max_distance(max_distance)

    def class_map_loss(self, probability: Tensor, positive: Tensor, valid: Tensor) -> Tensor:
        distance = signed_distance(positive, valid).clamp(-self.max_distance, self.max_distance)
        wrong = probability - positive.to(probability.dtype)
        return (distance * wrong).sum() / valid.sum().clamp(min=1)


@register_loss("hausdorff_dt")
class HausdorffDT(ClassMapLoss):
    r"""Squared errors weighted by their distance to the boundaries, averaged over classes.

    .. math:: L = \frac{1}{|K|} \sum_{c \in K} \frac{1}{N} \sum_i (p_{ic} - y_{ic})^2
              (d_{p,ic}^\alpha + d_{y,ic}^\alpha)

    with the distance of a pixel to the boundary of the class in the target, :math:`d_y`, and in the
    prediction, :math:`d_p`, which covers the pixels with :math:`p > 1/2`; :math:`N` is the number
    of valid pixels of the batch.

    Args:
        alpha: :math:`\alpha > 0`, the exponent of the distances. The paper finds that values from 1
            to 3 work, and uses 2.
        max_distance: Distances are clamped to this number of pixels, above 0. By default the factor
            of an error is at most ``2 * 20**2``; without a limit it can reach a million in a large
            image. ``.inf`` is the paper's choice.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``activation``, ``classes``,
            ``per_image`` of :class:`ClassMapLoss`.

    Note:
        Use it next to a region loss and with a small weight, because values are in pixels to the
        power of :math:`\alpha`. The distances are constants for the gradient. A class that an image
        lacks, or that fills it, has no boundary there, and its distance is 0; a class without a
        boundary in target and prediction has no gradient. The value is discontinuous where a
        probability crosses 1/2. Distances are computed on the CPU, one class at a time: four
        transforms per image, which take a few milliseconds each for half a megapixel. On a GPU,
        each class waits for them.

    Example:
        >>> import torch
        >>> loss = HausdorffDT(num_classes=2)  # d_y is 1.5, 0.5, 0.5, 1.5; no p is above 1/2
        >>> loss(torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 0, 1, 1]]]))  # 1/4 of 1.25
        tensor(0.3125)

    References:
        Karimi and Salcudean, Reducing the Hausdorff Distance in Medical Image Segmentation with
            Convolutional Neural Networks, IEEE TMI 2019, eq. 8; with a limit to the distances, for
            several classes each against the rest, and with boundaries between the pixels. The paper
            sets the weight beside Dice so that both are alike in size.
    """

    def __init__(self, *, alpha: float = 2.0, max_distance: float = 20.0, **common: Any) -> None:
        super().__init__(**common)
        self.alpha = check_positive("alpha", alpha)
        self.max_distance = _check_max_distance(max_distance)

    def class_map_loss(self, probability: Tensor, positive: Tensor, valid: Tensor) -> Tensor:
        predicted = probability.detach() > 0.5
        factor = self._power(predicted, valid) + self._power(positive, valid)
        wrong = probability - positive.to(probability.dtype)
        return (factor * wrong.square()).sum() / valid.sum().clamp(min=1)

    def _power(self, mask: Tensor, valid: Tensor) -> Tensor:
        return signed_distance(mask, valid).abs().clamp(max=self.max_distance) ** self.alpha


def _check_max_distance(value: float) -> float:
    if not value > 0:
        raise ConfigError(f"max_distance must be above 0, got {value}")
    return value
