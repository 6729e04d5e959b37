"""A loss of regions: the mutual information of neighbourhoods in prediction and target."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from segtrain.errors import ConfigError
from segtrain.losses.families.class_map import ClassMapLoss
from segtrain.losses.families.class_mean import Activation
from segtrain.losses.registry import register_loss
from segtrain.precision import wide
from segtrain.schema.arguments import check_at_least_one, check_one_of

Pooling = Literal["average", "max"]

_NOISE_RATIO = (
    1e-4  # of prediction to target, so that a right prediction has a loss of 5e-5 at most
)


_PUBLISHED, _SCATTER = "published", 5e-4  # what the authors' code adds to scatter matrices


@register_loss("rmi")
class RegionMutualInformation(ClassMapLoss):
    r"""Log-variance of target regions that the prediction does not explain, averaged over classes.

    .. math:: L = \frac{1}{|K|} \sum_{c \in K} \frac{1}{2d} \log \det \big( I +
              \tfrac{1}{\epsilon} M_c \big), \qquad
              M = \Sigma_y - \Sigma_{yp} (\Sigma_p + \delta I)^{-1} \Sigma_{py}

    A region is the vector of the :math:`d = \text{radius}^2` pixels of a square of the pooled map.
    The covariances :math:`\Sigma` are over all regions of an image. :math:`M` is the covariance of
    the target's regions given the prediction's, so up to a constant :math:`L` is minus a lower
    bound of their mutual information.

    Args:
        radius: Side of a region in pixels of the pooled map, at least 1.
        pool_size: Side of the squares that are pooled to one pixel, at least 1; 1 means no
            pooling. The side of a region is ``radius * pool_size`` pixels of the image.
        pooling: ``average`` or ``max``.
        epsilon: :math:`\epsilon`, from 1e-8 to 1: unexplained variance below it counts as noise.
            :math:`\delta` is ``1e-4`` times as large. ``published``: both are 5e-4 divided by the
            number of regions, as in the authors' code, which adds 5e-4 to unscaled scatter
            matrices. That is far smaller, so classes with few pixels have a larger gradient: on a
            map of 360 x 480 pixels, pooled by 4, the default is 2,160 times as large.
        activation: Turns logits into probabilities: ``sigmoid``, as in the paper, or ``softmax``.
        per_image: Compute covariances over each image, as in the paper, instead of over the batch.
        **common: ``num_classes``, ``ignore_label``, ``class_weights``, ``classes`` of
            :class:`ClassMapLoss`.

    Note:
        Mutual information has no sign: a prediction and its complement have the same loss, and a
        constant prediction has no gradient. Use it next to a loss that tells them apart; the paper
        adds binary cross entropy with the same weight, as ``configs/loss/bce_rmi.yaml`` does. The
        loss is at least 0, and 0 if the target's regions are a linear function of the prediction's.
        Ignored pixels are 0 in both maps. Pixels outside the image repeat the nearest pixel. The
        loss is computed in float64. It is 0 for a map that is pooled to one pixel. Because of
        pooling, a shape that is moved by a multiple of ``pool_size`` has a smaller loss than one
        that is moved by one pixel less.

    Example:
        >>> loss = RegionMutualInformation(num_classes=1, radius=1, pool_size=1, epsilon=0.25)
        >>> target = torch.tensor([[[0, 1]]])  # of variance 1/4, none of it explained: ln(2) / 2
        >>> loss(torch.zeros(1, 1, 1, 2), target)
        tensor(0.3466)

    References:
        Zhao, Wang, Yang and Cai, Region Mutual Information Loss for Semantic Segmentation, NeurIPS
        2019, section 3. There the loss is 1/2 log det M / d, with a small number on the diagonals
        of the unscaled scatter matrices, and summed over classes; here covariances do not depend
        on the size of the image, and the constant is chosen so that the loss is 0 when all is
        explained. The authors' code pads nothing but the pooling, pools by 4, and counts all
        classes: ``configs/loss/bce_rmi_paper.yaml`` does the same.
    """

    def __init__(
        self,
        *,
        radius: int = 3,
        pool_size: int = 3,
        pooling: Pooling = "average",
        epsilon: float | Literal["published"] = 1e-4,
        activation: Activation = "sigmoid",
        per_image: bool = True,
        **common: Any,
    ) -> None:
        super().__init__(activation=activation, per_image=per_image, **common)
        if epsilon != _PUBLISHED and not (
            isinstance(epsilon, (int, float)) and 1e-8 <= epsilon <= 1
        ):  # below, rounding of a covariance is visible
            raise ConfigError(f"epsilon must be from 1e-8 to 1, or {_PUBLISHED}, got {epsilon}")
        self.radius = check_at_least_one("radius", radius)
        self.pool_size = check_at_least_one("pool_size", pool_size)
        self.pooling = check_one_of("pooling", pooling, get_args(Pooling))
        self.epsilon = epsilon

    def class_map_loss(self, probability: Tensor, positive: Tensor, valid: Tensor) -> Tensor:  # noqa: ARG002
        pair = torch.stack([probability, positive.to(probability.dtype)])
        prediction, target = self._regions(wide(self._pooled(pair)))
        return self._unexplained(prediction, target).to(probability)

    def _pooled(self, maps: Tensor) -> Tensor:
        pool = F.avg_pool2d if self.pooling == "average" else F.max_pool2d
        below, right = (-size % self.pool_size for size in maps.shape[2:])
        if below or right:  # pooling with ceil_mode has a wrong gradient in torch.compile
            maps = F.pad(maps, (0, right, 0, below), mode="replicate")
        return pool(maps, self.pool_size)

    def _regions(self, maps: Tensor) -> Tensor:
        """The regions ``(2, d, P)`` around the pixels of maps ``(2, N, H, W)``."""
        before, after, (height, width) = (self.radius - 1) // 2, self.radius // 2, maps.shape[2:]
        padded = F.pad(maps, (before, after, before, after), mode="replicate")
        shifted = [
            padded[:, :, row : row + height, column : column + width]
            for row in range(self.radius)
            for column in range(self.radius)
        ]
        return torch.stack(shifted, dim=1).flatten(2)

    def _unexplained(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Loss from the regions ``(d, P)`` of prediction and target."""
        # In units of the noise of each, the last pivots of the joint covariance are those of
        # I + M / epsilon. This takes one factorisation, no inverse and no difference.
        if isinstance(self.epsilon, str):
            noise = (_SCATTER / target.shape[1],) * 2
        else:
            noise = (self.epsilon * _NOISE_RATIO, self.epsilon)
        joint = torch.cat(
            [
                (values - values.mean(1, keepdim=True)) / math.sqrt(values.shape[1] * variance)
                for values, variance in zip((prediction, target), noise, strict=True)
            ]
        )
        identity = torch.eye(len(joint), dtype=joint.dtype, device=joint.device)
        factor, failed = torch.linalg.cholesky_ex(identity + joint @ joint.mT)
        last = torch.arange(len(prediction), len(joint), device=joint.device)
        found = factor[last, last].log().mean()
        return torch.where(failed == 0, found, torch.nan)  # it fails only on NaN and infinity
