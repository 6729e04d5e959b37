"""The contract of every model: it maps images to a dict of logits."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Self

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from segtrain.errors import ConfigError, NormError
from segtrain.models.load_report import LoadReport


class Segmentor(nn.Module):
    """Base class of all models, built-in and custom.

    A subclass implements `forward`, accepts at least `num_classes` and `align_corners` as keyword
    arguments, and is registered with ``MODELS.register("name")``. It returns logits at the
    resolution at which it computes them; the criterion and the predictor upsample them.

    Args:
        num_classes: Number of channels of every output that predicts the class ids.
        align_corners: Whether bilinear resizing, inside the model and of its outputs, aligns the
            corners. None means false, and that the user has not chosen.
        in_channels: Number of channels of the images.

    Attributes:
        head_prefixes: Names of the submodules that do not belong to the backbone, such as
            ``("decoder", "classifier")``. The optimizer can give them a separate learning rate, and
            ``reinit=[head]`` selects them. Empty if everything is backbone.
        backbone_prefix: Prefix of the names of the backbone's weights, such as ``"backbone."``.
        norm_stride: The coarsest stride of the inputs of batch norm; infinity if batch norm follows
            a mean over the whole image, None if unknown.
        source: The paper or library of the model, for the table of models.
        paper_size: Height and width of the images for which the source reports operations.

    Shape:
        - images: ``(N, in_channels, H, W)``, floating point, normalised.
        - output: dict of unnormalised ``(N, num_classes, h, w)``; the main output is ``"out"``.

    Raises:
        ConfigError: If `num_classes` or `in_channels` is below 1.

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
    held_norms: tuple[str, ...] = ()
    """Names of batch norms that stay in eval mode during training."""
    has_adapter: bool = False
    """Whether an adapter was added to the backbone."""
    registered_name: str | None = None
    """The registered name; None if the model was built without the registry."""
    load_report: LoadReport | None = None
    """The report on the weights that were loaded; None if none were."""

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
        """Return logits by output name; see the class for shapes."""
        raise NotImplementedError(
            f"{type(self).__name__} must implement forward(images) -> dict of logits"
        )

    def train(self, mode: bool = True) -> Self:
        """Set training mode, but for `held_norms`."""
        super().train(mode)
        for name in self.held_norms:
            self.get_submodule(name).eval()
        return self

    def pretrained_backbone(self) -> dict[str, Tensor]:
        """Return the ImageNet weights for ``weights=imagenet``, named as in ``state_dict()``.

        Raises:
            ConfigError: If there are none, or the library that provides them is not installed.
            ResourceError: If they are not in the cache and cannot be downloaded.
        """
        raise ConfigError(f"there are no ImageNet weights for {self.label}; give a file")

    @property
    def label(self) -> str:
        """Name of the model in messages."""
        return self.registered_name or type(self).__name__

    def check_images(self, images: Tensor) -> None:
        """Reject a batch that would make a layer of the model fail.

        Raises:
            ValueError: If the shape is not ``(N, in_channels, H, W)``, or as :meth:`check_norms`.
            TypeError: If the dtype is not floating point.
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
        """Reject images of a `shape` that would give batch norm a single value per channel.

        Batch norm that is synchronised across processes also sees the values of the other
        processes, so it is not checked.

        Raises:
            NormError: If batch norm would get a single value per channel.
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
        """Return the parameters of the ``"backbone"`` and of the ``"head"``.

        Every parameter is in exactly one of the two lists; either list may be empty.

        Raises:
            ConfigError: If `head_prefixes` is set and matches no parameter. A misspelt prefix would
                otherwise give the head the learning rate of the backbone without notice.
        """
        groups: dict[str, list[nn.Parameter]] = {"backbone": [], "head": []}
        for name, parameter in self.named_parameters():
            groups["head" if self.is_head(name) else "backbone"].append(parameter)
        if self.head_prefixes and not groups["head"]:
            children = ", ".join(name for name, _ in self.named_children())
            raise ConfigError(
                f"head_prefixes {self.head_prefixes} of {type(self).__name__} match no parameter; "
                f"submodules: {children}"
            )
        return groups

    def norms_in(self, names: Collection[str]) -> tuple[str, ...]:
        """Names of the batch norms whose weights and statistics are all in `names`."""
        return tuple(
            norm
            for norm, module in self.named_modules()
            if isinstance(module, _BatchNorm)
            and (state := [f"{norm}.{key}" for key in module.state_dict()])
            and all(key in names for key in state)
        )

    def is_head(self, name: str) -> bool:
        """Whether the module or the weight `name` belongs to the head."""
        return any(name == prefix or name.startswith(f"{prefix}.") for prefix in self.head_prefixes)


class ModuleSegmentor(Segmentor):
    """Wrapper that makes any module that returns logits, or a dict of logits, a segmentor.

    Args:
        net: Module that maps images ``(N, in_channels, H, W)`` to logits.
        **common: As in :class:`Segmentor`.

    Raises:
        TypeError: In the forward pass, if `net` returns neither a tensor nor a mapping.

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
        """Return the outputs of `net`; a single tensor is named ``"out"``."""
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
        """Run `net`; if its batch norm rejects the batch, raise an error with the next step."""
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
