"""The contract of every model: images in, a dict of logits out."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from segtrain.errors import ConfigError


class Segmentor(nn.Module):
    """Base of every model, ours and the user's.

    A subclass implements `forward`, takes at least `num_classes` and `align_corners` as keyword
    arguments, and is registered with ``MODELS.register("name")``. It returns logits at whatever
    resolution it computes them; the criterion and the predictor upsample.

    Args:
        num_classes: Channels of every output.
        align_corners: The convention of every bilinear resize inside the model and of its outputs.

    Attributes:
        head_prefixes: Names of the submodules that are not backbone, such as ``("decoder",
            "classifier")``; the optimizer can give them a learning rate of their own. Empty:
            everything is backbone.

    Shape:
        - images: ``(N, 3, H, W)``, floating point, normalised.
        - output: dict of ``(N, num_classes, h, w)``, unnormalised; the main one is ``"out"``.

    Raises:
        ConfigError: When `num_classes` is below 1.

    Example:
        >>> import torch
        >>> class Linear(Segmentor):
        ...     head_prefixes = ("classifier",)
        ...
        ...     def __init__(self, *, num_classes: int, align_corners: bool = False) -> None:
        ...         super().__init__(num_classes=num_classes, align_corners=align_corners)
        ...         self.classifier = nn.Conv2d(3, num_classes, kernel_size=1)
        ...
        ...     def forward(self, images: Tensor) -> dict[str, Tensor]:
        ...         return {"out": self.classifier(images)}
        >>> model = Linear(num_classes=5)
        >>> model(torch.zeros(2, 3, 8, 8))["out"].shape
        torch.Size([2, 5, 8, 8])
        >>> {name: len(parameters) for name, parameters in model.parameter_groups().items()}
        {'backbone': 0, 'head': 2}
    """

    head_prefixes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, num_classes: int, align_corners: bool = False) -> None:
        super().__init__()
        if num_classes < 1:
            raise ConfigError(f"num_classes must be at least 1, got {num_classes}")
        self.num_classes = num_classes
        self.align_corners = align_corners

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits by output name; see the class for shapes."""
        raise NotImplementedError(
            f"{type(self).__name__} must implement forward(images) -> dict of logits"
        )

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Every parameter exactly once, under ``"backbone"`` or ``"head"``; either may be empty.

        Raises:
            ConfigError: When `head_prefixes` is set and matches no parameter: a misspelt prefix
                would silently leave the head with the learning rate of the backbone.
        """
        groups: dict[str, list[nn.Parameter]] = {"backbone": [], "head": []}
        for name, parameter in self.named_parameters():
            groups["head" if self._is_head(name) else "backbone"].append(parameter)
        if self.head_prefixes and not groups["head"]:
            children = ", ".join(name for name, _ in self.named_children())
            raise ConfigError(
                f"head_prefixes {self.head_prefixes} of {type(self).__name__} match no parameter; "
                f"submodules: {children}"
            )
        return groups

    def _is_head(self, name: str) -> bool:
        return any(name == prefix or name.startswith(f"{prefix}.") for prefix in self.head_prefixes)


def check_images(images: Tensor) -> None:
    """Refuses a batch that a model would fail on later with a message about a convolution.

    Raises:
        ValueError: When the shape is not ``(N, 3, H, W)``.
        TypeError: When the dtype is not floating point.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must have shape (N, 3, H, W), got {tuple(images.shape)}")
    if not images.is_floating_point():
        raise TypeError(
            f"images must be floating point (scaled and normalised), got {images.dtype}"
        )
