"""Losses that are a map of pixels, which a mining reduces to one number."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.losses.base import Term, safe_ratio
from segtrain.losses.class_weights import ClassWeights, check_class_weights
from segtrain.losses.mining.base import MeanMining, Mining, MiningSpec, build_mining


class PixelLoss(Term):
    """A loss per pixel, averaged over the valid pixels or reduced by a mining.

    A subclass writes :meth:`pixel_loss`; ignored pixels, class weights, mining and strips come with
    it. One whose loss depends on the target only through the softmax probability of its class
    derives from :class:`TargetProbabilityLoss` instead, and is faster.

    Args:
        num_classes: Number of channels of the logits.
        ignore_label: Target value of the pixels that do not count.
        class_weights: One non-negative number per class, or a file that holds them; the mean
            becomes the weighted mean, as in :class:`torch.nn.CrossEntropyLoss`. A pixel of a dense
            target weighs what its channels weigh together, in proportion to their values; one that
            may have several classes, as for every sigmoid loss, what its labels weigh on average.
        mining: Which pixels count how much: the name of a mining, or a mapping with its name and
            parameters.

    Note:
        In strips :meth:`pixel_loss` sees a few rows of the image at a time. A loss that looks at
        neighbouring pixels, or at sums or a maximum over the image, would be wrong there at the
        edges of the strips, or everywhere. What it has to know of the *target* around a pixel comes
        from :meth:`context`; a loss of the map of one class is a
        :class:`~segtrain.losses.families.class_map.ClassMapLoss`; and one that has to see all
        logits at once says so with ``can_strip = False`` in its class, and is never taken in
        strips, at the price of all of them in memory.

    Example:
        >>> class Squared(PixelLoss):
        ...     def __init__(self, power: float = 2.0, **common):
        ...         super().__init__(**common)
        ...         self.power = power
        ...     def pixel_loss(self, logits, target):
        ...         return (1 - self.target_probability(logits, target)) ** self.power
        >>> loss = Squared(num_classes=2, ignore_label=255)
        >>> loss(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 255]]]))
        tensor(0.2500)
    """

    def __init__(
        self,
        *,
        num_classes: int,
        ignore_label: int = 255,
        class_weights: ClassWeights = None,
        mining: MiningSpec = None,
    ) -> None:
        super().__init__(num_classes=num_classes, ignore_label=ignore_label)
        self.class_weights: Tensor | None
        self.register_buffer(
            "class_weights", check_class_weights(class_weights, num_classes), persistent=False
        )
        self.mining: Mining = build_mining(mining) if mining is not None else MeanMining()
        self.mining.check_classes(max(num_classes, 2))

    @property
    def multi_label(self) -> bool:
        """Whether a pixel of a dense target may have several classes or none, each for itself."""
        return self.dense == "multi_hot"

    @abstractmethod
    def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of each pixel, from that pixel alone: see the note of the class.

        It must not change `logits` in place: in strips they are a leaf of the graph.

        Shape:
            - logits: ``(N, C, R, W)``, float32 or float64; R rows of the image, which may be a part
              of it.
            - target: ``(N, R, W)``, int64, class ids only: ignored pixels come as class 0 and are
              dropped afterwards. For a loss that has `dense` it may also be ``(N, C, R, W)``,
              float, with 0 at ignored pixels.
            - output: ``(N, R, W)``.
        """

    def context(self, target: Tensor) -> Tensor | None:  # noqa: ARG002
        """What a pixel's loss has to know of the target around it, ``(..., H, W)``; None: nothing.

        It is made once from the whole target and handed to :meth:`pixel_loss_in_context` with the
        rows of the strip.
        """
        return None

    def pixel_loss_in_context(self, logits: Tensor, target: Tensor, context: Tensor) -> Tensor:  # noqa: ARG002
        """:meth:`pixel_loss` of a loss that has a :meth:`context`."""
        return self.pixel_loss(logits, target)

    def target_probability(self, logits: Tensor, target: Tensor) -> Tensor:
        r"""Probability of the target ``(N, R, W)``: minings tell hard pixels by it.

        With a dense target it is the expected one, :math:`\sum_c t_c p_c / \sum_c t_c`.
        """
        if target.dim() == 4:
            expected = (logits.softmax(1) * target).sum(1)
            return expected / target.sum(1).clamp(min=torch.finfo(target.dtype).tiny)
        if self.num_classes == 1:
            return ((2 * target - 1) * logits[:, 0]).sigmoid()
        return logits.log_softmax(1).gather(1, target[:, None])[:, 0].exp()

    def weighted_pixel_loss(
        self, logits: Tensor, target: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """:meth:`pixel_loss` times what each pixel weighs."""
        if context is None:
            values = self.pixel_loss(logits, target)
        else:
            values = self.pixel_loss_in_context(logits, target, context)
        if values.shape != logits[:, 0].shape:
            raise ConfigError(
                f"pixel_loss of {type(self).__name__} must return a map of"
                f" {tuple(logits[:, 0].shape)}, got {tuple(values.shape)}"
            )
        weights = self.class_weight_map(target, values.dtype)
        return values if weights is None else values * weights

    def class_weight_map(self, target: Tensor, dtype: torch.dtype) -> Tensor | None:
        """What the class weights make of each pixel of a clean target, ``(N, R, W)``."""
        if self.class_weights is None:
            return None
        weights = self.class_weights.to(dtype)
        if target.dim() == 3:
            return weights[target.long()]
        target = target.to(dtype)
        if self.num_classes == 1:
            return weights[0] + (weights[1] - weights[0]) * target[:, 0]
        labels = torch.einsum("nchw,c->nhw", target, weights)
        if not self.multi_label:
            return labels
        # A pixel weighs what its labels weigh on average, and one without any what all do.
        return safe_ratio(labels, target.sum(1), empty=0.0) + weights.mean() * (target.sum(1) == 0)

    def pixel_weights(self, target: Tensor, dtype: torch.dtype) -> Tensor:
        """Weight of each pixel in the mean, ``(N, H, W)``: 0 where it is ignored."""
        valid = self.valid(target)
        weights = None
        if self.class_weights is not None:
            weights = self.class_weight_map(self.clean(target, valid), dtype)
        return valid.to(dtype) if weights is None else torch.where(valid, weights, 0)

    def maps(
        self, logits: Tensor, target: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The weighted losses of these rows, 0 where ignored, and what the mining asks for."""
        valid = self.valid(target)
        clean = self.clean(target, valid)
        values = torch.where(valid, self.weighted_pixel_loss(logits, clean, context), 0)
        if not self.mining.needs_probability:
            return values, None
        with torch.no_grad():
            return values, self.target_probability(logits, clean)

    def mining_target(self, target: Tensor) -> Tensor:
        """`target` for a mining: class ids ``(N, H, W)``, unless a pixel may have several."""
        if target.dim() == 3:
            return target
        if self.num_classes == 1:
            ids = (target[:, 0] > 0.5).long()
        elif not self.multi_label:
            ids = target.argmax(1)
        else:
            return target
        return torch.where(self.valid(target), ids, self.ignore_label)

    def reduce(self, values: Tensor, probability: Tensor | None, target: Tensor) -> Tensor:
        """The value ``()`` from the maps of the whole batch."""
        weights, valid = self.pixel_weights(target, values.dtype), self.valid(target)
        asked: dict[str, Any] = {}
        if self.mining.needs_probability:
            asked["probability"] = probability
        if self.mining.needs_target:
            asked["target"] = self.mining_target(target)
        value: Tensor = self.mining(values, weights, valid, **asked)
        return value

    def value(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.reduce(*self.maps(logits, target, self.context(target)), target)

    def term_share(self, target: Tensor) -> Tensor:
        return self.mining.share(self.pixel_weights(target, torch.float32), self.valid(target))


class TargetProbabilityLoss(PixelLoss):
    r"""A pixel loss that is a function of the log-probability of the target's class alone.

    A subclass writes :meth:`loss_of`. In strips such losses share one softmax, and their gradient
    for the logits, :math:`\ell'(\log p_y)\,(\delta_{cy} - p_c)`, is written in its place.
    """

    @abstractmethod
    def loss_of(self, log_probability: Tensor, target: Tensor) -> Tensor:
        r"""The loss of each pixel.

        Shape:
            - log_probability: ``(N, R, W)``, :math:`\log p_y \le 0`, float32 or float64.
            - target: ``(N, R, W)``, int64, class ids; ignored pixels come as class 0.
            - output: ``(N, R, W)``.
        """

    def reads_target_probability(self, target: Tensor) -> bool:
        """Whether :meth:`loss_of` says everything, for a target of this kind."""
        return target.dim() == 3

    def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.loss_of(logits.log_softmax(1).gather(1, target[:, None])[:, 0], target)

    def maps_of(self, log_probability: Tensor, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """:meth:`maps` from log-probabilities."""
        valid = self.valid(target)
        clean = self.clean(target, valid)
        values = self.loss_of(log_probability, clean)
        weights = self.class_weight_map(clean, values.dtype)
        values = torch.where(valid, values if weights is None else values * weights, 0)
        return values, log_probability.detach().exp() if self.mining.needs_probability else None


def check_channels(num_classes: int) -> None:
    """Refuse one channel, whose softmax is always 1.

    Raises:
        ConfigError: When `num_classes` is 1.
    """
    if num_classes < 2:
        raise ConfigError(
            "num_classes is 1, and the softmax of one channel is always 1: use bce, sigmoid_focal,"
            " or an overlap loss such as dice"
        )
