"""The contract of every backbone: images in, features at several strides out."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from segtrain.errors import ConfigError


class Backbone(nn.Module):
    """Base of every backbone, ours and the user's.

    A subclass sets `channels` and `strides` in its constructor, implements `forward`, takes
    `in_channels` as a keyword argument, and is registered with ``BACKBONES.register("name")``.

    Args:
        in_channels: Channels of the images.

    Attributes:
        channels: Channels of each feature map that `forward` returns, the finest first.
        strides: How many pixels of the image one of its pixels stands for.
        norm_stride: The coarsest stride at which batch norm counts values; None where there is no
            batch norm or nobody knows.

    Shape:
        - images: ``(N, in_channels, H, W)``, any size.
        - output: one ``(N, channels[i], h_i, w_i)`` per stage, ``h_i`` about ``H / strides[i]``.

    Example:
        >>> import torch
        >>> class Halves(Backbone):
        ...     def __init__(self, **common: object) -> None:
        ...         super().__init__(**common)
        ...         self.channels, self.strides = (8, 16), (2, 4)
        ...         self.first = nn.Conv2d(self.in_channels, 8, 3, stride=2, padding=1)
        ...         self.second = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        ...
        ...     def forward(self, images: Tensor) -> list[Tensor]:
        ...         first = self.first(images).relu()
        ...         return [first, self.second(first).relu()]
        >>> [tuple(features.shape) for features in Halves()(torch.zeros(1, 3, 9, 12))]
        [(1, 8, 5, 6), (1, 16, 3, 3)]
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    norm_stride: float | None = None

    def __init__(self, *, in_channels: int = 3) -> None:
        super().__init__()
        if in_channels < 1:
            raise ConfigError(f"in_channels must be at least 1, got {in_channels}")
        self.in_channels = in_channels

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features, the finest first; see the class for shapes."""
        raise NotImplementedError(
            f"{type(self).__name__} must implement forward(images) -> list of features"
        )

    def pretrained(self) -> dict[str, Tensor]:
        """ImageNet weights under the names of this backbone's ``state_dict()``.

        Weights of a stem with three channels are given as they are, whatever `in_channels` says:
        :func:`segtrain.models.layers.stem.widen` fits them.

        Raises:
            ConfigError: When there are none, or the library that has them is not installed.
            ResourceError: When they are neither here nor to be had, with where to put the file.
        """
        raise ConfigError(f"there are no ImageNet weights for {type(self).__name__}; give a file")

    def from_library(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights in the layout of the library that this backbone comes from, under its own names.

        Only names change, the tensors are those of `state`. What this backbone has no place for,
        such as a classifier, is left out; whether anything is missing is for the caller to judge.
        """
        own = self.state_dict().keys()
        return {key: value for key, value in state.items() if key in own}
