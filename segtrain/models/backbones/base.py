"""The contract of every backbone: it maps images to features at several strides."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from segtrain.errors import ConfigError


class Backbone(nn.Module):
    """Base class of all backbones, built-in and custom.

    A subclass sets `channels` and `strides` in its constructor, implements `forward`, accepts
    `in_channels` as a keyword argument, and is registered with ``BACKBONES.register("name")``.

    Args:
        in_channels: Number of channels of the images.

    Attributes:
        channels: Number of channels of each feature map that `forward` returns, the finest first.
        strides: Stride of each feature map.
        norm_stride: The coarsest stride of the inputs of batch norm; None if there is no batch norm
            or it is unknown.

    Shape:
        - images: ``(N, in_channels, H, W)``, any size.
        - output: one ``(N, channels[i], h_i, w_i)`` per stage; ``h_i`` is about ``H / strides[i]``.

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
        """Return the feature maps, the finest first; see the class for shapes."""
        raise NotImplementedError(
            f"{type(self).__name__} must implement forward(images) -> list of features"
        )

    def pretrained(self) -> dict[str, Tensor]:
        """Return the ImageNet weights, named as in this backbone's ``state_dict()``.

        The weights of the stem have three input channels, whatever the value of `in_channels`;
        :func:`segtrain.models.layers.stem.widen` converts them on loading.

        Raises:
            ConfigError: If there are none, or the library that provides them is not installed.
            ResourceError: If they are not in the cache and cannot be downloaded.
        """
        raise ConfigError(f"there are no ImageNet weights for {type(self).__name__}; give a file")

    def from_library(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename weights from the layout of the library that this backbone comes from.

        Only the names change; the tensors are those of `state`. Weights that this backbone does not
        have, such as a classifier, are left out. The caller checks whether any are missing.
        """
        own = self.state_dict().keys()
        return {key: value for key, value in state.items() if key in own}
