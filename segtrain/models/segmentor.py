"""The contract of every model: images in, a dict of logits out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from segtrain.errors import ConfigError, NormError
from segtrain.models.load_report import LoadReport


class Segmentor(nn.Module):
    """Base of every model, ours and the user's.

    A subclass implements `forward`, takes at least `num_classes` and `align_corners` as keyword
    arguments, and is registered with ``MODELS.register("name")``. It returns logits at whatever
    resolution it computes them; the criterion and the predictor upsample.

    Args:
        num_classes: Channels of every output that learns the class ids.
        align_corners: The convention of every bilinear resize inside the model and of its outputs;
            None, the default of our own models, is false and tells that nobody has chosen.
        in_channels: Channels of the images.

    Attributes:
        head_prefixes: Names of the submodules that are not backbone, such as ``("decoder",
            "classifier")``; the optimizer can give them a learning rate of their own, and
            ``reinit=[head]`` means them. Empty: everything is backbone.
        backbone_prefix: What the names of the backbone's weights start with, ``"backbone."`` where
            it is a submodule of that name.
        norm_stride: The coarsest stride at which batch norm counts values, infinity where it comes
            after a mean over the whole image; None where nobody knows.
        source: The paper or library that it comes from, for the table of models.
        paper_size: Height and width at which that source counts operations.

    Shape:
        - images: ``(N, in_channels, H, W)``, floating point, normalised.
        - output: dict of ``(N, num_classes, h, w)``, unnormalised; the main one is ``"out"``.

    Raises:
        ConfigError: When `num_classes` is below 1.

    Example:
        >>> import torch
        >>> class Linear(Segmentor):
        ...     head_prefixes = ("classifier",)
        ...
        ...     def __init__(self, **common: object) -> None:
        ...         super().__init__(**common)
        ...         self.classifier = nn.Conv2d(3, self.num_classes, kernel_size=1)
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
    backbone_prefix: ClassVar[str] = ""
    norm_stride: float | None = None
    source: str = ""
    paper_size: ClassVar[tuple[int, int]] = (512, 512)
    registered_name: str | None = None
    """What ``model=`` calls it; None when it was built without the registry."""
    load_report: LoadReport | None = None
    """What became of the weights that the model was built with; None without any."""

    def __init__(
        self, *, num_classes: int, align_corners: bool | None = None, in_channels: int = 3
    ) -> None:
        super().__init__()
        for name, value in (("num_classes", num_classes), ("in_channels", in_channels)):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        self.num_classes = num_classes
        self.align_corners = bool(align_corners)
        self.in_channels = in_channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits by output name; see the class for shapes."""
        raise NotImplementedError(
            f"{type(self).__name__} must implement forward(images) -> dict of logits"
        )

    def pretrained_backbone(self) -> dict[str, Tensor]:
        """ImageNet weights for ``weights=imagenet``, under the names of this model's state dict.

        Raises:
            ConfigError: When there are none, or the library that has them is not installed.
            ResourceError: When they are neither here nor to be had, with where to put the file.
        """
        raise ConfigError(f"there are no ImageNet weights for {self.label}; give a file")

    @property
    def label(self) -> str:
        """What messages call the model."""
        return self.registered_name or type(self).__name__

    def check_images(self, images: Tensor) -> None:
        """Refuses a batch on which a layer would fail later, with a message about that layer.

        Raises:
            ValueError: When the shape is not ``(N, in_channels, H, W)``, or as :meth:`check_norms`.
            TypeError: When the dtype is not floating point.
        """
        if images.ndim != 4 or images.shape[1] != self.in_channels:
            raise ValueError(
                f"images must have shape (N, {self.in_channels}, H, W), got {tuple(images.shape)}"
            )
        if not images.is_floating_point():
            raise TypeError(
                f"images must be floating point (scaled and normalised), got {images.dtype}"
            )
        if self.training:
            self.check_norms(images.shape)

    def check_norms(self, shape: Sequence[int]) -> None:
        """Refuses images of `shape` of which batch norm would see one value per channel.

        Batch norm that is synchronised over processes sees those of the others too.

        Raises:
            ConfigError: When that is so; it is a :class:`ValueError` too.
        """
        num_images, _, height, width = shape
        stride = self.norm_stride
        if stride is None or num_images > 1 or max(height, width) > stride:
            return
        if any(isinstance(layer, nn.SyncBatchNorm) for layer in self.modules()):
            return
        place = "a mean over the image" if math.isinf(stride) else f"stride {stride:.0f}"
        larger = "" if math.isinf(stride) else f" or images of more than {stride:.0f} pixels"
        raise NormError(
            "batch norm cannot train on one value per channel, which is what one image of"
            f" {height} x {width} gives after {place}: use at least 2 images in a batch{larger}"
            " (trainer.batch_size, augmentation.crop_size)"
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


class ModuleSegmentor(Segmentor):
    """Any module whose forward gives logits, or a dict of them, as a segmentor.

    Args:
        net: Takes images ``(N, in_channels, H, W)``.
        **common: As in :class:`Segmentor`.

    Raises:
        TypeError: On a forward pass, when `net` gives neither a tensor nor a mapping.

    Example:
        >>> import torch
        >>> model = ModuleSegmentor(nn.Conv2d(3, 5, kernel_size=1), num_classes=5)
        >>> {name: tuple(logits.shape) for name, logits in model(torch.zeros(1, 3, 8, 8)).items()}
        {'out': (1, 5, 8, 8)}
    """

    def __init__(self, net: nn.Module, **common: Any) -> None:
        super().__init__(**common)
        self.net = net

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """What `net` gives, a single tensor under ``"out"``."""
        self.check_images(images)
        outputs = self._run_net(images)
        if isinstance(outputs, Tensor):
            return {"out": outputs}
        if not isinstance(outputs, Mapping):
            raise TypeError(
                f"{type(self.net).__name__} must return logits or a dict of them, got"
                f" {type(outputs).__name__}"
            )
        return dict(outputs)

    def _run_net(self, images: Tensor) -> Any:
        """Nobody knows where `net` has batch norm, so what it says of itself is put in words."""
        try:
            return self.net(images)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise NormError(
                f"batch norm in {self.label} cannot train on one value per channel, which is what"
                f" images of {tuple(images.shape)} give there: use at least 2 images in a batch or"
                " larger ones (trainer.batch_size, augmentation.crop_size)"
            ) from error
