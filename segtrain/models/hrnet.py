"""HRNetV2 and HRNet-OCR for segmentation: trunk and head, under the names that a config uses."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from segtrain.errors import ConfigError
from segtrain.models.backbones.hrnet import (
    HRNET_STRIDES,
    VARIANTS,
    HRNetTrunk,
    HRNetVariant,
    imagenet_trunk,
)
from segtrain.models.heads import HRNetHead, concatenate
from segtrain.models.heads.ocr_layers import OCRLayers
from segtrain.models.registry import MODELS
from segtrain.models.segmentor import Segmentor


class HRNetModel(Segmentor, HRNetTrunk):
    """A trunk with task heads; what gives ``"out"`` is a subclass's business.

    Args:
        activation_checkpointing: As in :class:`~segtrain.models.backbones.hrnet.HRNet`.
        task_heads: More outputs by name, each with its number of channels and a head in the layout
            of HRNetV2: ``{"boundary": 1, "distance": 1}``. What they learn is the criterion's
            business.
        dropout: Probability of zeroing a channel before each classifier while training.
        **common: As in :class:`~segtrain.models.Segmentor`.

    Raises:
        ConfigError: When `dropout` is outside [0, 1), or a task head has no channels or a name that
            is taken.
    """

    variant: ClassVar[HRNetVariant]
    norm_stride = HRNET_STRIDES[-1]
    source = "Wang, Sun et al., TPAMI 2020"
    paper_size = (1024, 2048)

    def __init__(
        self,
        *,
        task_heads: dict[str, int] | None = None,
        dropout: float = 0.0,
        activation_checkpointing: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.dropout = dropout
        self.add_trunk(self.variant, activation_checkpointing=activation_checkpointing)
        for name, channels in (task_heads or {}).items():
            if name in ("out", "aux") or not name.isidentifier() or channels < 1:
                raise ConfigError(
                    "task_heads needs names other than out and aux, and at least 1 channel each,"
                    f" got {name}: {channels}"
                )
        self.task_heads = nn.ModuleDict(
            {name: self.new_head(channels) for name, channels in (task_heads or {}).items()}
        )

    def new_head(self, num_classes: int) -> HRNetHead:
        """A head in the layout of HRNetV2 over all branches."""
        in_channels = sum(self.variant.branch_channels)
        return HRNetHead(in_channels=in_channels, num_classes=num_classes, dropout=self.dropout)

    def features(self, images: Tensor) -> Tensor:
        """All branches side by side, ``(N, sum of C_i, ceil(H / 4), ceil(W / 4))``."""
        self.check_images(images)
        return concatenate(self.branches(images), align_corners=self.align_corners)

    def task_outputs(self, features: Tensor) -> dict[str, Tensor]:
        """What the task heads make of `features`, by output name."""
        return {name: head(features) for name, head in self.task_heads.items()}

    def pretrained_backbone(self) -> dict[str, Tensor]:
        return imagenet_trunk(self.variant)


class HRNetSegmentor(HRNetModel):
    """HRNetV2; a subclass names the `variant`.

    Without the auxiliary head the keys and shapes of ``state_dict()`` are those of the official
    ``seg_hrnet``.

    Args:
        aux_head: Adds the output ``"aux"``: a second head of the same layout on the same features,
            as in HRNet-OCR.
        **common: As in :class:`HRNetModel`.

    Shape:
        - images: ``(N, in_channels, H, W)``, floating point, any size; to train, a single image
          must have more than 32 pixels in a row or column.
        - output: ``(N, num_classes, ceil(H / 4), ceil(W / 4))`` under ``"out"``, ``"aux"`` with
          `aux_head`, and those of `task_heads` with their own channels.

    Example:
        >>> import torch
        >>> model = MODELS.build("hrnet_w18_small_v1", num_classes=19, aux_head=True).eval()
        >>> outputs = model(torch.zeros(1, 3, 75, 117))
        >>> {name: tuple(logits.shape) for name, logits in outputs.items()}
        {'out': (1, 19, 19, 30), 'aux': (1, 19, 19, 30)}
    """

    head_prefixes: ClassVar[tuple[str, ...]] = ("last_layer", "aux_head", "task_heads")

    def __init__(self, *, aux_head: bool = False, **common: Any) -> None:
        super().__init__(**common)
        self.last_layer = self.new_head(self.num_classes)
        self.aux_head = self.new_head(self.num_classes) if aux_head else None

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits by output name; see the class for shapes.

        Raises:
            ValueError: When the shape of `images` is not ``(N, in_channels, H, W)``.
            TypeError: When their dtype is not floating point.
        """
        features = self.features(images)
        outputs = {"out": self.last_layer(features)}
        if self.aux_head is not None:
            outputs["aux"] = self.aux_head(features)
        return outputs | self.task_outputs(features)


class HRNetOCRSegmentor(HRNetModel, OCRLayers):
    """HRNetV2's trunk with object-contextual representations; a subclass names the `variant`.

    The keys and shapes of ``state_dict()`` are those of the official ``seg_hrnet_ocr``. By default
    the criterion weighs ``"out"`` with 1 and ``"aux"`` with 0.4, as the official recipes do.

    Args:
        ocr_channels: Width of the pixels' features and of the regions.
        key_channels: Width of the attention.
        dropout: Probability of zeroing a channel before the main classifier, and those of the task
            heads, while training; the auxiliary one drops none.
        scale: Let only the maxima of windows of this many features in height and width look at the
            regions, and resize what they see.
        **common: As in :class:`HRNetModel`.

    Shape:
        - images: ``(N, in_channels, H, W)``, floating point, any size; to train, a single image
          must have more than 32 pixels in a row or column, and one class takes two images.
        - output: ``(N, num_classes, ceil(H / 4), ceil(W / 4))`` under ``"out"`` and ``"aux"``, and
          those of `task_heads` with their own channels.

    Raises:
        ConfigError: When a width or `scale` is below 1, or as in :class:`HRNetModel`.

    Example:
        >>> import torch
        >>> model = MODELS.build("hrnet_w18_small_v1_ocr", num_classes=19).eval()
        >>> outputs = model(torch.zeros(1, 3, 75, 117))
        >>> {name: tuple(logits.shape) for name, logits in outputs.items()}
        {'out': (1, 19, 19, 30), 'aux': (1, 19, 19, 30)}

    References:
        :mod:`segtrain.models.heads.ocr_layers`.
    """

    head_prefixes: ClassVar[tuple[str, ...]] = (
        *("conv3x3_ocr", "ocr_distri_head", "cls_head", "aux_head"),
        "task_heads",
    )
    source = "Yuan, Chen and Wang, ECCV 2020"

    def __init__(
        self,
        *,
        ocr_channels: int = 512,
        key_channels: int = 256,
        dropout: float = 0.05,
        scale: int = 1,
        **common: Any,
    ) -> None:
        super().__init__(dropout=dropout, **common)
        self.add_ocr(
            sum(self.variant.branch_channels),
            self.num_classes,
            ocr_channels=ocr_channels,
            key_channels=key_channels,
            dropout=dropout,
            scale=scale,
        )
        # Pixels in a row that leave two features after pooling, less one.
        pooled = HRNET_STRIDES[0] * (2 * scale - 1)
        self.norm_stride = max(HRNET_STRIDES[-1], pooled)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits by output name; see the class for shapes.

        Raises:
            ValueError: When the shape of `images` is not ``(N, in_channels, H, W)``, or batch norm
                would get a single value per channel to train on.
            TypeError: When their dtype is not floating point.
        """
        features = self.features(images)
        return self.ocr_outputs(features) | self.task_outputs(features)


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


@MODELS.register("hrnet_w18_small_v1_ocr")
class HRNetW18SmallV1OCR(HRNetOCRSegmentor):
    """3.8 million parameters."""

    variant = VARIANTS["w18_small_v1"]


@MODELS.register("hrnet_w18_small_v2_ocr")
class HRNetW18SmallV2OCR(HRNetOCRSegmentor):
    """6.4 million parameters."""

    variant = VARIANTS["w18_small_v2"]


@MODELS.register("hrnet_w18_ocr")
class HRNetW18OCR(HRNetOCRSegmentor):
    """12.1 million parameters."""

    variant = VARIANTS["w18"]


@MODELS.register("hrnet_w32_ocr")
class HRNetW32OCR(HRNetOCRSegmentor):
    """33.0 million parameters."""

    variant = VARIANTS["w32"]


@MODELS.register("hrnet_w48_ocr")
class HRNetW48OCR(HRNetOCRSegmentor):
    """70.4 million parameters: the one behind the published results with OCR."""

    variant = VARIANTS["w48"]
