"""Losses that are a map of pixel losses, which a mining reduces to one number."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from segtrain.errors import ConfigError
from segtrain.losses.base import Reduction, Term, check_reduction, safe_ratio
from segtrain.losses.class_weights import ClassWeights, check_class_weights
from segtrain.losses.mining.base import MeanMining, Mining, MiningSpec, build_mining
from segtrain.losses.scope import averaged, gathered, world_size


class PixelLoss(Term):
    r"""A loss per pixel, averaged over the valid pixels or reduced by a mining.

    A subclass writes :meth:`pixel_loss`. The base class adds ignored pixels, class weights, mining
    and strips. If the loss depends on the target only through the softmax probability of its class,
    derive from :class:`TargetProbabilityLoss` instead, which is faster.

    Args:
        num_classes: Number of channels of the logits.
        ignore_label: Target value of the pixels that do not count.
        class_weights: One non-negative number per class, or a file that holds them; the mean
            becomes the weighted mean, as in :class:`torch.nn.CrossEntropyLoss`. With a dense
            target, a pixel's weight is the sum over channels of weight times value. If a pixel may
            have several classes, as for every sigmoid loss, it is the mean weight of its labels.
        mining: Which pixels count how much: the name of a mining, or a mapping with its name and
            parameters.
        label_smoothing: :math:`\varepsilon` in [0, 1), the share of a class id that is spread over
            all classes. The loss is then :math:`1 - \varepsilon` times that of the id plus
            :math:`\varepsilon` times the mean over all classes as target, or, if the loss takes a
            target of probabilities, the loss of the smoothed one. It has no effect on such targets.
        reduction: ``mean``; ``sum``, over the pixels that are kept; or ``none``, the map ``(N, H,
            W)``, with 0 at ignored pixels and at those that mining drops. Pixels have their class
            weights, and with ``ghm`` its factors: the sum divided by the sum of the weights of the
            kept pixels is the mean. Only ``mean`` can be trained with.

    Note:
        In strips :meth:`pixel_loss` sees a few rows of the image at a time. A loss that reads
        neighbouring pixels would be wrong at the edges of the strips, and one that divides by a sum
        or a maximum over the image would be wrong everywhere. There are three ways out:

        - Information on the *target* around a pixel comes from :meth:`context`.
        - A loss of the map of one class is a
          :class:`~segtrain.losses.families.class_map.ClassMapLoss`.
        - A class that needs all logits at once sets ``can_strip = False``. It is never computed in
          strips, and all upsampled logits are in memory.

        A subclass may override every other method, too. Strips call all of them but :meth:`value`:
        a class that overrides :meth:`value` is computed from the whole image. One that overrides
        :meth:`reduce` takes two passes over the strips, even with a mining that needs one.

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

    has_elements: ClassVar[bool] = False
    """Whether the loss of a pixel is the mean of :meth:`elements`, one per class."""
    smooths_itself: ClassVar[bool] = False
    """Whether :meth:`weighted_pixel_loss` takes `label_smoothing` into account."""

    def __init__(
        self,
        *,
        num_classes: int,
        ignore_label: int = 255,
        class_weights: ClassWeights = None,
        mining: MiningSpec = None,
        label_smoothing: float = 0.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(num_classes=num_classes, ignore_label=ignore_label)
        if not 0 <= label_smoothing < 1:
            raise ConfigError(
                f"label_smoothing must be at least 0 and below 1, got {label_smoothing}"
            )
        self.label_smoothing = label_smoothing
        self.reduction = check_reduction(reduction)
        self.class_weights: Tensor | None
        self.register_buffer(
            "class_weights", check_class_weights(class_weights, num_classes), persistent=False
        )
        self.mining: Mining = build_mining(mining) if mining is not None else MeanMining()
        self.mining.check_classes(max(num_classes, 2))
        if self.mining.per_class and (not self.has_elements or reduction != "mean"):
            raise ConfigError(
                "mining.per_class=true needs a loss with a sigmoid per class, such as bce, and"
                " reduction=mean"
            )

    @property
    def runs_in_strips(self) -> bool:
        by_strips = self.can_strip and type(self).value is PixelLoss.value
        return by_strips and not self.mining.per_class

    @property
    def is_reduced_by_mining(self) -> bool:
        """Whether the mining reduces the maps, that is, :meth:`reduce` is not overridden."""
        return type(self).reduce is PixelLoss.reduce

    @property
    def multi_label(self) -> bool:
        """Whether a pixel of a dense target may have several classes or none."""
        return self.dense == "multi_hot"

    @abstractmethod
    def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of each pixel from that pixel alone: see the note of the class.

        It must not change `logits` in place: in strips they are a leaf of the graph.

        Shape:
            - logits: ``(N, C, R, W)``, float32 or float64: R rows, of the image or of a part of it.
            - target: ``(N, R, W)``, int64, class ids only: ignored pixels come as class 0 and are
              dropped afterwards. If `dense` is not None it may also be ``(N, C, R, W)``, float,
              with 0 at ignored pixels.
            - output: ``(N, R, W)``.
        """

    def context(self, target: Tensor) -> Tensor | None:  # noqa: ARG002
        """Information on the target around each pixel, ``(..., H, W)``; None: not needed.

        It is computed once from the whole target. :meth:`pixel_loss_in_context` gets its rows of
        the strip.
        """
        return None

    def pixel_loss_in_context(self, logits: Tensor, target: Tensor, context: Tensor) -> Tensor:  # noqa: ARG002
        """Compute :meth:`pixel_loss` with the rows of :meth:`context`, if the loss has one."""
        return self.pixel_loss(logits, target)

    def target_probability(self, logits: Tensor, target: Tensor) -> Tensor:
        r"""The probability of the target, ``(N, R, W)``, by which mining finds hard pixels.

        For a dense target it is the expected probability, :math:`\sum_c t_c p_c / \sum_c t_c`.
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
        """:meth:`pixel_loss` times the weight of each pixel, ``(N, R, W)``.

        Raises:
            ConfigError: If :meth:`pixel_loss` returns another shape.
        """
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

    def smoothed_pixel_loss(
        self, logits: Tensor, target: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """:meth:`weighted_pixel_loss` with label smoothing, ``(N, R, W)``."""
        share = self.label_smoothing
        if not share or target.dim() == 4 or self.smooths_itself:
            return self.weighted_pixel_loss(logits, target, context)
        if self.dense == "probability" and self.num_classes > 1:
            smoothed = F.one_hot(target, self.num_classes).movedim(-1, 1).to(logits.dtype)
            smoothed = (1 - share) * smoothed + share / self.num_classes
            return self.weighted_pixel_loss(logits, smoothed, context)
        own = self.weighted_pixel_loss(logits, target, context)
        return (1 - share) * own + share * self.mean_pixel_loss(logits, target, context)

    def mean_pixel_loss(
        self, logits: Tensor, target: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """The mean of :meth:`weighted_pixel_loss` over all classes as target, ``(N, R, W)``."""
        ids = range(max(self.num_classes, 2))
        losses = [
            self.weighted_pixel_loss(logits, torch.full_like(target, index), context)
            for index in ids
        ]
        return torch.stack(losses).mean(0)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.reduction == "mean":
            return super().forward(logits, target)
        with torch.autocast(logits.device.type, enabled=False):
            found = self.kept_losses(*self.prepared(logits, target))
        return found if self.reduction == "none" else found.sum()

    def kept_losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """The map of the losses, ``(N, H, W)``, each times its factor in the mining."""
        values, probability = self.maps(logits, target, self.context(target))
        with torch.enable_grad():  # the slope of the value is the factor of each pixel, over a sum
            leaf = values.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.reduce(leaf, probability, target), leaf)
        weights = self.pixel_weights(target, values.dtype)
        return values * slope * torch.where(slope != 0, weights, 0).sum()

    def class_weight_map(self, target: Tensor, dtype: torch.dtype) -> Tensor | None:
        """The weight of each pixel of a clean target, ``(N, R, W)``; None without class weights."""
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
        # A pixel has the mean weight of its labels; without a label, the mean of all weights.
        return safe_ratio(labels, target.sum(1), empty=0.0) + weights.mean() * (target.sum(1) == 0)

    def pixel_weights(self, target: Tensor, dtype: torch.dtype) -> Tensor:
        """The weight of each pixel in the mean, ``(N, H, W)``, 0 where it is ignored."""
        valid = self.valid(target)
        weights = None
        if self.class_weights is not None:
            weights = self.class_weight_map(self.clean(target, valid), dtype)
        return valid.to(dtype) if weights is None else torch.where(valid, weights, 0)

    def maps(
        self, logits: Tensor, target: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The weighted losses of these rows, 0 where ignored, and the probability if it is needed.

        Shape:
            - output: two of ``(N, R, W)``. The second is None if the mining needs none.
        """
        valid = self.valid(target)
        clean = self.clean(target, valid)
        values = torch.where(valid, self.smoothed_pixel_loss(logits, clean, context), 0)
        if not self.mining.needs_probability:
            return values, None
        with torch.no_grad():
            return values, self.target_probability(logits, clean)

    def mining_target(self, target: Tensor) -> Tensor:
        """The target that a mining gets: class ids ``(N, H, W)``, or the dense multi-hot target."""
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
        """Reduce the maps of the whole batch to the value ``()``."""
        weights, valid = self.pixel_weights(target, values.dtype), self.valid(target)
        needed: dict[str, Any] = {}
        if self.mining.needs_probability:
            needed["probability"] = probability
        if self.mining.needs_target:
            needed["target"] = self.mining_target(target)
        return self._mined(values, weights, valid, **needed)

    @property
    def _is_global(self) -> bool:
        """Whether this is a training step whose mining sees the pixels of all processes."""
        return self.mining.scope == "global" and self.training and world_size() > 1

    def _mined(self, *maps: Tensor, **needed: Tensor | None) -> Tensor:
        if self._is_global:
            maps = tuple(gathered(one) for one in maps)
            needed = {key: None if one is None else gathered(one) for key, one in needed.items()}
        value: Tensor = self.mining(*maps, **needed)
        return value

    def elements(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of each class of a pixel, and its probability, ``(N, C, H, W)`` each."""
        raise NotImplementedError(f"{type(self).__name__} has no loss per class")

    def _value_by_class(self, logits: Tensor, target: Tensor) -> Tensor:
        valid = self.valid(target)
        clean = self.clean(target, valid)
        losses, probability = self.elements(logits, clean)
        weights = self.pixel_weights(target, losses.dtype)[:, None].expand_as(losses)
        counted = valid[:, None].expand_as(losses)
        values = torch.where(counted, losses * weights, 0)
        return self._mined(values, weights, counted, probability=probability)

    def value(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.mining.per_class:
            return self._value_by_class(logits, target)
        return self.reduce(*self.maps(logits, target, self.context(target)), target)

    def term_share(self, target: Tensor) -> Tensor:
        share = self.mining.share(self.pixel_weights(target, torch.float32), self.valid(target))
        return averaged(share) if self._is_global else share  # all processes have the same value


class TargetProbabilityLoss(PixelLoss):
    r"""A pixel loss that is a function of the log-probability of the target's class alone.

    A subclass writes :meth:`loss_of`. In strips all such losses share one softmax. Their gradient
    for the logits, :math:`\ell'(\log p_y)\,(\delta_{cy} - p_c)`, is written into its memory,
    without autograd.

    A class that writes :meth:`loss_of` promises that its `pixel_loss`, `weighted_pixel_loss`,
    `context`, `pixel_loss_in_context`, `target_probability` and `maps` give the same losses, for
    the targets for which :meth:`reads_target_probability` is true. A subclass that overrides one of
    these methods and leaves :meth:`loss_of` as it was has made no such promise, so strips treat it
    as any other pixel loss. The same applies to a subclass that overrides :meth:`valid` or
    :meth:`clean`, because losses that share a softmax must agree on the valid pixels.
    """

    _promised: ClassVar[tuple[Callable[..., Any], ...]] = ()

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        check_softmax_channels(self.num_classes)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Record the methods that a newly written ``loss_of`` goes with."""
        super().__init_subclass__(**kwargs)
        if cls.loss_of not in cls._promised:
            cls._promised = cls._methods_of_loss_of()

    @classmethod
    def _methods_of_loss_of(cls) -> tuple[Callable[..., Any], ...]:
        return (
            cls.loss_of,
            cls.pixel_loss,
            cls.weighted_pixel_loss,
            cls.context,
            cls.pixel_loss_in_context,
            cls.target_probability,
            cls.maps,
        )

    def shares_softmax(self, target: Tensor) -> bool:
        is_promised = self._methods_of_loss_of() == self._promised
        return self._has_default_valid and is_promised and self.reads_target_probability(target)

    @abstractmethod
    def loss_of(self, log_probability: Tensor, target: Tensor) -> Tensor:
        r"""Compute the loss of each pixel.

        Shape:
            - log_probability: ``(N, R, W)``, :math:`\log p_y \le 0`, float32 or float64.
            - target: ``(N, R, W)``, int64, class ids; ignored pixels come as class 0.
            - output: ``(N, R, W)``.
        """

    def reads_target_probability(self, target: Tensor) -> bool:
        """Whether :meth:`loss_of` gives the loss of a target of this kind: here, of class ids."""
        return target.dim() == 3 and self.label_smoothing == 0

    def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.loss_of(logits.log_softmax(1).gather(1, target[:, None])[:, 0], target)

    def maps_of(self, log_probability: Tensor, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """:meth:`maps`, computed from the log-probability of the target's class ``(N, R, W)``."""
        valid = self.valid(target)
        clean = self.clean(target, valid)
        values = self.loss_of(log_probability, clean)
        weights = self.class_weight_map(clean, values.dtype)
        values = torch.where(valid, values if weights is None else values * weights, 0)
        return values, log_probability.detach().exp() if self.mining.needs_probability else None


def check_softmax_channels(num_classes: int) -> None:
    """Check that there are at least two channels: the softmax of one channel is always 1.

    Raises:
        ConfigError: If `num_classes` is 1.
    """
    if num_classes < 2:
        raise ConfigError(
            "num_classes is 1, and the softmax of one channel is always 1: use bce, sigmoid_focal,"
            " or an overlap loss such as dice"
        )
