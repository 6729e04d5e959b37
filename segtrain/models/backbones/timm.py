"""Any architecture of timm as a backbone."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor

from segtrain.errors import (
    CheckpointError,
    ConfigError,
    ResourceError,
    SegtrainError,
    describe_error,
)
from segtrain.models.backbones.base import Backbone
from segtrain.models.backbones.registry import BACKBONES, Family, check_architecture
from segtrain.models.backbones.timm_plan import (
    FeaturePlan,
    Options,
    create,
    import_timm,
    plan_features,
)
from segtrain.models.hub import asked_once
from segtrain.models.layers.padding import padded_to, rounded_up
from segtrain.models.layers.recompute import recomputed

FAMILY = "timm"
_NET = "net."  # prefix of the names of timm


class TimmBackbone(Backbone):
    """Any architecture of timm that returns feature maps.

    A trial on the meta device finds the channels and strides of an architecture, the image sizes
    that it accepts, and the parameters that no feature map depends on, which are frozen.

    - If the architecture rounds sizes down or accepts only multiples of a number, images are padded
      at the bottom and right with zeros, the mean of normalised images, and the features are
      cropped. timm resizes the position embeddings of vision transformers.
    - If it accepts one size only (CaiT, BEiT, CoAtNet, ...), padded images are cut into squares of
      that size, which are processed independently. `img_size` can make the squares as large as the
      training crops.

    For HRNets use the built-in ``hrnet_*``: those of timm accept only multiples of 32 and resize
    differently from the published code for segmentation. With ``fusion: nearest`` the built-in ones
    give the features of timm.

    Args:
        architecture: The name in timm, with or without the tag of the weights, such as
            ``convnext_tiny`` or ``convnext_tiny.fb_in1k``.
        output_stride: Stride of the last stages, for architectures that can be dilated; None means
            the default of the architecture.
        out_indices: Indices of the feature maps to use. None means all from stride 4 on; if all
            have the same stride, as in a vision transformer, four at equal distances.
        drop_path_rate: Largest probability of skipping a residual branch during training.
        img_size: Height and width of the images that the layers are built for, if the architecture
            has this option; None means those of its weights.
        activation_checkpointing: Recompute activations in the backward pass instead of storing
            them.
        **common: As in :class:`~segtrain.models.backbones.Backbone`.

    Shape:
        - images: ``(N, in_channels, H, W)``, any size.
        - output: ``(N, channels[i], ceil(H / strides[i]), ceil(W / strides[i]))`` each.

    Raises:
        ConfigError: If timm is not installed, has no such architecture or option, or the features
            are not aligned with the image (Inception, PiT, CrossViT and a few more).

    Example:
        >>> import torch
        >>> backbone = TimmBackbone(architecture="resnet18").eval()
        >>> [tuple(stage.shape[1:]) for stage in backbone(torch.zeros(1, 3, 75, 117))]
        [(64, 19, 30), (128, 10, 15), (256, 5, 8), (512, 3, 4)]

    References:
        Wightman, *PyTorch Image Models*, https://github.com/huggingface/pytorch-image-models.
    """

    def __init__(
        self,
        *,
        architecture: str,
        output_stride: Literal[8, 16, 32] | None = None,
        out_indices: list[int] | None = None,
        drop_path_rate: float = 0.0,
        img_size: int | None = None,
        activation_checkpointing: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        check_architecture(FAMILY, architecture, architectures())
        self.architecture = architecture
        options = Options(
            output_stride,
            None if out_indices is None else tuple(out_indices),
            drop_path_rate,
            img_size,
        )
        self.plan: FeaturePlan = plan_features(architecture, options)
        self.channels, self.strides = self.plan.channels, self.plan.strides
        self.norm_stride = self.plan.norm_stride
        self.net = create(architecture, self.plan.arguments, in_chans=self.in_channels)
        for name in self.plan.unused:
            self.net.get_parameter(name).requires_grad_(False)
        self.activation_checkpointing = activation_checkpointing
        if activation_checkpointing:
            self._check_checkpointing()

    def _check_checkpointing(self) -> None:
        """Enable timm's checkpointing unless it would update batch norm statistics twice."""
        if hasattr(self.net, "return_layers"):
            return
        inner = getattr(self.net, "model", None)
        enable = getattr(inner, "set_grad_checkpointing", None)
        if self.plan.norm_stride is not None or enable is None:
            raise ConfigError(
                f"{FAMILY}/{self.architecture} does not support activation_checkpointing without"
                " changing the statistics of batch norm; set it to false"
            )
        enable(True)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the feature maps, the finest first; see the class for shapes."""
        padded = padded_to(images, self.plan.divisor)
        tiles = cut_squares(padded, self.plan.divisor) if self.plan.is_tiled else padded
        features = self._features(tiles)
        if self.plan.is_nhwc:
            features = [feature.permute(0, 3, 1, 2) for feature in features]
        if self.plan.is_tiled:
            rows, columns = (side // self.plan.divisor for side in padded.shape[-2:])
            features = [join_squares(feature, rows, columns) for feature in features]
        if self.plan.divisor == 1:
            return features
        height, width = images.shape[-2:]
        return [
            feature[..., : rounded_up(height, stride), : rounded_up(width, stride)]
            for feature, stride in zip(features, self.strides, strict=True)
        ]

    def _features(self, images: Tensor) -> list[Tensor]:
        ends = getattr(self.net, "return_layers", None)
        if ends is None or not (
            self.activation_checkpointing and self.training and torch.is_grad_enabled()
        ):
            features: list[Tensor] = self.net(images)
            return features
        features = []
        hidden: Any = images
        for name, layer in self.net.named_children():
            # A layer without parameters stores little, and may work in place.
            is_plain = next(layer.parameters(), None) is None
            hidden = layer(hidden) if is_plain else recomputed(layer, hidden, layers=[layer])
            if name in ends:
                features.append(hidden[0] if isinstance(hidden, (tuple, list)) else hidden)
        return features

    def pretrained(self) -> dict[str, Tensor]:
        state = timm_weights(self.architecture, **dict(self.plan.arguments))
        return {f"{_NET}{key}": value for key, value in state.items()}

    def from_library(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the weights of timm's classifier of this architecture.

        The feature extractors of timm use the same names, or write ``stages.0`` as ``stages_0``, or
        put ``model.`` before all names.
        """
        own = self.net.state_dict().keys()
        named = {_name_in(own, key): value for key, value in state.items()}
        return {f"{_NET}{name}": value for name, value in named.items() if name is not None}


def _name_in(own: Collection[str], key: str) -> str | None:
    """The name, among those of a feature extractor, of the weight `key` of the classifier."""
    names = (key, key.replace(".", "_", 1), f"model.{key}")
    return next((name for name in names if name in own), None)


def timm_weights(architecture: str, **arguments: Any) -> dict[str, Tensor]:
    """Return the pretrained weights of `architecture` as the state dict of its feature extractor.

    They are read from the cache of the Hugging Face hub or of torch, and downloaded if needed.

    Args:
        architecture: The name in timm, with or without a tag.
        **arguments: Arguments of ``timm.create_model``.

    Raises:
        ConfigError: If timm is not installed or has no weights for the architecture.
        ResourceError: If the weights are not in the cache and cannot be downloaded.
        CheckpointError: If the weights do not fit the architecture.
    """
    timm = import_timm()
    try:
        with _missing_keys() as missing, asked_once():
            net = timm.create_model(
                architecture, pretrained=True, features_only=True, in_chans=3, **arguments
            )
    except Exception as error:  # network, cache, file and layout raise their own kinds
        raise _why_no_weights(timm, architecture, error) from error
    state: dict[str, Tensor] = net.state_dict()
    missing = [key for key in missing if _name_in(state, key) is not None]
    if missing:
        raise CheckpointError(
            f"the weights of timm/{architecture} do not fit it: {len(missing)} of {len(state)} are"
            f" missing, such as {missing[0]}"
        )
    return state


@contextmanager
def _missing_keys() -> Iterator[list[str]]:
    """Collect the names of parameters without weights, which timm only logs."""
    found: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            names = re.match(r"Missing keys \((.*?)\)", record.getMessage())
            found.extend(names[1].split(", ") if names else [])

    logger = logging.getLogger("timm.models._builder")
    listener, level, propagate = Listener(), logger.level, logger.propagate
    logger.addHandler(listener)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield found
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)
        logger.propagate = propagate


def _why_no_weights(timm: ModuleType, architecture: str, error: Exception) -> SegtrainError:
    source = timm.get_pretrained_cfg(architecture)
    if "No pretrained weights exist" in str(error):
        return ConfigError(f"timm has no pretrained weights for {architecture}; give a file")
    if not isinstance(error, OSError):
        return CheckpointError(
            f"the weights of timm/{architecture} do not fit it: {describe_error(error)}"
        )
    place = f"https://huggingface.co/{source.hf_hub_id}" if source.hf_hub_id else source.url
    return ResourceError(
        f"the ImageNet weights of timm/{architecture} are not in the cache and cannot be downloaded"
        f" ({type(error).__name__}): give model.safetensors of {place} with model.weights=<path>,"
        " or copy the cache of a machine that has them (HF_HUB_CACHE)"
    )


def cut_squares(images: Tensor, side: int) -> Tensor:
    """Cut into squares: ``(N, C, R * side, S * side)`` -> ``(N * R * S, C, side, side)``."""
    num_images, channels, height, width = images.shape
    grid = images.reshape(num_images, channels, height // side, side, width // side, side)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, side, side)


def join_squares(squares: Tensor, rows: int, columns: int) -> Tensor:
    """Join the features of squares: ``(N * R * S, C, h, w)`` -> ``(N, C, R * h, S * w)``."""
    channels, height, width = squares.shape[1:]
    grid = squares.reshape(-1, rows, columns, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape(-1, channels, rows * height, columns * width)


@cache
def architectures() -> list[str]:
    """Every architecture of timm, with and without the tag of its weights."""
    timm = import_timm()
    return [*timm.list_models(), *timm.list_pretrained()]


BACKBONES.register_family(FAMILY, Family(build=TimmBackbone, names=architectures))
