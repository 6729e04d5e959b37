"""The ResNets and MobileNets of torchvision, with the names of its weight files."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal
from urllib.error import URLError

import torch
from torch import Tensor, nn

from segtrain.errors import CheckpointError, ConfigError, ResourceError, one_line
from segtrain.models.backbones.base import Backbone
from segtrain.models.backbones.registry import BACKBONES, Family, check_architecture
from segtrain.models.hub import is_reachable
from segtrain.models.layers.recompute import recomputed

FAMILY = "torchvision"
_KINDS = ("resnet", "resnext", "wide_resnet", "mobilenet")
_RESNET_STAGES = ("layer1", "layer2", "layer3", "layer4")
_STRIDES = (4, 8, 16, 32)
_COARSEST_STRIDE = 32


class _FromTorchvision(Backbone):
    """Base class of both kinds: activation checkpointing and ImageNet weights."""

    def __init__(self, *, architecture: str, activation_checkpointing: bool, **common: Any) -> None:
        super().__init__(**common)
        self.architecture = architecture
        self.activation_checkpointing = activation_checkpointing

    def run(self, layer: nn.Module, features: Tensor) -> Tensor:
        """Return ``layer(features)``, recomputed in the backward pass with checkpointing."""
        if self.activation_checkpointing and self.training and torch.is_grad_enabled():
            features = recomputed(layer, features, layers=[layer])
        else:
            features = layer(features)
        return features

    def pretrained(self) -> dict[str, Tensor]:
        return self.from_library(imagenet_weights(self.architecture))


class ResNetBackbone(_FromTorchvision):
    """The four stages of a ResNet, ResNeXt or Wide ResNet, at strides 4, 8, 16 and 32.

    Args:
        architecture: The name in torchvision, such as ``resnet50``.
        output_stride: Largest stride; stages that would exceed it are dilated instead of strided.
        activation_checkpointing: Recompute the activations of each stage in the backward pass
            instead of storing them.
        **common: As in :class:`~segtrain.models.backbones.Backbone`.

    Shape:
        - images: ``(N, in_channels, H, W)``, any size.
        - output: four tensors ``(N, channels[i], ceil(H / strides[i]), ceil(W / strides[i]))``.

    Example:
        >>> backbone = ResNetBackbone(architecture="resnet18", output_stride=16).eval()
        >>> [tuple(stage.shape[1:]) for stage in backbone(torch.zeros(1, 3, 75, 117))]
        [(64, 19, 30), (128, 10, 15), (256, 5, 8), (512, 5, 8)]

    References:
        He, Zhang, Ren and Sun, *Deep Residual Learning for Image Recognition*, CVPR 2016,
        https://arxiv.org/abs/1512.03385; dilated as in Yu, Koltun and Funkhouser, *Dilated Residual
        Networks*, CVPR 2017, https://arxiv.org/abs/1705.09914, without their further changes.
    """

    def __init__(
        self,
        *,
        architecture: str,
        output_stride: Literal[8, 16, 32] = 32,
        activation_checkpointing: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(
            architecture=architecture, activation_checkpointing=activation_checkpointing, **common
        )
        net = _classifier(architecture)
        self.conv1 = new_stem(net.conv1, self.in_channels)
        self.bn1, self.relu, self.maxpool = net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2 = net.layer1, net.layer2
        self.layer3, self.layer4 = net.layer3, net.layer4
        self.strides = tuple(min(stride, output_stride) for stride in _STRIDES)
        self.norm_stride = output_stride
        for name, stride in zip(_RESNET_STAGES, _STRIDES, strict=True):
            if stride > output_stride:
                _dilate(getattr(self, name), stride // output_stride)
        self.channels = tuple(_width(getattr(self, name)) for name in _RESNET_STAGES)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the four feature maps; see the class for shapes."""
        features = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        stages = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            features = self.run(layer, features)
            stages.append(features)
        return stages


class MobileNetBackbone(_FromTorchvision):
    """The last features of a MobileNet at each of the strides 4, 8, 16 and 32.

    Args:
        architecture: The name in torchvision, such as ``mobilenet_v3_large``.
        activation_checkpointing: As in :class:`ResNetBackbone`.
        **common: As in :class:`~segtrain.models.backbones.Backbone`.

    Shape:
        - images: ``(N, in_channels, H, W)``, any size.
        - output: four tensors ``(N, channels[i], ceil(H / strides[i]), ceil(W / strides[i]))``.

    Example:
        >>> backbone = MobileNetBackbone(architecture="mobilenet_v3_small").eval()
        >>> [tuple(stage.shape[1:]) for stage in backbone(torch.zeros(1, 3, 75, 117))]
        [(16, 19, 30), (24, 10, 15), (48, 5, 8), (576, 3, 4)]

    References:
        Sandler et al., *MobileNetV2: Inverted Residuals and Linear Bottlenecks*, CVPR 2018,
        https://arxiv.org/abs/1801.04381; Howard et al., *Searching for MobileNetV3*, ICCV 2019,
        https://arxiv.org/abs/1905.02244. The last feature map includes the last 1x1 convolution
        before the classifier.
    """

    strides = _STRIDES
    norm_stride = _COARSEST_STRIDE

    def __init__(
        self, *, architecture: str, activation_checkpointing: bool = False, **common: Any
    ) -> None:
        super().__init__(
            architecture=architecture, activation_checkpointing=activation_checkpointing, **common
        )
        self.features: nn.Sequential = _classifier(architecture).features
        self.features[0][0] = new_stem(self.features[0][0], self.in_channels)
        self._ends = _stage_ends(self.features)
        self.channels = tuple(_width(self.features[end]) for end in self._ends)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the four feature maps; see the class for shapes."""
        features, stages = images, []
        for index, layer in enumerate(self.features):
            features = self.run(layer, features)
            if index in self._ends:
                stages.append(features)
        return stages


def imagenet_weights(architecture: str) -> dict[str, Tensor]:
    """Return the default weights of `architecture` in torchvision, including the classifier.

    They are read from the hub folder of torch, and downloaded to it if needed.

    Raises:
        ResourceError: If they are not in the folder and cannot be downloaded.
        CheckpointError: If the file in the folder is damaged.
    """
    from torchvision import models  # noqa: PLC0415  slow to import, and not always needed

    weights = models.get_model_weights(architecture).DEFAULT
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / weights.url.rsplit("/", 1)[-1]
    try:
        if not file.exists() and not is_reachable(weights.url):
            raise URLError("the server does not answer")
        state: dict[str, Tensor] = weights.get_state_dict(
            progress=False, check_hash=True, map_location="cpu", weights_only=True
        )
    except (URLError, OSError) as error:
        raise ResourceError(
            f"the ImageNet weights of torchvision/{architecture} are not in the cache and cannot be"
            f" downloaded ({one_line(error)}): put {weights.url} at {file}, or give a file with"
            " model.weights=<path>"
        ) from error
    except (RuntimeError, EOFError, UnpicklingError, ValueError) as error:
        raise CheckpointError(
            f"{file} does not contain the weights of {architecture}: delete it to download it again"
        ) from error
    return state


def _classifier(architecture: str) -> Any:
    """The classifier of torchvision with random weights."""
    from torchvision import models  # noqa: PLC0415

    return models.get_model(architecture, weights=None)


def new_stem(conv: nn.Conv2d, in_channels: int) -> nn.Conv2d:
    """Return `conv`, or a new layer like it if it does not have `in_channels` input channels."""
    if in_channels == conv.in_channels:
        return conv
    stem = nn.Conv2d(
        in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        bias=conv.bias is not None,
    )
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    return stem


def _dilate(layer: nn.Sequential, rate: int) -> None:
    """Replace the stride of a ResNet stage by dilation.

    The first 3x3 convolution, which had the stride, gets half the rate and so keeps its receptive
    field; the others get the full `rate`.
    """
    for index, block in enumerate(layer):
        first = True
        for conv in block.modules():
            if not isinstance(conv, nn.Conv2d):
                continue
            conv.stride = (1, 1)
            if conv.kernel_size == (3, 3):
                at = rate // 2 if index == 0 and first else rate
                conv.dilation = conv.padding = (at, at)
                first = False


def _width(module: nn.Module) -> int:
    """Number of output channels of `module`."""
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    return norms[-1].num_features


def _stage_ends(features: nn.Sequential) -> tuple[int, ...]:
    """Index of the last layer at each stride."""
    ends: dict[int, int] = {}
    stride = 1
    for index, layer in enumerate(features):
        strides = [conv.stride[0] for conv in layer.modules() if isinstance(conv, nn.Conv2d)]
        stride *= max(strides)
        ends[stride] = index
    return tuple(ends[stride] for stride in _STRIDES)


def _build(
    *,
    architecture: str,
    output_stride: Literal[8, 16, 32] = 32,
    activation_checkpointing: bool = False,
    in_channels: int = 3,
) -> Backbone:
    check_architecture(FAMILY, architecture, architectures())
    common: dict[str, Any] = {
        "architecture": architecture,
        "activation_checkpointing": activation_checkpointing,
        "in_channels": in_channels,
    }
    if not architecture.startswith("mobilenet"):
        return ResNetBackbone(output_stride=output_stride, **common)
    if output_stride != _COARSEST_STRIDE:
        raise ConfigError(
            f"output_stride of {FAMILY}/{architecture} can only be {_COARSEST_STRIDE}, got"
            f" {output_stride}; the ResNets and many timm backbones also accept 8 and 16"
        )
    return MobileNetBackbone(**common)


@cache
def architectures() -> list[str]:
    """The ResNets and MobileNets of torchvision."""
    from torchvision import models  # noqa: PLC0415

    return [name for name in models.list_models(module=models) if name.startswith(_KINDS)]


BACKBONES.register_family(FAMILY, Family(build=_build, names=architectures))
