"""The sigmoid losses of a pixel: every class is a yes-or-no question of its own."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from segtrain.losses.base import PixelLoss
from segtrain.losses.registry import register_loss


@register_loss("bce")
class BinaryCrossEntropy(PixelLoss):
    r"""Binary cross entropy of each class against the rest, averaged over classes and pixels.

    .. math:: \ell = -\frac{1}{C} \Big[ \log \sigma(z_y) + \sum_{c \ne y} \log (1 - \sigma(z_c))
    \Big]

    With one channel (``num_classes=1``) the target is 0 or 1 and
    :math:`\ell = -y \log \sigma(z) - (1 - y) \log (1 - \sigma(z))`.

    Note:
        Equal to :func:`torch.nn.functional.binary_cross_entropy_with_logits` with one-hot targets,
        which are never made.

    Example:
        >>> import torch
        >>> loss = BinaryCrossEntropy(num_classes=2)
        >>> logits = torch.tensor([2.0, -2.0]).reshape(1, 2, 1, 1)
        >>> loss(logits, torch.zeros(1, 1, 1, dtype=torch.long))  # ln(1 + e^-2)
        tensor(0.1269)
    """

    def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.num_classes == 1:
            return F.softplus(logits[:, 0]) - logits[:, 0] * target
        of_target = logits.gather(1, target[:, None])[:, 0]
        return (F.softplus(logits).sum(1) - of_target) / self.num_classes

    def target_probability(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.num_classes == 1:
            return super().target_probability(logits, target)
        return logits.gather(1, target[:, None])[:, 0].sigmoid()
