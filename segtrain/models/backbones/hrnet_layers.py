"""The layers of HRNet: residual blocks and the exchange between branches."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from segtrain.models.layers.resize import Resizing, resize_as

EXPANSION = 4  # a bottleneck's output is this much wider than its 3x3 convolution


class ExchangeModule(nn.Module):
    """Residual blocks on every branch, followed by an exchange: each branch becomes a sum of all.

    A coarser branch is added to a finer one after a 1x1 convolution and a resize to the exact size
    of the finer one (`fusion`), so that no image size needs padding. A finer branch is added to a
    coarser one after 3x3 convolutions of stride 2.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        *,
        blocks: int,
        align_corners: bool,
        fusion: Resizing = "bilinear",
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.fusion: Resizing = fusion
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width) for _ in range(blocks))) for width in channels
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_fuse_layer(channels, source, target) for source in range(len(channels)))
            for target in range(len(channels))
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        """Return the same number of branches as given, with the same shapes."""
        branches = [blocks(branch) for blocks, branch in zip(self.branches, inputs, strict=True)]
        return [self._fuse(branches, target) for target in range(len(branches))]

    def _fuse(self, branches: list[Tensor], target: int) -> Tensor:
        # Summed in the order of the official code, so that float32 results agree closely.
        terms = (self._term(branches, source, target) for source in range(len(branches)))
        total = next(terms)
        if target == 0:
            # The first term is the branch itself, which other targets still need. The second term
            # is a new tensor, so the sum may be computed in place there.
            total = next(terms).add_(total)
        for term in terms:
            total.add_(term)
        fused: Tensor = self.relu(total)
        return fused

    def _term(self, branches: list[Tensor], source: int, target: int) -> Tensor:
        """The term that branch `source` adds to branch `target`."""
        layers = self.fuse_layers[target]
        assert isinstance(layers, nn.ModuleList)
        term: Tensor = layers[source](branches[source])
        if source <= target:
            return term
        return resize_as(term, branches[target], align_corners=self.align_corners, mode=self.fusion)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut; channels and size are preserved."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape."""
        residual = self.relu(self.bn1(self.conv1(features)))
        residual = self.conv2(residual)
        output: Tensor = self.relu(self.bn2(residual).add_(features))
        return output


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with a shortcut; the output is four times as wide."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        out_channels = channels * EXPANSION
        self.conv1 = nn.Conv2d(in_channels, channels, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = (
            nn.Identity()
        )  # official name; here it only increases the channels
        if in_channels != out_channels:
            self.downsample = conv1x1_bn(in_channels, out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """``(N, in_channels, h, w)`` -> ``(N, 4 * channels, h, w)``."""
        residual = self.relu(self.bn1(self.conv1(features)))
        residual = self.relu(self.bn2(self.conv2(residual)))
        # Reusing the name frees the old tensor when no graph is recorded.
        residual = self.conv3(residual)
        residual = self.bn3(residual)
        output: Tensor = self.relu(residual.add_(self.downsample(features)))
        return output


def conv3x3(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Conv2d:
    """3x3 convolution without bias; a stride of 1 keeps the size."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)


def conv1x1_bn(in_channels: int, out_channels: int) -> nn.Sequential:
    """1x1 convolution and batch norm."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def conv3x3_bn(
    in_channels: int, out_channels: int, *, stride: int = 1, relu: bool = True
) -> nn.Sequential:
    """3x3 convolution, batch norm and, by default, ReLU."""
    layers = [conv3x3(in_channels, out_channels, stride=stride), nn.BatchNorm2d(out_channels)]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if relu else nn.Sequential(*layers)


def _fuse_layer(channels: tuple[int, ...], source: int, target: int) -> nn.Module:
    if source == target:
        return nn.Identity()
    if source > target:
        return conv1x1_bn(channels[source], channels[target])
    # Only the last step changes the number of channels, and only it has no ReLU.
    widths = [channels[source]] * (target - source) + [channels[target]]
    last = target - source - 1
    steps = [
        conv3x3_bn(*pair, stride=2, relu=step < last) for step, pair in enumerate(pairwise(widths))
    ]
    return nn.Sequential(*steps)
