"""HRNetV2 for segmentation: trunk and head, under the names that a config uses."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from segtrain.errors import ConfigError
from segtrain.models.heads import HRNetHead, concatenate_branches
from segtrain.models.hrnet import VARIANTS, HRNetTrunk, HRNetVariant
from segtrain.models.registry import MODELS
from segtrain.models.segmentor import Segmentor, check_images


class HRNetSegmentor(Segmentor, HRNetTrunk):
    """HRNetV2; a subclass names the `variant`.

    Without the auxiliary head the keys and shapes of ``state_dict()`` are those of the official
    ``seg_hrnet``.

    Args:
        num_classes: Channels of every output.
        align_corners: The convention of every bilinear resize. Weight files do not record it: an
            imported model needs the value it was trained with.
        aux_head: Adds the output ``"aux"``: a second head of the same layout on the same features,
            as in HRNet-OCR.
        task_heads: More outputs by name, each with its number of channels and a head of the same
            layout: ``{"boundary": 1, "distance": 1}``. What they learn is the criterion's business.
        dropout: Probability of zeroing a channel before each classifier while training.

    Shape:
        - images: ``(N, 3, H, W)``, floating point, any size.
        - output: ``(N, num_classes, ceil(H / 4), ceil(W / 4))`` under ``"out"``, ``"aux"`` with
          `aux_head`, and those of `task_heads` with their own channels.

    Raises:
        ConfigError: When `num_classes` is below 1, `dropout` outside [0, 1), or a task head has no
            channels or a name that is taken.

    Example:
        >>> import torch
        >>> model = MODELS.build("hrnet_w18_small_v1", num_classes=19, aux_head=True).eval()
        >>> outputs = model(torch.zeros(1, 3, 75, 117))
        >>> {name: tuple(logits.shape) for name, logits in outputs.items()}
        {'out': (1, 19, 19, 30), 'aux': (1, 19, 19, 30)}
    """

    variant: ClassVar[HRNetVariant]
    head_prefixes: ClassVar[tuple[str, ...]] = ("last_layer", "aux_head", "task_heads")

    def __init__(
        self,
        *,
        num_classes: int,
        align_corners: bool = False,
        aux_head: bool = False,
        task_heads: dict[str, int] | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(num_classes=num_classes, align_corners=align_corners)
        self.add_trunk(self.variant)
        in_channels = sum(self.variant.branch_channels)
        self.last_layer = HRNetHead(
            in_channels=in_channels, num_classes=num_classes, dropout=dropout
        )
        self.aux_head: HRNetHead | None = None
        if aux_head:
            self.aux_head = HRNetHead(
                in_channels=in_channels, num_classes=num_classes, dropout=dropout
            )

        for name, channels in (task_heads or {}).items():
            if name in ("out", "aux") or not name.isidentifier() or channels < 1:
                raise ConfigError(
                    "task_heads needs names other than out and aux, and at least 1 channel each,"
                    f" got {name}: {channels}"
                )
        self.task_heads = nn.ModuleDict(
            {
                name: HRNetHead(in_channels=in_channels, num_classes=channels, dropout=dropout)
                for name, channels in (task_heads or {}).items()
            }
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits by output name; see the class for shapes.

        Raises:
            ValueError: When the shape of `images` is not ``(N, 3, H, W)``.
            TypeError: When their dtype is not floating point.
        """
        check_images(images)
        features = concatenate_branches(self.branches(images), align_corners=self.align_corners)
        outputs = {"out": self.last_layer(features)}
        if self.aux_head is not None:
            outputs["aux"] = self.aux_head(features)
        for name, head in self.task_heads.items():
            outputs[name] = head(features)
        return outputs


@MODELS.register("hrnet_w18_small_v1")
class HRNetW18SmallV1(HRNetSegmentor):
    """1.5 million parameters: the smallest published one."""

    variant = VARIANTS["w18_small_v1"]


@MODELS.register("hrnet_w18_small_v2")
class HRNetW18SmallV2(HRNetSegmentor):
    """3.9 million parameters."""

    variant = VARIANTS["w18_small_v2"]


@MODELS.register("hrnet_w18")
class HRNetW18(HRNetSegmentor):
    """9.6 million parameters."""

    variant = VARIANTS["w18"]


@MODELS.register("hrnet_w32")
class HRNetW32(HRNetSegmentor):
    """29.5 million parameters."""

    variant = VARIANTS["w32"]


@MODELS.register("hrnet_w48")
class HRNetW48(HRNetSegmentor):
    """65.9 million parameters: the one behind the published Cityscapes results."""

    variant = VARIANTS["w48"]
