r"""HRNet: a trunk that keeps a high-resolution branch from the stem to the last stage.

The stem reduces the image to stride 4. Stage 1 is a short stack of bottleneck blocks at this
stride. Each later stage adds a branch of half the resolution and twice the channels, and its
modules exchange information between all branches:

.. code-block:: text

    image - stem - layer1 --- stage2 --- stage3 --- stage4 --->  C channels, stride 4
                         \--- stage2 --- stage3 --- stage4 ---> 2C channels, stride 8
                                    \--- stage3 --- stage4 ---> 4C channels, stride 16
                                               \--- stage4 ---> 8C channels, stride 32

Written for segtrain. The names of the submodules are those of the official code
(https://github.com/HRNet/HRNet-Semantic-Segmentation, MIT), so that its weight files, and ImageNet
weights in the same layout, load by name. Differences from it: `align_corners` is an argument of
each instance, and the initial weights are those of
:func:`segtrain.models.layers.init.init_layers`.

References:
    Wang, Sun et al., *Deep High-Resolution Representation Learning for Visual Recognition*, TPAMI
    2020, https://arxiv.org/abs/1908.07919.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from segtrain.errors import ConfigError
from segtrain.models.backbones.base import Backbone
from segtrain.models.backbones.hrnet_layers import (
    EXPANSION,
    Bottleneck,
    ExchangeModule,
    conv3x3,
    conv3x3_bn,
)
from segtrain.models.backbones.registry import BACKBONES
from segtrain.models.backbones.timm import timm_weights
from segtrain.models.layers.init import init_layers
from segtrain.models.layers.recompute import recomputed
from segtrain.models.layers.resize import Resizing
from segtrain.schema.values import did_you_mean

_STEM_CHANNELS = 64
_NUM_BRANCHES = 4
HRNET_STRIDES = (4, 8, 16, 32)
# The value of `fusion` in the official code for ImageNet and in timm.
IMAGENET_FUSION: Resizing = "nearest"


@dataclass(frozen=True)
class HRNetVariant:
    """The hyperparameters of an HRNet.

    Attributes:
        channels: Number of channels of the stride-4 branch; each further branch doubles it.
        modules: Number of exchange modules in stages 2, 3 and 4.
        blocks: Number of residual blocks per branch and module.
        stage1_blocks: Number of bottleneck blocks in stage 1.
        stage1_channels: Number of channels of the 3x3 convolutions of stage 1.
    """

    channels: int
    modules: tuple[int, int, int]
    blocks: int
    stage1_blocks: int
    stage1_channels: int

    @property
    def branch_channels(self) -> tuple[int, ...]:
        """Number of channels of each of the four branches."""
        return tuple(self.channels * 2**branch for branch in range(_NUM_BRANCHES))


VARIANTS: dict[str, HRNetVariant] = {
    # 16 channels despite its name, as published.
    "w18_small_v1": HRNetVariant(16, (1, 1, 1), 2, 1, 32),
    "w18_small_v2": HRNetVariant(18, (1, 3, 2), 2, 2, 64),
    "w18": HRNetVariant(18, (1, 4, 3), 4, 4, 64),
    "w32": HRNetVariant(32, (1, 4, 3), 4, 4, 64),
    "w48": HRNetVariant(48, (1, 4, 3), 4, 4, 64),
}


def find_variant(variant: str | HRNetVariant) -> HRNetVariant:
    """Return the published variant of this name, or `variant` itself if it is not a name.

    Raises:
        ConfigError: If `VARIANTS` has no such name.
    """
    if isinstance(variant, HRNetVariant):
        return variant
    if variant not in VARIANTS:
        raise ConfigError(f"unknown HRNet variant {variant!r}{did_you_mean(variant, VARIANTS)}")
    return VARIANTS[variant]


class HRNetTrunk(nn.Module):
    """The layers of an HRNet as attributes of a model or a backbone.

    Official weight files hold trunk and head at the same level (``conv1.weight`` next to
    ``last_layer.0.weight``). A model that inherits the trunk has the same names;
    :class:`HRNet` is the trunk alone. This class has no constructor: call `add_trunk` once in the
    constructor of the subclass.
    """

    align_corners: bool
    in_channels: int
    fusion: Resizing = "bilinear"
    activation_checkpointing: bool = False

    def add_trunk(
        self,
        variant: HRNetVariant,
        *,
        fusion: Resizing = "bilinear",
        activation_checkpointing: bool = False,
    ) -> None:
        """Create and initialise the layers of `variant`."""
        self.fusion = fusion
        self.activation_checkpointing = activation_checkpointing
        channels = variant.branch_channels
        stage1_out = variant.stage1_channels * EXPANSION
        self.conv1 = conv3x3(self.in_channels, _STEM_CHANNELS, stride=2)
        self.bn1 = nn.BatchNorm2d(_STEM_CHANNELS)
        self.conv2 = conv3x3(_STEM_CHANNELS, _STEM_CHANNELS, stride=2)
        self.bn2 = nn.BatchNorm2d(_STEM_CHANNELS)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage1(variant)
        self.transition1 = _transition((stage1_out,), channels[:2])
        self.stage2 = self._stage(variant, 0)
        self.transition2 = _transition(channels[:2], channels[:3])
        self.stage3 = self._stage(variant, 1)
        self.transition3 = _transition(channels[:3], channels[:4])
        self.stage4 = self._stage(variant, 2)
        init_layers(self)

    def _stage(self, variant: HRNetVariant, index: int) -> nn.ModuleList:
        channels = variant.branch_channels[: index + 2]
        return nn.ModuleList(
            ExchangeModule(
                channels,
                blocks=variant.blocks,
                align_corners=self.align_corners,
                fusion=self.fusion,
            )
            for _ in range(variant.modules[index])
        )

    def branches(self, images: Tensor) -> list[Tensor]:
        """Return the four branches, at strides 4, 8, 16 and 32, sizes rounded up."""
        features = self._run(self._stem, images, layers=[self.bn1, self.bn2])
        for block in self.layer1:
            features = self._run(block, features, layers=[block])
        branches = [features]
        del features  # many channels, not needed after the first transition
        for transition, stage in (
            (self.transition1, self.stage2),
            (self.transition2, self.stage3),
            (self.transition3, self.stage4),
        ):
            branches = _widen(transition, branches)
            for module in stage:
                branches = self._run(module, *branches, layers=[module])
        return branches

    def _stem(self, images: Tensor) -> Tensor:
        features = self.relu(self.bn1(self.conv1(images)))
        stem: Tensor = self.relu(self.bn2(self.conv2(features)))
        return stem

    def _run(
        self, function: Callable[..., Any], *inputs: Tensor, layers: Sequence[nn.Module]
    ) -> Any:
        """Return ``function(*inputs)``, recomputed in the backward pass with checkpointing."""
        if self.activation_checkpointing and self.training and torch.is_grad_enabled():
            return recomputed(function, *inputs, layers=layers)
        return function(*inputs)


class HRNet(Backbone, HRNetTrunk):
    """The trunk of an HRNet as a backbone.

    Args:
        variant: A key of `VARIANTS`, or a custom variant.
        align_corners: Whether bilinear resizing between branches aligns the corners.
        in_channels: Number of channels of the images.
        fusion: How the exchange modules resize a coarser branch to a finer one: ``bilinear`` as in
            the published code for segmentation, or ``nearest`` as in that for ImageNet and in timm.
            The features are those that ImageNet weights were trained for only with ``nearest``.
        activation_checkpointing: Store only the inputs of the stem, of each block of stage 1 and of
            each exchange module during training, and recompute the rest in the backward pass: less
            memory, more time, the same gradients and running statistics.

    Shape:
        - images: ``(N, in_channels, H, W)``, any size.
        - output: four tensors ``(N, C * 2**i, ceil(H / 2**(i+2)), ceil(W / 2**(i+2)))``.

    Raises:
        ConfigError: If `VARIANTS` has no variant of this name.

    Example:
        >>> import torch
        >>> trunk = HRNet("w18_small_v1").eval()
        >>> [tuple(branch.shape[1:]) for branch in trunk(torch.zeros(1, 3, 75, 117))]
        [(16, 19, 30), (32, 10, 15), (64, 5, 8), (128, 3, 4)]
    """

    strides = HRNET_STRIDES
    norm_stride = HRNET_STRIDES[-1]

    def __init__(
        self,
        variant: str | HRNetVariant,
        *,
        align_corners: bool | None = None,
        in_channels: int = 3,
        fusion: Resizing = "bilinear",
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__(in_channels=in_channels)
        self.align_corners = bool(align_corners)
        self.variant = find_variant(variant)
        self.channels = self.variant.branch_channels
        self.add_trunk(
            self.variant, fusion=fusion, activation_checkpointing=activation_checkpointing
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the four branches; see the class for shapes."""
        return self.branches(images)

    def pretrained(self) -> dict[str, Tensor]:
        return imagenet_trunk(self.variant)


def imagenet_trunk(variant: HRNetVariant) -> dict[str, Tensor]:
    """Return the ImageNet weights of timm for a published `variant`; they have the official names.

    Like the official ImageNet weights, they were trained with nearest-neighbour resizing between
    the branches, where segmentation models resize bilinearly; see `fusion` of :class:`HRNet`.

    Raises:
        ConfigError: If the variant is not a published one, or timm is not installed.
        ResourceError: If the weights are not in the cache and cannot be downloaded.
    """
    name = next((name for name, known in VARIANTS.items() if known == variant), None)
    if name is None:
        raise ConfigError(f"there are no ImageNet weights for an HRNet of {variant}; give a file")
    architecture = f"hrnet_{name.removesuffix('_v1')}"  # the name in timm
    return timm_weights(architecture, feature_location="", out_indices=(1, 2, 3, 4))


for _name in VARIANTS:
    BACKBONES.register(f"hrnet_{_name}")(partial(HRNet, variant=_name))


def _stage1(variant: HRNetVariant) -> nn.Sequential:
    width = variant.stage1_channels
    rest = [Bottleneck(width * EXPANSION, width) for _ in range(variant.stage1_blocks - 1)]
    return nn.Sequential(Bottleneck(_STEM_CHANNELS, width), *rest)


def _transition(old: tuple[int, ...], new: tuple[int, ...]) -> nn.ModuleList:
    """One layer per new branch; the last branch starts from the coarsest old one."""
    layers: list[nn.Module] = [
        nn.Identity() if before == after else conv3x3_bn(before, after)
        for before, after in zip(old, new, strict=False)
    ]
    # Nested once more than necessary: the official keys are transition2.2.0.0, not transition2.2.0.
    layers.append(nn.Sequential(conv3x3_bn(old[-1], new[-1], stride=2)))
    return nn.ModuleList(layers)


def _widen(transition: nn.ModuleList, branches: list[Tensor]) -> list[Tensor]:
    return [
        layer(branch) for layer, branch in zip(transition, [*branches, branches[-1]], strict=True)
    ]
