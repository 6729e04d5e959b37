r"""HRNet: a trunk that keeps a high-resolution branch from the stem to the last stage.

A stem brings the image to stride 4. Stage 1 is a short stack of bottleneck blocks there; each later
stage adds a branch of half the resolution and twice the channels, and its modules exchange
information between all branches:

.. code-block:: text

    image - stem - layer1 --- stage2 --- stage3 --- stage4 --->  C channels, stride 4
                         \--- stage2 --- stage3 --- stage4 ---> 2C channels, stride 8
                                    \--- stage3 --- stage4 ---> 4C channels, stride 16
                                               \--- stage4 ---> 8C channels, stride 32

Written for segtrain. The names of the submodules are those of the official code
(https://github.com/HRNet/HRNet-Semantic-Segmentation, MIT), so that its weight files, and ImageNet
weights in the same layout, load by name. Differences from it: `align_corners` belongs to the
instance, and the initial weights are those of :func:`segtrain.models.init.init_layers`.

References:
    Wang, Sun et al., *Deep High-Resolution Representation Learning for Visual Recognition*, TPAMI
    2020, https://arxiv.org/abs/1908.07919.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.errors import ConfigError
from segtrain.models.init import init_layers
from segtrain.schema import did_you_mean

_STEM_CHANNELS = 64
_EXPANSION = 4  # a bottleneck's output is this much wider than its 3x3 convolution
_NUM_BRANCHES = 4


@dataclass(frozen=True)
class HRNetVariant:
    """The numbers in which one HRNet differs from another.

    Attributes:
        channels: Channels of the stride-4 branch; each further branch doubles them.
        modules: Exchange modules in stages 2, 3 and 4.
        blocks: Residual blocks per branch and module.
        stage1_blocks: Bottleneck blocks in stage 1.
        stage1_channels: Width of the 3x3 convolution inside them.
    """

    channels: int
    modules: tuple[int, int, int]
    blocks: int
    stage1_blocks: int
    stage1_channels: int

    @property
    def branch_channels(self) -> tuple[int, ...]:
        """Channels of the four branches that the trunk returns."""
        return tuple(self.channels * 2**branch for branch in range(_NUM_BRANCHES))


VARIANTS: dict[str, HRNetVariant] = {
    # 16 channels in spite of its name, as published.
    "w18_small_v1": HRNetVariant(16, (1, 1, 1), 2, 1, 32),
    "w18_small_v2": HRNetVariant(18, (1, 3, 2), 2, 2, 64),
    "w18": HRNetVariant(18, (1, 4, 3), 4, 4, 64),
    "w32": HRNetVariant(32, (1, 4, 3), 4, 4, 64),
    "w48": HRNetVariant(48, (1, 4, 3), 4, 4, 64),
}


class HRNetTrunk(nn.Module):
    """The layers of an HRNet as attributes of the module that inherits it.

    Official weight files hold trunk and head at one level (``conv1.weight`` beside
    ``last_layer.0.weight``). A model that *is* a trunk gives those names without renaming anything;
    :class:`HRNet` is the trunk by itself. There is no constructor here, so a second base class
    keeps its own: call `add_trunk` once from the subclass's constructor.
    """

    align_corners: bool

    def add_trunk(self, variant: HRNetVariant) -> None:
        """Creates the layers of `variant`, initialised."""
        channels = variant.branch_channels
        stage1_out = variant.stage1_channels * _EXPANSION
        self.conv1 = _conv3x3(3, _STEM_CHANNELS, stride=2)
        self.bn1 = nn.BatchNorm2d(_STEM_CHANNELS)
        self.conv2 = _conv3x3(_STEM_CHANNELS, _STEM_CHANNELS, stride=2)
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

    def _stage(self, variant: HRNetVariant, index: int) -> nn.Sequential:
        channels = variant.branch_channels[: index + 2]
        modules = [
            ExchangeModule(channels, blocks=variant.blocks, align_corners=self.align_corners)
            for _ in range(variant.modules[index])
        ]
        return nn.Sequential(*modules)

    def branches(self, images: Tensor) -> list[Tensor]:
        """The four branches, strides 4, 8, 16 and 32, sizes rounded up."""
        features = self.relu(self.bn1(self.conv1(images)))
        features = self.relu(self.bn2(self.conv2(features)))
        branches: list[Tensor] = [self.layer1(features)]
        for transition, stage in (
            (self.transition1, self.stage2),
            (self.transition2, self.stage3),
            (self.transition3, self.stage4),
        ):
            branches = stage(_widen(transition, branches))
        return branches


class HRNet(HRNetTrunk):
    """The trunk by itself.

    Args:
        variant: A key of `VARIANTS`, or a variant of your own.
        align_corners: The convention of the bilinear resize between branches.

    Shape:
        - images: ``(N, 3, H, W)``. Any size; training needs more than one pixel per channel in the
          stride-32 branch, counted over the batch, as batch norm does.
        - output: four tensors ``(N, C * 2**i, ceil(H / 2**(i+2)), ceil(W / 2**(i+2)))``.

    Raises:
        ConfigError: When `variant` is a name that `VARIANTS` does not hold.

    Example:
        >>> import torch
        >>> trunk = HRNet("w18_small_v1").eval()
        >>> [tuple(branch.shape[1:]) for branch in trunk(torch.zeros(1, 3, 75, 117))]
        [(16, 19, 30), (32, 10, 15), (64, 5, 8), (128, 3, 4)]
    """

    def __init__(self, variant: str | HRNetVariant, *, align_corners: bool = False) -> None:
        super().__init__()
        self.align_corners = align_corners
        if isinstance(variant, str):
            if variant not in VARIANTS:
                raise ConfigError(
                    f"unknown HRNet variant {variant!r}{did_you_mean(variant, VARIANTS)}"
                )
            variant = VARIANTS[variant]
        self.add_trunk(variant)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The four branches; see the class for shapes."""
        return self.branches(images)


class ExchangeModule(nn.Module):
    """Residual blocks on every branch, then every branch receives the sum of all.

    A lower resolution reaches a higher one by a 1x1 convolution and a bilinear resize to the
    receiver's exact size, so no input size needs padding; a higher one reaches a lower one by 3x3
    convolutions of stride 2.
    """

    def __init__(self, channels: tuple[int, ...], *, blocks: int, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width) for _ in range(blocks))) for width in channels
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_fuse_layer(channels, source, target) for source in range(len(channels)))
            for target in range(len(channels))
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        """As many branches as came in, of the same shapes."""
        branches = [blocks(branch) for blocks, branch in zip(self.branches, inputs, strict=True)]
        return [self._fuse(branches, target) for target in range(len(branches))]

    def _fuse(self, branches: list[Tensor], target: int) -> Tensor:
        size = branches[target].shape[-2:]
        layers = self.fuse_layers[target]
        assert isinstance(layers, nn.ModuleList)
        # The official order of summation, so that float32 results agree with it closely.
        total: Tensor | None = None
        for source, (layer, branch) in enumerate(zip(layers, branches, strict=True)):
            term: Tensor = layer(branch)
            if source > target:
                term = F.interpolate(
                    term, size=size, mode="bilinear", align_corners=self.align_corners
                )
            total = term if total is None else total + term
        fused: Tensor = self.relu(total)
        return fused


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut; channels and size stay."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(channels, channels)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """The shape of `features`."""
        residual = self.relu(self.bn1(self.conv1(features)))
        output: Tensor = self.relu(self.bn2(self.conv2(residual)) + features)
        return output


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut; the output is four times as wide."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        out_channels = channels * _EXPANSION
        self.conv1 = nn.Conv2d(in_channels, channels, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()  # the official name; here it only ever widens
        if in_channels != out_channels:
            self.downsample = _conv1x1_bn(in_channels, out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """``(N, in_channels, h, w)`` -> ``(N, 4 * channels, h, w)``."""
        residual = self.relu(self.bn1(self.conv1(features)))
        residual = self.relu(self.bn2(self.conv2(residual)))
        output: Tensor = self.relu(self.bn3(self.conv3(residual)) + self.downsample(features))
        return output


def _conv3x3(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)


def _conv1x1_bn(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def _conv3x3_bn(
    in_channels: int, out_channels: int, *, stride: int = 1, relu: bool = True
) -> nn.Sequential:
    layers = [_conv3x3(in_channels, out_channels, stride=stride), nn.BatchNorm2d(out_channels)]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if relu else nn.Sequential(*layers)


def _stage1(variant: HRNetVariant) -> nn.Sequential:
    width = variant.stage1_channels
    rest = [Bottleneck(width * _EXPANSION, width) for _ in range(variant.stage1_blocks - 1)]
    return nn.Sequential(Bottleneck(_STEM_CHANNELS, width), *rest)


def _transition(old: tuple[int, ...], new: tuple[int, ...]) -> nn.ModuleList:
    """One layer per new branch; the last one starts from the lowest old resolution."""
    layers: list[nn.Module] = [
        nn.Identity() if before == after else _conv3x3_bn(before, after)
        for before, after in zip(old, new, strict=False)
    ]
    # Nested once more than needed: the official keys are transition2.2.0.0, not transition2.2.0.
    layers.append(nn.Sequential(_conv3x3_bn(old[-1], new[-1], stride=2)))
    return nn.ModuleList(layers)


def _widen(transition: nn.ModuleList, branches: list[Tensor]) -> list[Tensor]:
    return [
        layer(branch) for layer, branch in zip(transition, [*branches, branches[-1]], strict=True)
    ]


def _fuse_layer(channels: tuple[int, ...], source: int, target: int) -> nn.Module:
    if source == target:
        return nn.Identity()
    if source > target:
        return _conv1x1_bn(channels[source], channels[target])
    # The channels change, and the ReLU is left out, in the last step down only.
    widths = [channels[source]] * (target - source) + [channels[target]]
    last = target - source - 1
    steps = [
        _conv3x3_bn(*pair, stride=2, relu=step < last) for step, pair in enumerate(pairwise(widths))
    ]
    return nn.Sequential(*steps)
