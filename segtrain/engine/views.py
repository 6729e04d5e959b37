"""A model applied to images: whole or in windows, at several scales, and flipped."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segtrain.engine.class_ids import predict_ids, strips_of
from segtrain.engine.device import autocast
from segtrain.engine.windows import Band, Span, Windows
from segtrain.schema.sections import ViewConfig


class Logits(NamedTuple):
    """The logits of a batch of images, which are upsampled where they are needed.

    Attributes:
        views: ``(N, C, h, w)`` of each scale.
        size: Height and width to which they are upsampled.
        align_corners: How they are upsampled.
        multi_label: Whether each logit is a probability of its own, even if there are several.
    """

    views: tuple[Tensor, ...]
    size: Span
    align_corners: bool
    multi_label: bool = False

    def is_finite(self) -> Tensor:
        """Whether no logit is NaN or infinite, ``()``, bool."""
        return torch.stack([torch.isfinite(view).all() for view in self.views]).all()

    def image(self, index: int) -> Logits:
        """The logits of one image, as a batch of one."""
        return self._replace(views=tuple(view[index : index + 1] for view in self.views))

    def strips(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield rows and their logits ``(N, C, R, W)``, in memory that the next strip uses again.

        Several scales are averaged as probabilities, whose logits are returned.
        """
        strips = [strips_of(view, self.size, self.align_corners) for view in self.views]
        for parts in zip(*strips, strict=True):
            yield parts[0][0], averaged([part for _, part in parts], self.multi_label)

    def ids(self, thresholds: tuple[float, ...] | None = None) -> Tensor:
        """The class ids, as :func:`~segtrain.engine.class_ids.predict_ids` returns them."""
        if len(self.views) == 1:
            return predict_ids(
                self.views[0],
                self.size,
                self.align_corners,
                multi_label=self.multi_label,
                thresholds=thresholds,
            )
        return torch.cat(
            [
                predict_ids(
                    strip,
                    (strip.shape[2], strip.shape[3]),
                    self.align_corners,
                    multi_label=self.multi_label,
                    thresholds=thresholds,
                )
                for _, strip in self.strips()
            ],
            dim=-2,
        )


def averaged(logits: list[Tensor], multi_label: bool) -> Tensor:
    """The logits ``(N, C, ...)`` of the mean of the probabilities; those of one tensor are it.

    Example:
        >>> averaged([torch.tensor([[0.0, 0.0]]), torch.tensor([[9.0, 0.0]])], False).softmax(1)
        tensor([[0.7499, 0.2501]])
    """
    if len(logits) == 1:
        return logits[0]
    if multi_label or logits[0].shape[1] == 1:
        # In the domain of logarithms, so that a probability near 0 or 1 keeps a finite logit.
        yes = torch.stack([F.logsigmoid(part) for part in logits]).logsumexp(0)
        no = torch.stack([F.logsigmoid(-part) for part in logits]).logsumexp(0)
        return yes - no
    mean = logits[0].log_softmax(1)
    for part in logits[1:]:
        mean = torch.logaddexp(mean, part.log_softmax(1))
    return mean


class ModelViews:
    """Applies a model to images as a :class:`~segtrain.schema.sections.ViewConfig` says.

    Args:
        model: The model; its output ``out`` is used.
        views: What the model sees.
        device: The device of the model.
        precision: Precision of the forward pass: ``fp32``, ``bf16`` or ``fp16``.
        channels_last: Whether the images are in that memory format.
        multi_label: Whether each logit is a probability of its own.
        batch_size: Number of windows that the model gets at a time.
    """

    def __init__(
        self,
        model: Callable[[Tensor], dict[str, Tensor]] | nn.Module,
        views: ViewConfig,
        *,
        device: torch.device,
        precision: str = "fp32",
        channels_last: bool = False,
        multi_label: bool = False,
        batch_size: int = 1,
    ) -> None:
        self.model, self.views = model, views
        self.device, self.precision = device, precision
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.multi_label, self.batch_size = multi_label, batch_size

    def with_views(self, views: ViewConfig) -> ModelViews:
        """Return the same for other views."""
        other = copy.copy(self)
        other.views = views
        return other

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """All outputs of the model for whole images ``(N, channels, H, W)``."""
        images = images.to(self.device, non_blocking=True, memory_format=self.memory_format)
        with autocast(self.device, self.precision):
            outputs: dict[str, Tensor] = self.model(images)
        return outputs

    def whole(self, outputs: dict[str, Tensor], size: Span, align_corners: bool) -> Logits:
        """The logits of the :meth:`outputs` for whole images."""
        return Logits((outputs["out"],), size, align_corners, self.multi_label)

    def logits(self, images: Tensor, size: Span, align_corners: bool) -> Logits:
        """The logits of `images` ``(N, channels, h, w)``, which are upsampled to `size`."""
        images = images.to(self.device, non_blocking=True)
        views = tuple(self._at_scale(images, scale) for scale in self.views.scales)
        return Logits(views, size, align_corners, self.multi_label)

    def _at_scale(self, images: Tensor, scale: float) -> Tensor:
        height, width = images.shape[2:]
        if scale != 1:
            size = [max(round(scale * length), 1) for length in (height, width)]
            images = F.interpolate(
                images, size=size, mode="bilinear", align_corners=False, antialias=scale < 1
            )
        if self.views.window is None:
            return self._flipped_too(images)

        def read(rows: Span, columns: Span) -> Tensor:
            return images[:, :, slice(*rows), slice(*columns)]

        bands = self.bands(
            read, (images.shape[2], images.shape[3]), max(self.batch_size // len(images), 1)
        )
        return torch.cat([band.logits for band in bands], 2)

    def bands(
        self, read: Callable[[Span, Span], Tensor], size: Span, batch_size: int | None = None
    ) -> Iterator[Band]:
        """The logits of an image, or of images, of some `size`, from the top, by windows.

        Args:
            read: Returns the pixels of some rows and columns, ``(N, channels, h, w)``.
            size: Height and width.
            batch_size: Number of windows that the model gets at a time; None: `batch_size`.
        """
        assert self.views.window is not None
        windows = Windows(size, self.views.window, self.views.distance, self.views.blend)
        return windows.bands(read, self._flipped_too, batch_size or self.batch_size)

    def _flipped_too(self, images: Tensor) -> Tensor:
        """The logits of the images, averaged with those of the flipped images if chosen."""
        logits = self.outputs(images)["out"]
        if not self.views.flip:
            return logits
        flipped = self.outputs(images.flip(3))["out"].flip(3)
        return averaged([logits.float(), flipped.float()], self.multi_label)
